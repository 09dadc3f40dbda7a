from __future__ import annotations

import pytest

from meibo.errors import RequestRefusedError, WrongFormatError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.organizations import enabled_connections, organization_connections
from tests.support.transport import Reply, Transport

ORGANIZATION = "org_0000000000000001"
PATH = f"/api/v2/organizations/{ORGANIZATION}/enabled_connections"


def rows(*ids: str) -> list[dict[str, object]]:
    return [{"connection_id": id_, "assign_membership_on_login": False} for id_ in ids]


def test_one_page_holds_all_connections_whatever_its_limit_says(auth0: Transport, client: Auth0Client) -> None:
    found = {"enabled_connections": rows("con_1", "con_2"), "start": 0, "limit": 2, "total": 9}
    auth0.on("GET", PATH, Reply(json=found))

    assert organization_connections(client, ORGANIZATION) == ["con_1", "con_2"]
    (asked,) = auth0.calls("GET", PATH)
    assert asked.query == {"per_page": "50", "page": "0", "include_totals": "true"}


def test_a_bare_list_is_read_too(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", PATH, Reply(json=rows("con_1", "con_1")))

    assert organization_connections(client, ORGANIZATION) == ["con_1"]


def test_an_organization_without_connections_is_refused_by_name(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", PATH, Reply(json={"enabled_connections": [], "start": 0, "limit": 0, "total": 0}))

    assert enabled_connections(client, ORGANIZATION) == []
    with pytest.raises(RequestRefusedError, match=f"{ORGANIZATION} has no enabled connection"):
        organization_connections(client, ORGANIZATION)


@pytest.mark.parametrize("row", [{}, {"connection_id": None}, {"connection_id": 7}])
def test_a_connection_without_an_id_is_not_left_out(auth0: Transport, client: Auth0Client, row: object) -> None:
    auth0.on("GET", PATH, Reply(json=[*rows("con_1"), row]))

    with pytest.raises(WrongFormatError, match=ORGANIZATION):
        organization_connections(client, ORGANIZATION)


@pytest.mark.parametrize(
    "connection_id", ["con_1/dt=2020-01-01/run=x", "..", "con 1", "somebody@people.example", "con_1\n", ""]
)
def test_an_id_that_would_change_a_key_is_refused(auth0: Transport, client: Auth0Client, connection_id: str) -> None:
    auth0.on("GET", PATH, Reply(json=[{"connection_id": connection_id}]))

    with pytest.raises(
        WrongFormatError, match=f"expected an id for each connection of {ORGANIZATION}, found something else$"
    ):
        organization_connections(client, ORGANIZATION)


@pytest.mark.parametrize("answer", [{}, {"enabled_connections": None}, ["x"], 7])
def test_another_answer_is_told(auth0: Transport, client: Auth0Client, answer: object) -> None:
    auth0.on("GET", PATH, Reply(json=answer))

    with pytest.raises(WrongFormatError, match=ORGANIZATION):
        organization_connections(client, ORGANIZATION)
