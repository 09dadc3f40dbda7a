"""The reduced data of botocore in the layer has no effect on the clients."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import botocore
import pytest
from botocore.loaders import Loader
from botocore.session import Session
from botocore.stub import Stubber

from botocore_data import reduce_data

DATA = Path(botocore.__file__).parent / "data"
SERVICES = {"s3", "secretsmanager", "stepfunctions"}


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of three services and the lists of all services, reduced to these three."""
    data = tmp_path_factory.mktemp("data")
    for path in DATA.iterdir():
        if path.is_file():
            shutil.copy(path, data)
    for service in [*SERVICES, "sqs"]:
        shutil.copytree(DATA / service, data / service)
    reduce_data(data, SERVICES)
    return data


@cache
def _loader(data: Path) -> Loader:
    return Loader([str(data)], include_default_search_paths=False)


def _client(data: Path, service: str, region: str) -> Any:
    session = Session()
    session.register_component("data_loader", _loader(data))
    return session.create_client(service, region, aws_access_key_id="testing", aws_secret_access_key="testing")


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_endpoints_are_the_same(reduced: Path, service: str) -> None:
    for region in ("us-east-1", "ap-northeast-1", "eu-south-1", "cn-north-1", "us-gov-west-1"):
        expected, meta = (_client(data, service, region).meta for data in (DATA, reduced))

        assert meta.endpoint_url == expected.endpoint_url
        assert meta.config.signature_version == expected.config.signature_version


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_operations_are_the_same(reduced: Path, service: str) -> None:
    expected, model = (_client(data, service, "us-east-1").meta.service_model for data in (DATA, reduced))

    assert model.operation_names == expected.operation_names
    for name in model.operation_names:
        shape, expected_shape = (found.operation_model(name).input_shape for found in (model, expected))
        assert repr(shape and shape.members) == repr(expected_shape and expected_shape.members)


def test_client_of_the_reduced_data_calls_an_operation(reduced: Path) -> None:
    client = _client(reduced, "s3", "eu-south-1")

    with Stubber(client) as s3:
        s3.add_response("head_object", {"ContentLength": 1}, {"Bucket": "archive", "Key": "key"})
        assert client.head_object(Bucket="archive", Key="key")["ContentLength"] == 1


def test_other_services_are_removed(reduced: Path) -> None:
    endpoints = json.loads((reduced / "endpoints.json").read_text())

    assert not (reduced / "sqs").exists()
    assert endpoints["partitions"][0]["services"].keys() == {"s3", "secretsmanager", "states"}
