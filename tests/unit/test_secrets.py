"""Read the configuration from SSM parameters, and secrets from Secrets Manager."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError
from botocore.stub import Stubber

from meibo import aws
from meibo.errors import AwsBusyError, ConfigurationError, SecretError
from meibo.secrets import read_configuration, read_secret
from tests.support.aws import UnreachableClient

NAME = "/meibo/sources"


@contextmanager
def _stubbed(monkeypatch: pytest.MonkeyPatch, service: Any, name: str) -> Iterator[Stubber]:
    """Stub the responses of a service in the order of the calls. A call with other parameters fails."""
    client = boto3.client(
        service, region_name="eu-central-1", aws_access_key_id="testing", aws_secret_access_key="testing"
    )
    with Stubber(client) as stubber:
        monkeypatch.setattr(aws, name, lambda: client)
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.fixture
def ssm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    with _stubbed(monkeypatch, "ssm", "ssm") as stubber:
        yield stubber


@pytest.fixture
def secrets_manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    with _stubbed(monkeypatch, "secretsmanager", "secrets_manager") as stubber:
        yield stubber


def _parameter(name: str, value: str) -> dict[str, Any]:
    return {"Name": name, "Value": value, "Type": "String", "Version": 1}


def _stub_parameter(ssm: Stubber, value: str | None) -> None:
    request = {"Name": NAME, "WithDecryption": False}
    if value is None:
        ssm.add_client_error("get_parameter", "ParameterNotFound", expected_params=request)
    else:
        ssm.add_response("get_parameter", {"Parameter": _parameter(NAME, value)}, request)


def _stub_path(ssm: Stubber, *pages: dict[str, str]) -> None:
    for number, page in enumerate(pages, 1):
        request: dict[str, Any] = {"Path": NAME, "Recursive": True, "WithDecryption": False}
        response: dict[str, Any] = {"Parameters": [_parameter(name, value) for name, value in page.items()]}
        if number > 1:
            request["NextToken"] = f"page-{number}"
        if number < len(pages):
            response["NextToken"] = f"page-{number + 1}"
        ssm.add_response("get_parameters_by_path", response, request)


def test_parameter_and_all_parameters_below_it_are_read(ssm: Stubber) -> None:
    _stub_parameter(ssm, "main")
    _stub_path(ssm, {f"{NAME}/eu/b": "b", f"{NAME}/a": "a"})

    assert read_configuration(NAME) == {NAME: "main", f"{NAME}/a": "a", f"{NAME}/eu/b": "b"}


def test_pages_are_read_beyond_an_empty_page(ssm: Stubber) -> None:
    _stub_parameter(ssm, None)
    _stub_path(ssm, {f"{NAME}/a": "a"}, {}, {f"{NAME}/b": "b"})

    assert read_configuration(NAME) == {f"{NAME}/a": "a", f"{NAME}/b": "b"}


def test_error_of_a_missing_configuration_names_both_places(ssm: Stubber) -> None:
    _stub_parameter(ssm, None)
    _stub_path(ssm, {})

    with pytest.raises(ConfigurationError, match=r"'/meibo/sources' or in parameters below '/meibo/sources/'"):
        read_configuration(NAME)


def test_denied_parameter_is_not_treated_as_missing(ssm: Stubber) -> None:
    ssm.add_client_error("get_parameter", "AccessDeniedException")

    with pytest.raises(ConfigurationError, match=r"'/meibo/sources' cannot be read \(AccessDeniedException\)"):
        read_configuration(NAME)


def test_denied_path_is_not_treated_as_empty(ssm: Stubber) -> None:
    _stub_parameter(ssm, "main")
    ssm.add_client_error("get_parameters_by_path", "AccessDeniedException")

    with pytest.raises(ConfigurationError, match=r"below '/meibo/sources/' cannot be read \(AccessDeniedException\)"):
        read_configuration(NAME)


@pytest.mark.parametrize(
    ("code", "status"), [("ThrottlingException", 400), ("InternalServerError", 500), ("ServiceUnavailable", 503)]
)
def test_busy_ssm_is_not_a_configuration_error(ssm: Stubber, code: str, status: int) -> None:
    ssm.add_client_error("get_parameter", code, http_status_code=status)

    with pytest.raises(AwsBusyError, match=f"GetParameter with {code}"):
        read_configuration(NAME)


def test_ssm_that_becomes_busy_is_not_a_configuration_error(ssm: Stubber) -> None:
    _stub_parameter(ssm, "main")
    ssm.add_client_error("get_parameters_by_path", "ThrottlingException")

    with pytest.raises(AwsBusyError, match="GetParametersByPath with ThrottlingException"):
        read_configuration(NAME)


@pytest.mark.parametrize(
    ("code", "status"), [("ThrottlingException", 400), ("InternalServiceError", 500), ("ServiceUnavailable", 503)]
)
def test_busy_secrets_manager_is_not_a_secret_error(secrets_manager: Stubber, code: str, status: int) -> None:
    secrets_manager.add_client_error("get_secret_value", code, http_status_code=status)

    with pytest.raises(AwsBusyError, match=f"GetSecretValue with {code}"):
        read_secret("meibo/acme")


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "AccessDeniedException"])
def test_missing_or_denied_secret_is_named(secrets_manager: Stubber, code: str) -> None:
    secrets_manager.add_client_error("get_secret_value", code)

    with pytest.raises(SecretError, match=rf"'meibo/acme' cannot be read \({code}\)"):
        read_secret("meibo/acme")


@pytest.mark.parametrize("text", ["[]", "client_id=a", "1"])
def test_malformed_secret_is_named_but_not_quoted(secrets_manager: Stubber, text: str) -> None:
    secrets_manager.add_response("get_secret_value", {"SecretString": text})

    with pytest.raises(SecretError, match="'meibo/acme': expected a JSON object") as caught:
        read_secret("meibo/acme")
    assert "client_id=a" not in str(caught.value)


def test_unreachable_aws_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    client = UnreachableClient(EndpointConnectionError(endpoint_url="https://secretsmanager.invalid"))
    monkeypatch.setattr(aws, "secrets_manager", lambda: client)
    monkeypatch.setattr(aws, "ssm", lambda: client)

    with pytest.raises(AwsBusyError, match="EndpointConnectionError"):
        read_secret("meibo/acme")
    with pytest.raises(AwsBusyError, match="EndpointConnectionError"):
        read_configuration(NAME)


def test_missing_credentials_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    client = UnreachableClient(NoCredentialsError())
    monkeypatch.setattr(aws, "secrets_manager", lambda: client)

    with pytest.raises(NoCredentialsError):
        read_secret("meibo/acme")


def test_binary_secret_is_read(secrets_manager: Stubber) -> None:
    secrets_manager.add_response("get_secret_value", {"SecretBinary": b'{"client_id": "a"}'})

    assert read_secret("meibo/acme") == {"client_id": "a"}
