"""A source and a simulated S3 over TLS on loopback. The tests of a process share them."""

from __future__ import annotations

import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
import trustme
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.integration.archive.faulty_servers import S3Handler, Server, SourceHandler, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@dataclass(frozen=True)
class Seaweed:
    """A running SeaweedFS with one bucket, `archive`."""

    client: S3Client
    tls: ssl.SSLContext


def free_ports(count: int) -> list[int]:
    """Return free ports. SeaweedFS adds 10,000 to each port for gRPC, so these ports are free too."""
    ports: list[int] = []
    for port in random.Random(os.getpid()).sample(range(20_000, 32_000), 1000):
        with suppress(OSError):
            for candidate in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", candidate))
            ports.append(port)
        if len(ports) == count:
            return ports
    pytest.fail("no free ports on loopback")


@pytest.fixture(scope="session")
def seaweed(ca: trustme.CA, ca_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """Start SeaweedFS, an independent implementation of S3 that verifies checksums and conditions."""
    folder = tmp_path_factory.mktemp("seaweed")
    certificate = ca.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    (folder / "data").mkdir()
    master, volume, filer, s3, s3_tls, admin = free_ports(6)
    flags = {
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": master,
        "volume.port": volume,
        "filer.port": filer,
        "filer.localSocket": folder / "filer.sock",
        "s3.port": s3,
        "s3.port.https": s3_tls,
        "s3.cert.file": folder / "cert.pem",
        "s3.key.file": folder / "key.pem",
        "s3.localSocket": folder / "s3.sock",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "admin.port": admin,
        "admin.ui": "false",
        "webdav": "false",
        "bucket": "archive",
    }
    weed = Path(sys.executable).with_name("weed")
    secrets = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret", "WEED_S3_SSE_KEY": "ab" * 32}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            [weed, "mini", *(f"-{name}={value}" for name, value in flags.items())],
            stdout=log,
            stderr=log,
            cwd=folder,
            env=os.environ | secrets,
        )
    try:
        tls = ssl.create_default_context(cafile=str(ca_file))
        client = boto3.client(
            "s3",
            endpoint_url=f"https://localhost:{s3_tls}",
            verify=str(ca_file),
            region_name="us-east-1",
            aws_access_key_id=secrets["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=secrets["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"total_max_attempts": 1}),
        )
        for _ in range(300):
            with suppress(BotoCoreError, ClientError):
                client.head_bucket(Bucket="archive")
                break
            if process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            pytest.fail(f"SeaweedFS did not start: {(folder / 'log').read_text()[-2000:]}")
        yield Seaweed(client, tls)
        client.close()
    finally:
        # SeaweedFS waits for its open connections before it ends, sometimes for minutes.
        process.kill()
        process.wait(20)
        shutil.rmtree(folder / "data", ignore_errors=True)
