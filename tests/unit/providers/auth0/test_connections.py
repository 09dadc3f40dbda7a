from __future__ import annotations

import pytest

from meibo.errors import RequestRefusedError, WrongFormatError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.organizations import OrganizationApi
from tests.support.transport import Reply, Transport

ORGANIZATION = "org_0000000000000001"
PATH = f"/api/v2/organizations/{ORGANIZATION}/enabled_connections"


def rows(*ids: str) -> list[dict[str, object]]:
    return [{"connection_id": id_, "assign_membership_on_login": False} for id_ in ids]


def test_page_contains_all_connections_regardless_of_its_limit(auth0: Transport, client: Auth0Client) -> None:
    document = {"enabled_connections": rows("con_1", "con_2"), "start": 0, "limit": 2, "total": 9}
    auth0.on("GET", PATH, Reply(json=document))

    assert OrganizationApi(client).connection_ids(ORGANIZATION) == ["con_1", "con_2"]
    (request,) = auth0.calls("GET", PATH)
    assert request.query == {"per_page": "50", "page": "0", "include_totals": "true"}


def test_array_without_totals_is_read(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", PATH, Reply(json=rows("con_1", "con_1")))

    assert OrganizationApi(client).connection_ids(ORGANIZATION) == ["con_1"]


def test_organization_without_connections_is_named_in_the_error(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", PATH, Reply(json={"enabled_connections": [], "start": 0, "limit": 0, "total": 0}))

    assert OrganizationApi(client).enabled_connections(ORGANIZATION) == []
    with pytest.raises(RequestRefusedError, match=f"{ORGANIZATION} has no enabled connection"):
        OrganizationApi(client).connection_ids(ORGANIZATION)


@pytest.mark.parametrize("row", [{}, {"connection_id": None}, {"connection_id": 7}])
def test_connection_without_an_id_is_an_error(auth0: Transport, client: Auth0Client, row: object) -> None:
    auth0.on("GET", PATH, Reply(json=[*rows("con_1"), row]))

    with pytest.raises(WrongFormatError, match=ORGANIZATION):
        OrganizationApi(client).connection_ids(ORGANIZATION)


@pytest.mark.parametrize(
    "connection_id", ["con_1/dt=2020-01-01/run=x", "..", "con 1", "somebody@people.example", "con_1\n", ""]
)
def test_id_that_would_change_a_key_is_an_error(auth0: Transport, client: Auth0Client, connection_id: str) -> None:
    auth0.on("GET", PATH, Reply(json=[{"connection_id": connection_id}]))

    with pytest.raises(
        WrongFormatError,
        match=f"expected an id for each connection of {ORGANIZATION}, found 1 of 1 without a valid id; check the",
    ):
        OrganizationApi(client).connection_ids(ORGANIZATION)


@pytest.mark.parametrize("document", [{}, {"enabled_connections": None}, ["x"], 7])
def test_response_without_a_list_is_an_error(auth0: Transport, client: Auth0Client, document: object) -> None:
    auth0.on("GET", PATH, Reply(json=document))

    with pytest.raises(WrongFormatError, match=ORGANIZATION):
        OrganizationApi(client).connection_ids(ORGANIZATION)
