"""An error of AWS ends a command with a single line and exit status 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest
import typer
from botocore import exceptions
from botocore.response import StreamingBody
from botocore.stub import Stubber
from typer.testing import CliRunner
from urllib3.exceptions import ProtocolError

from meibo import aws
from meibo_cli.exit_codes import EXIT_BROKEN_PIPE, EXIT_FAILURE, report_errors
from meibo_cli.main import app
from meibo_cli.selection import open_archive
from tests.support.aws import UnreachableClient

URL = "https://archive.s3.eu-south-1.amazonaws.com/?X-Amz-Signature=secret"


def _client(service: Any) -> Any:
    return boto3.client(service, region_name="eu-south-1", aws_access_key_id="testing", aws_secret_access_key="testing")


class _BrokenBody:
    """A response body that ends too early."""

    def read(self, *_: Any) -> bytes:
        raise ProtocolError(URL)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "status"), [("SlowDown", 503), ("InternalError", 500), ("ExpiredToken", 400), ("AccessDenied", 403)]
)
def test_error_of_s3_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch, code: str, status: int) -> None:
    client = _client("s3")
    monkeypatch.setattr(boto3, "client", lambda *_, **__: client)
    with Stubber(client) as s3:
        s3.add_client_error("list_objects_v2", code, service_message=URL, http_status_code=status)
        result = CliRunner().invoke(app, ["ls", "--archive", "s3://archive"])

    assert result.exit_code == EXIT_FAILURE
    assert result.stderr.startswith(f"AWS returned {code} for ListObjectsV2")
    assert result.stderr.count("\n") == 1
    assert "Signature" not in result.output


@pytest.mark.parametrize(
    "error",
    [
        exceptions.EndpointConnectionError(endpoint_url=URL),
        exceptions.ConnectTimeoutError(endpoint_url=URL),
        exceptions.ReadTimeoutError(endpoint_url=URL),
        exceptions.NoCredentialsError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_unreachable_s3_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(boto3, "client", lambda *_, **__: UnreachableClient(error))

    result = CliRunner().invoke(app, ["ls", "--archive", "s3://archive"])

    assert result.exit_code == EXIT_FAILURE
    assert result.stderr.count("\n") == 1
    assert "Signature" not in result.output


def test_broken_response_of_s3_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = _client("s3")
    monkeypatch.setattr(boto3, "client", lambda *_, **__: client)
    reader = open_archive("s3://archive")
    body: Any = _BrokenBody()
    with Stubber(client) as s3:
        s3.add_response("get_object", {"Body": StreamingBody(body, 10)})
        with pytest.raises(typer.Exit) as ended, report_errors():
            reader.read("runs/_manifest.json")

    assert ended.value.exit_code == EXIT_FAILURE
    assert capsys.readouterr().err == (
        "the AWS request failed (ResponseStreamingError); check the credentials, the region and the network\n"
    )


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("ThrottlingException", "AwsBusyError: AWS responded to GetParameter with ThrottlingException; retry later"),
        (
            "AccessDeniedException",
            "the SSM parameter '/meibo/sources' cannot be read (AccessDeniedException); allow ",
        ),
    ],
)
def test_error_of_ssm_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, line: str
) -> None:
    sheet = tmp_path / "changes.csv"
    sheet.write_text("organization,action,member\norg_0000000000000001,add,a@example.com\n")
    client = _client("ssm")
    monkeypatch.setattr(aws, "ssm", lambda: client)
    with Stubber(client) as ssm:
        ssm.add_client_error("get_parameter", code, service_message=URL)
        result = CliRunner().invoke(app, ["changes", "send", str(sheet), "--source", "acme"])

    assert result.exit_code == EXIT_FAILURE
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1
    assert "Signature" not in result.output


def test_broken_pipe_is_not_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, report_errors():
        raise BrokenPipeError

    assert ended.value.exit_code == EXIT_BROKEN_PIPE
    assert capsys.readouterr().err == ""
