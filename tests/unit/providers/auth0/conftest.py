from __future__ import annotations

from collections.abc import Callable

import pytest

from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from tests.support.clock import FakeClock
from tests.support.transport import Reply, Transport

TOKEN = Reply(json={"access_token": "header.payload.signature", "expires_in": 86400, "token_type": "Bearer"})
MakeClient = Callable[..., Auth0Client]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def auth0() -> Transport:
    return Transport().on("POST", "/oauth/token", TOKEN)


@pytest.fixture
def make_client(auth0: Transport, clock: FakeClock) -> MakeClient:
    def make(credentials: Auth0Credentials | None = None, *, seconds: float | None = None) -> Auth0Client:
        return Auth0Client(
            "acme.jp.auth0.com",
            lambda: credentials or Auth0Credentials("client", "s3cret"),
            session=auth0.session(),
            clock=clock,
            time_left=None if seconds is None else clock.deadline(seconds),
        )

    return make


@pytest.fixture
def client(make_client: MakeClient) -> Auth0Client:
    return make_client()
