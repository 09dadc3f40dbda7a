"""POST /oauth/token and bearer tokens are validated as strictly as by Auth0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jwt
import pytest

from meibo_simulators import SimulatedTenant
from meibo_simulators.auth0.tokens import ASSERTION_TYPE
from tests.integration.simulators.conftest import TIMEOUT, Api, trusting
from tests.support.clock import FakeClock


def assertion(api: Api, clock: FakeClock, algorithm: str = "RS256", **changes: Any) -> dict[str, str]:
    credentials = api.tenant.key_credentials(changes.pop("registered", algorithm))
    claims = {
        "iss": credentials["client_id"],
        "sub": credentials["client_id"],
        "aud": f"{api.base}/",
        "exp": int(clock.time) + 60,
        "jti": "one",
        **changes,
    }
    present = {name: value for name, value in claims.items() if value is not None}
    signed = jwt.encode(present, credentials["private_key"], algorithm=algorithm)
    return {
        "client_id": credentials["client_id"],
        "client_assertion": signed,
        "client_assertion_type": ASSERTION_TYPE,
    }


def test_lifetime_and_scope_of_a_token_are_switches(api: Api, clock: FakeClock) -> None:
    api.tenant.switches.token_lifetime, api.tenant.switches.token_scope = 60, False
    answer = api.token(api.tenant.credentials()).json()
    assert (answer["expires_in"], "scope" in answer) == (60, False)
    api.session.headers["Authorization"] = f"Bearer {answer['access_token']}"
    assert api.get("/connections").status_code == 200
    clock.advance(60)
    assert api.get("/connections").status_code == 401


def test_secret_returns_a_token_for_a_day(api: Api) -> None:
    answer = api.token(api.tenant.credentials()).json()
    assert answer["expires_in"] == 86400
    assert answer["token_type"] == "Bearer"
    assert "read:users" in answer["scope"].split()


@pytest.mark.parametrize(
    ("switch", "error"),
    [
        ("access_denied", {"error": "access_denied", "error_description": "Unauthorized"}),
        ("invalid_client", {"error": "invalid_client", "error_description": "Client authentication failed"}),
    ],
)
def test_wrong_secret_is_rejected(api: Api, switch: Any, error: dict[str, str]) -> None:
    api.tenant.switches.refused_client = switch
    answer = api.token({**api.tenant.credentials(), "client_secret": "wrong"})
    assert (answer.status_code, answer.json()) == (401, error)


def test_audience_requires_a_trailing_slash(api: Api) -> None:
    answer = api.token(api.tenant.credentials(), audience=f"{api.base}/api/v2")
    assert answer.status_code == 403
    assert answer.json()["error_description"] == f"Service not found: {api.base}/api/v2"


def test_client_without_a_grant_is_rejected(api: Api) -> None:
    api.tenant.client.granted = False
    answer = api.token(api.tenant.credentials())
    assert answer.status_code == 403
    assert answer.json()["error_description"].endswith('You need to create a "client-grant" associated to this API.')


def test_other_grant_types_are_rejected(api: Api) -> None:
    answer = api.token(api.tenant.credentials(), grant_type="password")
    assert (answer.status_code, answer.json()["error"]) == (403, "unauthorized_client")


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "PS256"])
def test_private_key_returns_a_token(api: Api, clock: FakeClock, algorithm: str) -> None:
    assert api.token(assertion(api, clock, algorithm)).status_code == 200


def test_client_id_is_optional_with_an_assertion(api: Api, clock: FakeClock) -> None:
    form = assertion(api, clock)
    del form["client_id"]
    assert api.token(form).status_code == 200


def test_assertion_is_accepted_once(api: Api, clock: FakeClock) -> None:
    form = assertion(api, clock)
    assert [api.token(form).status_code for _ in range(2)] == [200, 401]


@pytest.mark.parametrize(
    "change",
    [
        {"aud": "https://localhost"},
        {"jti": None},
        {"jti": "j" * 65},
        {"sub": "somebody-else"},
        {"exp": 0},
        {"exp": 4_000_000_000},
        {"iat": 4_000_000_000},
        {"registered": "RS384"},
        {"padding": "p" * 2048},
    ],
    ids=lambda change: next(iter(change)),
)
def test_invalid_assertion_is_rejected(api: Api, clock: FakeClock, change: dict[str, Any]) -> None:
    answer = api.token(assertion(api, clock, **change))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_assertion_signed_with_another_key_is_rejected(api: Api, clock: FakeClock) -> None:
    form = assertion(api, clock)
    stranger = SimulatedTenant("stranger").key_credentials()["private_key"]
    claims = jwt.decode(form["client_assertion"], options={"verify_signature": False})
    form["client_assertion"] = jwt.encode(claims, stranger, algorithm="RS256")
    assert api.token(form).status_code == 401


def test_request_without_token_is_rejected(api: Api) -> None:
    answer = trusting(Path(str(api.session.verify))).get(f"{api.base}/api/v2/jobs/x", timeout=TIMEOUT)
    assert answer.json() == {"statusCode": 401, "error": "Unauthorized", "message": "Missing authentication"}


@pytest.mark.parametrize(
    ("header", "status", "message"),
    [
        ("Basic abc", 400, "Bad HTTP authentication header format"),
        ("Bearer", 400, "Bad HTTP authentication header format"),
        ("Bearer nonsense", 401, "Invalid token"),
        ("Bearer a.b.c", 401, "Invalid signature received for JSON Web Token validation"),
    ],
)
def test_invalid_bearer_token_is_rejected(api: Api, header: str, status: int, message: str) -> None:
    answer = api.call("GET", "/jobs/job_0000000000000000", headers={"Authorization": header})
    assert (answer.status_code, answer.json()["message"]) == (status, message)


@pytest.mark.parametrize("how", ["time", "revoked"])
def test_expired_token_is_rejected(api: Api, clock: FakeClock, how: str) -> None:
    if how == "time":
        clock.advance(86401)
    else:
        api.tenant.tokens.revoke()
    answer = api.get("/jobs/job_0000000000000000")
    text = "Expired token received for JSON Web Token validation"
    assert answer.json() == {
        "statusCode": 401,
        "error": "Unauthorized",
        "message": text,
        "attributes": {"error": text},
    }


def test_missing_scope_is_in_the_message(api: Api) -> None:
    poor = Api(api.tenant, Path(str(api.session.verify)), api.tenant.limited_client("read:connections"))
    answer = poor.post("/jobs/users-exports", {})
    assert answer.json() == {
        "statusCode": 403,
        "error": "Forbidden",
        "message": "Insufficient scope, expected any of: read:users",
        "errorCode": "insufficient_scope",
    }
