"""Imports of users into a simulated tenant over real HTTPS."""

from __future__ import annotations

import json

import pytest

from meibo.errors import RequestRefusedError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.jobs import get_job
from meibo.providers.auth0.membership import users_by_email
from meibo_cli.restore.auth0_imports import create_users_import, import_faults, import_summary
from meibo_simulators import FIRST_CONNECTION, SimulatedTenant
from tests.support.clock import FakeClock

USERS = [{"email": "imported@example.com", "given_name": "名"}, {"email": "not an address"}]


@pytest.fixture
def client(tenant: SimulatedTenant, clock: FakeClock) -> Auth0Client:
    return Auth0Client(tenant.domain, lambda: Auth0Credentials.from_secret(tenant.credentials()), clock=clock)


def send(client: Auth0Client, connection_id: str = FIRST_CONNECTION) -> str:
    users = json.dumps(USERS, ensure_ascii=False).encode()
    return create_users_import(client, connection_id=connection_id, users=users, upsert=False)


def wait(client: Auth0Client, clock: FakeClock, job_id: str) -> None:
    while get_job(client, job_id).status == "pending":
        clock.sleep(1)


def test_users_are_imported_and_faults_are_reported(
    tenant: SimulatedTenant, client: Auth0Client, clock: FakeClock
) -> None:
    job_id = send(client)
    wait(client, clock, job_id)

    summary = import_summary(client, job_id)
    assert summary is not None
    assert (summary.inserted, summary.failed) == (1, 1)
    assert [fault.codes for fault in import_faults(client, job_id)] == [("FORMAT",)]
    assert len(users_by_email(client, "imported@example.com")) == 1
    assert tenant.jobs.completion_emails == 0


def test_unknown_connection_is_named(client: Auth0Client) -> None:
    with pytest.raises(RequestRefusedError, match="con_9999999999999999"):
        send(client, "con_9999999999999999")
