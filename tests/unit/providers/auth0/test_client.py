from __future__ import annotations

import io
import traceback

import pytest
import requests
from urllib3.exceptions import NameResolutionError, NewConnectionError, ProtocolError

from meibo.errors import (
    ConfigurationError,
    MeiboError,
    ProviderBusyError,
    RequestRefusedError,
    ScopeMissingError,
    WrongFormatError,
)
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from tests.support.clock import FakeClock
from tests.support.transport import Reply, Transport
from tests.unit.providers.auth0.conftest import MakeClient

PATH = "/api/v2/users-by-email"
SECRET_URL = "https://acme.jp.auth0.com/api/v2/users-by-email?email=canary%40example.com"
OK = Reply(json=[])


def ask(client: Auth0Client) -> object:
    return client.request(
        "GET",
        "users-by-email",
        params=(("email", "canary@example.com"),),
        subject="a user by e-mail",
        scope="read:users",
        bucket="users",
    )


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 520])
def test_busy_response_is_retried(auth0: Transport, client: Auth0Client, clock: FakeClock, status: int) -> None:
    auth0.on("GET", PATH, Reply(status, body=b"<html>busy</html>"), OK)

    assert ask(client) == []
    assert len(clock.slept) == 1


@pytest.mark.parametrize(
    "error",
    [
        requests.ConnectionError(ProtocolError("Connection aborted.", ConnectionResetError(104, "reset"))),
        requests.ReadTimeout(f"read timed out {SECRET_URL}"),
        requests.ConnectTimeout(SECRET_URL),
        requests.exceptions.ChunkedEncodingError(SECRET_URL),
    ],
)
def test_broken_connection_is_retried(auth0: Transport, client: Auth0Client, error: Exception) -> None:
    auth0.on("GET", PATH, error, error, OK)

    assert ask(client) == []


def test_time_out_of_a_connection_names_what_to_check(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", PATH, *(requests.ConnectTimeout(SECRET_URL) for _ in range(20)))

    with pytest.raises(ProviderBusyError) as caught:
        ask(client)

    assert str(caught.value).startswith(
        "Auth0 (acme.jp.auth0.com) does not accept connections (timeout); check the domain and, for functions in a"
        " VPC, the route to the internet and the outbound rules of the security groups at each of "
    )


def test_truncated_body_is_requested_again(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", PATH, Reply(json=["x" * 100], breaks_after=50), OK)

    assert ask(client) == []


def test_error_of_a_busy_provider_contains_no_url(auth0: Transport, client: Auth0Client, clock: FakeClock) -> None:
    auth0.on("GET", PATH, requests.ConnectionError(f"Max retries exceeded with url: {SECRET_URL}"))

    with pytest.raises(ProviderBusyError, match="ConnectionError") as caught:
        ask(client)

    assert sum(clock.slept) <= 300
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_client_waits_only_as_long_as_the_invocation_lasts(
    auth0: Transport, make_client: MakeClient, clock: FakeClock
) -> None:
    auth0.on("GET", PATH, Reply(503))

    with pytest.raises(ProviderBusyError):
        ask(make_client(seconds=20))

    assert sum(clock.slept) <= 15


def test_invocation_without_time_sends_no_request(auth0: Transport, make_client: MakeClient) -> None:
    with pytest.raises(ProviderBusyError):
        ask(make_client(seconds=1))

    assert auth0.requests == []


def test_client_obeys_rate_limit_headers_before_a_429(auth0: Transport, client: Auth0Client, clock: FakeClock) -> None:
    headers = {"x-ratelimit-limit": "5", "x-ratelimit-remaining": "0", "x-ratelimit-reset": str(clock.now() + 9)}
    auth0.on("GET", PATH, Reply(json=[], headers=headers), OK)

    ask(client)
    ask(client)

    assert clock.slept == [9]


def test_timeouts_do_not_exceed_the_time_left(auth0: Transport, make_client: MakeClient) -> None:
    auth0.on("GET", PATH, OK)

    ask(make_client(seconds=25))

    assert auth0.requests[-1].timeout == (6, 20)


def test_unknown_host_is_a_configuration_error(auth0: Transport, client: Auth0Client) -> None:
    unknown = NameResolutionError("acme.jp.auth0.com", None, OSError(-2, "Name or service not known"))  # type: ignore[arg-type] # a pool is not needed
    auth0.on("GET", PATH, requests.ConnectionError(unknown))

    with pytest.raises(ConfigurationError, match="does not resolve"):
        ask(client)


@pytest.mark.parametrize(
    ("reply", "error", "reason"),
    [
        (
            Reply(
                403,
                json={
                    "statusCode": 403,
                    "message": "Insufficient scope, expected any of: read:users, read:user_idp_tokens",
                    "errorCode": "insufficient_scope",
                },
            ),
            ScopeMissingError,
            "read:users, read:user_idp_tokens",
        ),
        (Reply(403, json={"errorCode": "insufficient_scope"}), ScopeMissingError, "read:users"),
        (Reply(403, body=b"<html>canary firewall</html>"), ScopeMissingError, "firewall"),
        (
            Reply(
                400,
                json={
                    "message": "Payload validation error: 'No enum match for: canary' on property members[3] (List).",
                    "errorCode": "invalid_body",
                },
            ),
            RequestRefusedError,
            r"400, invalid_body: on property members\[3\]",
        ),
        (Reply(400, json={"message": "canary", "errorCode": "canary says no"}), RequestRefusedError, r"\(400\)"),
        (Reply(404, json={"message": "The connection does not exist."}), RequestRefusedError, "does not exist"),
        (Reply(409, json=["canary"]), RequestRefusedError, "409"),
        (
            Reply(302, headers={"Location": "http://169.254.169.254/canary"}),
            RequestRefusedError,
            "redirected the request for a user by e-mail",
        ),
        (Reply(body=b"<html>canary</html>", headers={"content-type": "text/html"}), WrongFormatError, "text/html"),
        (Reply(body=b"\xff\xfe"), WrongFormatError, "not JSON"),
        (Reply(body=b'{"a":' * 100_000), WrongFormatError, "not JSON"),
    ],
)
def test_error_response_is_explained_without_its_values(
    auth0: Transport, client: Auth0Client, reply: Reply, error: type[MeiboError], reason: str
) -> None:
    auth0.on("GET", PATH, reply)

    with pytest.raises(error, match=reason) as caught:
        ask(client)

    assert type(caught.value) is error
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_missing_scope_is_an_attribute_of_the_error(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", PATH, Reply(403, json={"message": "Insufficient scope, expected any of: read:users"}))

    with pytest.raises(ScopeMissingError) as caught:
        ask(client)

    assert caught.value.scopes == ("read:users",)


def test_endless_response_is_not_stored_in_memory(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", PATH, Reply(body=b" " * (16 * 1024 * 1024 + 1)))

    with pytest.raises(WrongFormatError, match="expected a response of at most 16777216 bytes, found more"):
        ask(client)


class SlowBody(io.RawIOBase):
    """Yields one byte per second and does not end."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1) -> bytes:
        self.clock.time += 1
        return b" "


def test_slow_response_ends_with_the_invocation(auth0: Transport, make_client: MakeClient, clock: FakeClock) -> None:
    auth0.on("GET", PATH, lambda _: Reply(stream=SlowBody(clock)))
    start = clock.now()

    with pytest.raises(ProviderBusyError):
        ask(make_client(seconds=400))

    assert clock.now() - start < 400


def test_slow_response_has_a_time_limit_without_an_invocation(
    auth0: Transport, client: Auth0Client, clock: FakeClock
) -> None:
    auth0.on("GET", PATH, lambda _: Reply(stream=SlowBody(clock)))
    start = clock.now()

    with pytest.raises(ProviderBusyError):
        ask(client)

    assert clock.now() - start < 600


@pytest.mark.parametrize("failure", [Reply(500), requests.ReadTimeout("late")])
def test_request_that_is_not_repeatable_is_not_retried_after_an_unknown_outcome(
    auth0: Transport, client: Auth0Client, failure: Reply | Exception
) -> None:
    auth0.on("POST", "/api/v2/things", failure)

    with pytest.raises(ProviderBusyError) as caught:
        client.request(
            "POST", "things", json={}, subject="a thing", scope="create:things", bucket="things", repeatable=False
        )

    assert caught.value.uncertain
    assert len(auth0.calls("POST", "/api/v2/things")) == 1


@pytest.mark.parametrize(
    "failure",
    [
        Reply(429),
        requests.ConnectTimeout("late"),
        requests.ConnectionError(NewConnectionError(None, "refused")),  # type: ignore[arg-type] # no pool needed
    ],
)
def test_request_without_an_effect_is_retried(
    auth0: Transport, client: Auth0Client, failure: Reply | Exception
) -> None:
    auth0.on("POST", "/api/v2/things", failure, Reply(204))

    assert (
        client.request(
            "POST", "things", json={}, subject="a thing", scope="create:things", bucket="things", repeatable=False
        )
        is None
    )


def test_credentials_of_netrc_are_not_sent(
    auth0: Transport, client: Auth0Client, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    netrc = f"{tmp_path}/netrc"
    with open(netrc, "w", encoding="ascii") as file:  # noqa: PTH123  # NETRC requires a string
        file.write("machine acme.jp.auth0.com login someone password canary\n")
    monkeypatch.setenv("NETRC", netrc)
    auth0.on("GET", PATH, OK)

    ask(client)

    assert all(not request.headers.get("Authorization", "").startswith("Basic") for request in auth0.requests)


@pytest.mark.parametrize("domain", ["", "https://acme.auth0.com", "acme.auth0.com/x", "user@acme.auth0.com", "a b"])
def test_domain_must_be_a_host_name(domain: str) -> None:
    with pytest.raises(ConfigurationError, match="host name"):
        Auth0Client(domain, lambda: Auth0Credentials("client", "s3cret"))
