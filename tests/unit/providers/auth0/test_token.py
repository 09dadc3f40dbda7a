from __future__ import annotations

import traceback
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from meibo.errors import (
    ConfigurationError,
    CredentialsRefusedError,
    MeiboError,
    ProviderBusyError,
    RequestRefusedError,
    ScopeMissingError,
    SecretError,
    WrongFormatError,
)
from meibo.providers.auth0.credentials import Auth0Credentials
from tests.support.clock import FakeClock
from tests.support.transport import RecordedRequest, Reply, Transport, at
from tests.unit.providers.auth0.conftest import TOKEN, MakeClient

JOB = Reply(json={"id": "job_1", "status": "pending"})
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: Any = KEY) -> str:
    encoded: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return encoded.decode()


def ask(client: Any) -> Any:
    return client.request("GET", "jobs/job_1", subject="the job job_1", scope="read:users", bucket="jobs")


def test_token_is_requested_once_and_cached(auth0: Transport, make_client: MakeClient) -> None:
    auth0.on("GET", "/api/v2/jobs/job_1", JOB)
    client = make_client()

    ask(client)
    ask(client)

    (requested,) = auth0.calls("POST", "/oauth/token")
    assert requested.form == {
        "grant_type": "client_credentials",
        "client_id": "client",
        "client_secret": "s3cret",
        "audience": "https://acme.jp.auth0.com/api/v2/",
    }
    assert auth0.requests[-1].headers["Authorization"] == "Bearer header.payload.signature"


def test_token_is_replaced_before_it_expires(auth0: Transport, make_client: MakeClient, clock: FakeClock) -> None:
    auth0.on("GET", "/api/v2/jobs/job_1", JOB)
    client = make_client()

    ask(client)
    clock.time += 86400 - 59
    ask(client)

    assert len(auth0.calls("POST", "/oauth/token")) == 2


def test_rejected_token_is_replaced_once(auth0: Transport, make_client: MakeClient) -> None:
    auth0.on("GET", "/api/v2/jobs/job_1", Reply(401, json={"statusCode": 401}), JOB)

    assert ask(make_client())["id"] == "job_1"

    assert len(auth0.calls("POST", "/oauth/token")) == 2


def test_second_rejected_token_is_an_error(auth0: Transport, make_client: MakeClient) -> None:
    auth0.on("GET", "/api/v2/jobs/job_1", Reply(401, json={"statusCode": 401, "message": "Invalid token"}))

    with pytest.raises(CredentialsRefusedError, match=r"acme\.jp\.auth0\.com"):
        ask(make_client())

    assert len(auth0.calls("GET", "/api/v2/jobs/job_1")) == 2


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "PS256"])
def test_private_key_signs_an_assertion_for_the_tenant(
    auth0: Transport, make_client: MakeClient, clock: FakeClock, algorithm: str
) -> None:
    auth0.on("GET", "/api/v2/jobs/job_1", JOB)

    ask(make_client(Auth0Credentials("client", private_key=pem(), key_id="key-1", algorithm=algorithm)))

    form = auth0.calls("POST", "/oauth/token")[0].form
    assertion = form["client_assertion"]
    claims = jwt.decode(
        assertion,
        KEY.public_key(),
        algorithms=[algorithm],
        audience="https://acme.jp.auth0.com/",
        options={"verify_exp": False},
    )
    assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert form["client_id"] == claims["iss"] == claims["sub"] == "client"
    assert 0 < claims["exp"] - clock.now() <= 300
    assert len(claims["jti"]) <= 64
    assert jwt.get_unverified_header(assertion)["kid"] == "key-1"
    assert "client_secret" not in form


def test_each_attempt_has_its_own_assertion(auth0: Transport, make_client: MakeClient) -> None:
    auth0.on("POST", "/oauth/token", Reply(503), Reply(503), TOKEN).on("GET", "/api/v2/jobs/job_1", JOB)

    ask(make_client(Auth0Credentials("client", private_key=pem())))

    ids = {
        jwt.decode(request.form["client_assertion"], options={"verify_signature": False})["jti"]
        for request in auth0.calls("POST", "/oauth/token")
    }
    assert len(ids) == 3


@pytest.mark.parametrize("skew", [-300, 300])
def test_assertion_is_valid_with_a_wrong_clock(
    auth0: Transport, make_client: MakeClient, clock: FakeClock, skew: int
) -> None:
    def strict(request: RecordedRequest) -> Reply:
        theirs = clock.now() + skew
        exp = jwt.decode(request.form["client_assertion"], options={"verify_signature": False})["exp"]
        is_valid = theirs < exp <= theirs + 300
        return Reply(TOKEN.status, TOKEN.json, headers=at(theirs)) if is_valid else Reply(401, headers=at(theirs))

    auth0.on("POST", "/oauth/token", strict).on("GET", "/api/v2/jobs/job_1", JOB)

    assert ask(make_client(Auth0Credentials("client", private_key=pem())))["id"] == "job_1"


@pytest.mark.parametrize(
    "key",
    [
        "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----",
        pem(ec.generate_private_key(ec.SECP256R1())),
    ],
)
def test_key_that_is_not_rsa_is_a_secret_error(make_client: MakeClient, key: str) -> None:
    with pytest.raises(SecretError, match="private_key") as caught:
        ask(make_client(Auth0Credentials("client", private_key=key)))

    assert "c2VjcmV0" not in "".join(traceback.format_exception(caught.value))


def test_assertion_above_the_size_limit_is_not_sent(auth0: Transport, make_client: MakeClient) -> None:
    with pytest.raises(SecretError, match="2048"):
        ask(make_client(Auth0Credentials("client", private_key=pem(), key_id="k" * 2000)))

    assert auth0.requests == []


REFUSALS = [
    (401, {"error": "access_denied", "error_description": "Unauthorized"}, CredentialsRefusedError, "client secret"),
    (401, {"error": "invalid_client", "error_description": "x"}, CredentialsRefusedError, "invalid_client"),
    (401, None, CredentialsRefusedError, "401"),
    (
        403,
        {
            "error": "access_denied",
            "error_description": 'Client "abc" is not authorized to access resource server "https://x/api/v2/".'
            ' You need to create a "client-grant" associated to this API.',
        },
        ScopeMissingError,
        "authorize it",
    ),
    (
        403,
        {
            "error": "unauthorized_client",
            "error_description": "Grant type 'client_credentials' not allowed for the client.",
        },
        CredentialsRefusedError,
        "client credentials grant",
    ),
    (
        403,
        {"error": "access_denied", "error_description": "Service not found: https://login.example.com/api/v2/"},
        ConfigurationError,
        "custom domain",
    ),
    (302, None, ConfigurationError, "domain"),
    (404, None, RequestRefusedError, "404"),
    (400, {"error": "invalid_request", "error_description": "x"}, RequestRefusedError, "invalid_request"),
]


@pytest.mark.parametrize(("status", "body", "error", "reason"), REFUSALS)
def test_rejected_token_request_is_explained(
    auth0: Transport, make_client: MakeClient, status: int, body: Any, error: type[MeiboError], reason: str
) -> None:
    auth0.on("POST", "/oauth/token", Reply(status, json=body))

    with pytest.raises(error, match=reason) as caught:
        ask(make_client())

    assert type(caught.value) is error
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"<html>proxy</html>", headers={"content-type": "text/html"}),
        Reply(json=["token"]),
        Reply(json={"expires_in": 3600}),
        Reply(json={"access_token": "two\r\nlines"}),
        Reply(body=b"[" * 100_000),
    ],
)
def test_response_without_a_token_is_an_error(auth0: Transport, make_client: MakeClient, reply: Reply) -> None:
    auth0.on("POST", "/oauth/token", reply)

    with pytest.raises(WrongFormatError, match=r"expected an access token, found .* without an access token"):
        ask(make_client())


def test_exhausted_token_quota_raises_provider_busy(
    auth0: Transport, make_client: MakeClient, clock: FakeClock
) -> None:
    auth0.on("POST", "/oauth/token", Reply(429, headers={"Retry-After": "1800"}))

    with pytest.raises(ProviderBusyError) as caught:
        ask(make_client(seconds=900))

    assert clock.slept == []
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 1800


@pytest.mark.parametrize(
    "expires_in",
    [None, "soon", 0, -5, True, [], pytest.param(10**400, id="huge"), 2_592_001, float("inf"), float("nan")],
)
def test_token_without_a_lifetime_is_cached_for_five_minutes(
    auth0: Transport, make_client: MakeClient, clock: FakeClock, expires_in: Any
) -> None:
    auth0.on("POST", "/oauth/token", Reply(json={"access_token": "a.b.c", "expires_in": expires_in}))
    auth0.on("GET", "/api/v2/jobs/job_1", JOB)
    client = make_client()

    ask(client)
    clock.time += 301
    ask(client)

    assert len(auth0.calls("POST", "/oauth/token")) == 2
