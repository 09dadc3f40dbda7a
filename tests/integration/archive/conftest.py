"""A source and an S3 over TLS on loopback, shared by the tests of a process."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import boto3
import pytest
import trustme
from botocore.config import Config

from tests.integration.archive.faulty import S3Handler, Server, SourceHandler, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mypy_boto3_s3 import S3Client


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def tls(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


@pytest.fixture(scope="session")
def source(ca: trustme.CA) -> Iterator[Server]:
    with serving(SourceHandler, ca) as server:
        yield server


@pytest.fixture(scope="session")
def sink(ca: trustme.CA) -> Iterator[Server]:
    with serving(S3Handler, ca) as server:
        yield server


@pytest.fixture(scope="session")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="session")
def client(sink: Server, ca_file: Path) -> S3Client:
    return boto3.client(
        "s3",
        endpoint_url=sink.url,
        verify=str(ca_file),
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 2}, s3={"addressing_style": "path"}),
    )
