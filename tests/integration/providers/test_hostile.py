"""Hostile responses of a provider or an intermediary: every request ends, in bounded memory, with a reason."""

from __future__ import annotations

import itertools
import logging
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meibo.errors import (
    ConfigurationError,
    CredentialsRefusedError,
    MeiboError,
    ProviderBusyError,
    RequestRefusedError,
    WrongFormatError,
)
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.jobs import create_users_export, get_job
from meibo.providers.auth0.membership import users_by_email
from meibo.providers.cybozu.client import CybozuClient, CybozuCredentials
from meibo.providers.cybozu.directory import stream_users_ndjson
from meibo_simulators import FIRST_CONNECTION, SimulatedDomain, SimulatedTenant, faults
from tests.support.clock import FakeClock

METADATA = "http://169.254.169.254/latest/meta-data/canary"
LOCATION = {"Location": METADATA}
JSON = {"Content-Type": "application/json"}
DEEP = "[" * 10_000 + "]" * 10_000
HOSTILE: dict[str, tuple[faults.Action, tuple[type[MeiboError], ...]]] = {
    "a redirect": (faults.redirect(METADATA), (RequestRefusedError, ConfigurationError)),
    "a redirect to log in": (
        faults.redirect("/login"),
        (CredentialsRefusedError, RequestRefusedError, ConfigurationError),
    ),
    "a redirect to no URL": (faults.redirect("https://[::1"), (RequestRefusedError, ConfigurationError)),
    "a redirect to bytes": (faults.redirect("https://ex\xe9mple/"), (RequestRefusedError, ConfigurationError)),
    "deep JSON": (faults.respond(200, '{"users":' + DEEP + "}", JSON), (WrongFormatError,)),
    "deep JSON refusing": (faults.respond(400, DEEP, JSON), (RequestRefusedError,)),
    "a large header": (faults.respond(200, "{}", {"X-Large": "x" * 1_000_000}), (ProviderBusyError,)),
    "bytes that are not UTF-8": (faults.respond(200, b"\xff\xfe\x00", JSON), (WrongFormatError,)),
    "NUL bytes": (faults.respond(200, b"\0" * 1000, JSON), (WrongFormatError,)),
    "a page": (faults.html(200, "canary"), (WrongFormatError,)),
    "a teapot": (faults.respond(418, "canary"), (RequestRefusedError,)),
    "nothing": (faults.respond(200, b"", JSON), (WrongFormatError,)),
}


@pytest.fixture
def auth0(tenant: SimulatedTenant, clock: FakeClock) -> Auth0Client:
    return Auth0Client(tenant.domain, lambda: Auth0Credentials.from_secret(tenant.credentials()), clock=clock)


@pytest.fixture
def cybozu(domain: SimulatedDomain, clock: FakeClock) -> CybozuClient:
    return CybozuClient(domain.base_url, CybozuCredentials.from_secret(domain.credentials()), clock=clock)


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    yield
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A response is read up to 32 MiB, and copied once to join its parts.
    assert peak_bytes < 160 * 1024 * 1024


def ends(work: Callable[[], Any], errors: tuple[type[MeiboError], ...]) -> None:
    with pytest.raises(errors) as caught:
        work()
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    assert str(caught.value)


@pytest.mark.usefixtures("bounded_memory")
def test_endless_response_is_not_stored(
    tenant: SimulatedTenant, domain: SimulatedDomain, auth0: Auth0Client, cybozu: CybozuClient
) -> None:
    tenant.faults.add("GET *", faults.endless(content_type="application/json"), times=None)
    domain.faults.add("GET *", faults.endless(content_type="application/json"), times=None)

    ends(lambda: get_job(auth0, "job_1"), (WrongFormatError,))
    ends(lambda: list(stream_users_ndjson(cybozu, concurrency=1)), (WrongFormatError,))


@pytest.mark.usefixtures("bounded_memory")
def test_endless_redirect_is_not_stored(tenant: SimulatedTenant, auth0: Auth0Client) -> None:
    tenant.faults.add("GET *", faults.stream(lambda: itertools.repeat(b"x" * 65536, 8000), LOCATION, status=302))

    ends(lambda: get_job(auth0, "job_1"), (WrongFormatError,))


@pytest.mark.parametrize("case", HOSTILE)
def test_token_request_ends(tenant: SimulatedTenant, auth0: Auth0Client, case: str) -> None:
    action, errors = HOSTILE[case]
    tenant.faults.add("POST /oauth/token", action, times=None)

    ends(lambda: get_job(auth0, "job_1"), errors)


@pytest.mark.parametrize("case", HOSTILE)
def test_api_request_ends(tenant: SimulatedTenant, auth0: Auth0Client, case: str) -> None:
    action, errors = HOSTILE[case]
    tenant.faults.add("* /api/v2/*", action, times=None)

    ends(lambda: get_job(auth0, "job_1"), errors)
    ends(
        lambda: create_users_export(
            auth0, connection_id=FIRST_CONNECTION, format="csv", limit=None, fields=["user_id"]
        ),
        errors,
    )


@pytest.mark.parametrize("case", HOSTILE)
def test_page_of_users_ends(domain: SimulatedDomain, cybozu: CybozuClient, case: str) -> None:
    action, errors = HOSTILE[case]
    domain.faults.add("* /v1/*", action, times=None)

    ends(lambda: list(stream_users_ndjson(cybozu, concurrency=1)), errors)


@pytest.mark.parametrize(
    "case",
    [
        "a redirect",
        "a redirect to no URL",
        "a redirect to bytes",
        "a redirect to log in",
        "a large header",
        "a page",
        "a teapot",
    ],
)
def test_csv_file_ends(domain: SimulatedDomain, cybozu: CybozuClient, case: str) -> None:
    action, errors = HOSTILE[case]
    domain.faults.add("* /v1/*", action, times=None)

    ends(lambda: list(cybozu.stream_csv("users")), errors)


@pytest.mark.usefixtures("bounded_memory")
def test_endless_csv_file_is_streamed_in_bounded_memory(domain: SimulatedDomain, cybozu: CybozuClient) -> None:
    domain.faults.add("* /v1/*", faults.endless(b"a,b\n" * 16_384, "text/csv"), times=None)
    pieces = cybozu.stream_csv("users")

    read = 0
    while read < 200 * 1024 * 1024:
        read += len(next(pieces))
    pieces.close()  # type: ignore[attr-defined] # it is a generator


def test_url_is_not_logged(tenant: SimulatedTenant, auth0: Auth0Client, caplog: pytest.LogCaptureFixture) -> None:
    tenant.faults.add("GET *", faults.reset())
    tenant.faults.add("GET *", faults.respond(400, "canary"))

    # Not in the lambda, because a traceback shows its line.
    address = "canary@example.com"
    with caplog.at_level(logging.DEBUG):
        ends(lambda: users_by_email(auth0, address), (MeiboError,))

    assert "canary" not in caplog.text
