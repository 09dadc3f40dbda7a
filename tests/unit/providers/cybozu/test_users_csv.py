from __future__ import annotations

import gzip
import traceback

import pytest
import requests

from meibo.errors import (
    ConfigurationError,
    CopyBrokenError,
    CredentialsRefusedError,
    MeiboError,
    OutOfTimeError,
    RequestRefusedError,
    ScopeMissingError,
    WrongFormatError,
)
from meibo.providers.cybozu.client import CybozuClient, CybozuCredentials
from tests.support.clock import FakeClock
from tests.support.transport import RecordedRequest, Reply, Transport
from tests.unit.providers.cybozu.conftest import MakeClient

PATH = "/v1/csv/user.csv"
CSV = ('"yamada","山田 太郎","","*"\r\n' * 20_000).encode()
CSV_TYPE = {"content-type": "text/csv; charset=UTF-8"}


@pytest.mark.parametrize(
    "body", [CSV, b"\xef\xbb\xbf" + CSV, b"", b"a,b", b"<b>,bold\n", b"\xff\xfe not UTF-8 \x00,x\n" * 1000]
)
@pytest.mark.parametrize("headers", [CSV_TYPE, {"content-type": ""}, {"content-type": "application/octet-stream"}])
def test_file_is_delivered_byte_for_byte(
    cybozu: Transport, client: CybozuClient, body: bytes, headers: dict[str, str]
) -> None:
    cybozu.on("GET", PATH, Reply(body=body, headers=headers))

    assert b"".join(client.stream_csv("users")) == body
    assert cybozu.requests[0].headers["Accept-Encoding"] == "identity"
    assert cybozu.requests[0].headers["X-Cybozu-Authorization"] == "QWRtaW5pc3RyYXRvcjpjeWJvenU="


def test_chunked_file_is_accepted(cybozu: Transport, client: CybozuClient) -> None:
    cybozu.on("GET", PATH, Reply(body=CSV, headers={**CSV_TYPE, "transfer-encoding": "chunked"}, length=False))

    assert b"".join(client.stream_csv("users")) == CSV


def test_compressed_file_is_decompressed(cybozu: Transport, client: CybozuClient) -> None:
    cybozu.on("GET", PATH, Reply(body=gzip.compress(CSV), headers={**CSV_TYPE, "content-encoding": "gzip"}))

    assert b"".join(client.stream_csv("users")) == CSV


def test_truncated_file_is_an_error(cybozu: Transport, client: CybozuClient) -> None:
    cybozu.on("GET", PATH, Reply(body=CSV, headers=CSV_TYPE, breaks_after=len(CSV) - 1))

    with pytest.raises(CopyBrokenError, match=r"sent an incomplete /v1/csv/user\.csv \(") as caught:
        list(client.stream_csv("users"))

    assert "山田" not in "".join(traceback.format_exception(caught.value))


def test_file_without_a_length_is_rejected(cybozu: Transport, client: CybozuClient) -> None:
    cybozu.on("GET", PATH, Reply(body=CSV, headers=CSV_TYPE, length=False))

    with pytest.raises(WrongFormatError) as caught:
        next(client.stream_csv("users"))

    assert str(caught.value) == (
        "cybozu.com (example.cybozu.com): expected Content-Length or chunked encoding for /v1/csv/user.csv, found"
        " neither, so its completeness cannot be checked"
    )


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"<html>login</html>", headers=CSV_TYPE),
        Reply(body=b"\xef\xbb\xbf\r\n  <!DOCTYPE html><html></html>", headers=CSV_TYPE),
        Reply(body=b"<?xml version='1.0'?>", headers=CSV_TYPE),
        Reply(body=b"a,b", headers={"content-type": "text/html"}),
        Reply(json={"message": "ok"}),
    ],
)
def test_html_page_yields_no_bytes(cybozu: Transport, client: CybozuClient, reply: Reply) -> None:
    cybozu.on("GET", PATH, reply)

    with pytest.raises(WrongFormatError):
        next(client.stream_csv("users"))


def test_overload_before_the_first_byte_is_retried(cybozu: Transport, client: CybozuClient) -> None:
    cybozu.on("GET", PATH, Reply(503), requests.ReadTimeout("late"), Reply(body=CSV, headers=CSV_TYPE))

    assert b"".join(client.stream_csv("users")) == CSV


def test_reading_ends_before_the_invocation(cybozu: Transport, make_client: MakeClient, clock: FakeClock) -> None:
    cybozu.on("GET", PATH, Reply(body=CSV * 10, headers=CSV_TYPE))
    pieces = make_client(seconds=30).stream_csv("users")

    next(pieces)
    clock.time += 26

    with pytest.raises(OutOfTimeError):
        next(pieces)


GATE = b"<html><title>Unauthorized</title></html>"
REFUSALS = [
    (Reply(401, json={"code": "CB_WA01", "message": "canary"}), CredentialsRefusedError, "401, CB_WA01"),
    (Reply(520, json={"code": "CB_AU01", "message": "canary"}), CredentialsRefusedError, "520, CB_AU01"),
    (Reply(520, body=b"canary"), CredentialsRefusedError, "520"),
    (Reply(520, json={"code": "CB_VA01"}), RequestRefusedError, "520, CB_VA01"),
    (Reply(401, body=GATE, headers={"content-type": "text/html"}), CredentialsRefusedError, "basic_user"),
    (
        Reply(302, headers={"Location": "https://x.cybozu.com/login?saml=canary"}),
        CredentialsRefusedError,
        "requires a login",
    ),
    (Reply(302, headers={"Location": "/login"}), CredentialsRefusedError, "requires a login"),
    (Reply(302, headers={"Location": "https://canary.example/"}), RequestRefusedError, "base_url"),
    (Reply(403, json={"code": "CB_NO02"}), ScopeMissingError, "共通管理者"),
    (Reply(403, headers={"X-Cybozu-Error": "CB_NO02"}), ScopeMissingError, "共通管理者"),
    (Reply(403, body=GATE), ScopeMissingError, "IP address"),
    (Reply(403, json={"reason": "canary"}), ScopeMissingError, "IP address"),
    (Reply(400, json={"code": "CB_VA01", "errors": {"canary": {}}}), RequestRefusedError, "400, CB_VA01"),
    (Reply(400, json={"code": "canary\n"}), RequestRefusedError, r"\(400\)"),
    (Reply(400, body=b"[" * 100_000), RequestRefusedError, "400"),
    (Reply(404), RequestRefusedError, "kintone.com"),
]


@pytest.mark.parametrize(("reply", "error", "reason"), REFUSALS)
def test_error_response_is_explained_without_its_values(
    cybozu: Transport, client: CybozuClient, reply: Reply, error: type[MeiboError], reason: str
) -> None:
    cybozu.on("GET", PATH, reply)

    with pytest.raises(error, match=reason) as caught:
        next(client.stream_csv("users"))

    assert type(caught.value) is error
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    assert len(cybozu.requests) == 1


@pytest.mark.parametrize(
    "base_url",
    [
        "http://example.cybozu.com",
        "https://example.cybozu.com/x",
        "https://a@example.cybozu.com",
        "example",
        "https://",
    ],
)
def test_base_url_must_be_https_and_a_host(base_url: str) -> None:
    with pytest.raises(ConfigurationError, match="https"):
        CybozuClient(base_url, CybozuCredentials("a", "b"))


def test_cookies_are_not_stored(cybozu: Transport, client: CybozuClient) -> None:
    def answer(request: RecordedRequest) -> Reply:
        assert "Cookie" not in request.headers
        return Reply(body=CSV, headers={**CSV_TYPE, "Set-Cookie": "JSESSIONID=x; Path=/"})

    cybozu.on("GET", PATH, answer)

    list(client.stream_csv("users"))
    list(client.stream_csv("users"))
