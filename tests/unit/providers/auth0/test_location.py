from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from urllib3.util import parse_url

from meibo.errors import JobGoneError, LocationRefusedError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.location import (
    DEFAULT_LOCATION_HOSTS,
    check_location_hosts,
    fresh_location,
    validate_location,
)
from tests.support.transport import Reply, Transport

HOST = "pus3-auth0-export-users-us-east-2.s3.us-east-2.amazonaws.com"
QUERY = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=canary%2F1"
LOCATION = f"https://{HOST}/job_1/acme.json.gz?{QUERY}"


def completed(location: object) -> Reply:
    return Reply(json={"id": "job_1", "status": "completed", "location": location})


@pytest.mark.parametrize(
    "location",
    [
        LOCATION,
        LOCATION.removeprefix("https://"),
        LOCATION.removeprefix("https:"),
        LOCATION.replace("https", "HTTPS"),
        LOCATION.replace(HOST, HOST.upper()),
        LOCATION.replace(HOST, HOST + ":443"),
    ],
)
def test_location_on_an_allowed_host_becomes_an_https_url(auth0: Transport, client: Auth0Client, location: str) -> None:
    auth0.on("GET", "/api/v2/jobs/job_1", completed(location))

    assert fresh_location(client, "job_1", DEFAULT_LOCATION_HOSTS) == LOCATION


REFUSED = [
    LOCATION.replace("https", "http"),
    LOCATION.replace("https", "ftp"),
    f"https://evil.example/{HOST}?{QUERY}",
    f"https://{HOST}.evil.example/job?{QUERY}",
    f"https://evil{HOST.removeprefix('pus3-auth0-export-users-us-east-2')}@evil.example/?{QUERY}",
    f"https://evil.example@{HOST}/?{QUERY}",
    f"https://{HOST}@evil.example/?{QUERY}",
    f"https://{HOST}:8443/?{QUERY}",
    f"https://{HOST}:/?{QUERY}",
    f"https://{HOST}:x/?{QUERY}",
    f"https://{HOST}./?{QUERY}",
    f"https://evil.example\\@{HOST}/?{QUERY}",
    f"https://evil.example\\.{HOST}/?{QUERY}",
    f"https://evil.example%2f.{HOST}/?{QUERY}",
    f"https://evil.example;.{HOST}/?{QUERY}",
    f"https://evil.example\t.{HOST}/?{QUERY}",
    f"https://x..s3.us-east-2.amazonaws.com/?{QUERY}",
    "https://s3.us-east-2.amazonaws.com/bucket/key",
    "https://ｅxports.s3.us-east-2.amazonaws.com/",
    "https://xn--/",
    "https://169.254.169.254/latest/meta-data",
    "https://[::1]/",
    "https://[v1.x].s3.us-east-2.amazonaws.com/",
    "https://",
    "//",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "https://" + "a" * 20_000,
]


@pytest.mark.parametrize("location", REFUSED)
def test_rejected_location_is_not_in_the_message(auth0: Transport, client: Auth0Client, location: str) -> None:
    auth0.on("GET", "/api/v2/jobs/job_1", completed(location))

    with pytest.raises(LocationRefusedError) as caught:
        fresh_location(client, "job_1", DEFAULT_LOCATION_HOSTS)

    assert "canary" not in str(caught.value)


def test_rejected_host_is_named() -> None:
    with pytest.raises(LocationRefusedError, match=r"evil\.example:8443,"):
        validate_location(f"https://evil.example:8443/x?{QUERY}", DEFAULT_LOCATION_HOSTS)


def test_pattern_with_a_port_allows_only_that_port() -> None:
    assert validate_location("https://localhost:8443/x", ["localhost:8443"]) == "https://localhost:8443/x"
    for other in ("https://localhost/x", "https://localhost:8444/x", "https://127.0.0.1:8443/x"):
        with pytest.raises(LocationRefusedError):
            validate_location(other, ["localhost:8443"])


def test_location_without_a_scheme_may_have_a_port() -> None:
    assert validate_location("localhost:8443/x?y", ["localhost:8443"]) == "https://localhost:8443/x?y"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"status": "completed"}, "expected a location of the completed job job_1, found none$"),
        ({"status": "completed", "location": ""}, "expected a location of the completed job job_1, found none$"),
        ({"status": "completed", "location": 7}, "expected a location of the completed job job_1, found none$"),
        ({"status": "pending"}, "pending"),
        ({"status": "failed"}, "failed"),
        ({"status": "canary"}, "unknown state"),
        ({}, "unknown state"),
    ],
)
def test_job_without_a_file_is_gone(
    auth0: Transport, client: Auth0Client, document: dict[str, object], reason: str
) -> None:
    auth0.on("GET", "/api/v2/jobs/job_1", Reply(json=document))

    with pytest.raises(JobGoneError, match=reason):
        fresh_location(client, "job_1", DEFAULT_LOCATION_HOSTS)


def test_missing_job_is_gone(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", "/api/v2/jobs/job_1", Reply(404, json={"message": "Job not found."}))

    with pytest.raises(JobGoneError, match="24 hours"):
        fresh_location(client, "job_1", DEFAULT_LOCATION_HOSTS)


@pytest.mark.parametrize(
    "pattern", ["", "*", "*.com", "*s3.amazonaws.com", "a.*.com", "https://x.example", "x.example/", "x.example.", "*."]
)
def test_pattern_that_allows_too_many_hosts_is_rejected(pattern: str) -> None:
    with pytest.raises(ValueError, match="expected a host name, or a domain after"):
        check_location_hosts((pattern,))


PIECES = st.sampled_from(
    [
        *("https://", "http://", "//", "/", "\\", "@", ":", ":443", ":80", "?", "#", "%", "%2e", ".", "..", "*", " "),
        *("\t", "\n", "x", "[", "]", "ß", "。", "Ⓢ", "-", "_", ";", "&", "=", HOST, "user-exports.auth0.com"),
        *("evil.example", "s3.us-east-2.amazonaws.com", ".s3.us-east-2.amazonaws.com"),
    ]
)


@given(st.lists(PIECES | st.text(max_size=3), max_size=9).map("".join))
@example(LOCATION)
def test_accepted_location_has_an_allowed_host(text: str) -> None:
    try:
        accepted = validate_location(text, DEFAULT_LOCATION_HOSTS)
    except LocationRefusedError:
        return

    # The standard library and the library of the copy parse the same host.
    for host, port, scheme in (
        (urlsplit(accepted).hostname, urlsplit(accepted).port, urlsplit(accepted).scheme),
        (parse_url(accepted).host, parse_url(accepted).port, parse_url(accepted).scheme),
    ):
        assert scheme == "https"
        assert port in {None, 443}
        assert host is not None
        assert host == "user-exports.auth0.com" or (
            host.endswith((".s3.us-east-2.amazonaws.com", ".s3.us-west-2.amazonaws.com")) and not host.startswith(".")
        )
