from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meibo.errors import ProviderBusyError, RequestRefusedError, WrongFormatError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.organizations import organizations
from meibo.providers.auth0.pagination import Page
from tests.support.clock import FakeClock
from tests.support.transport import Reply, Seen, Transport
from tests.unit.providers.auth0.conftest import TOKEN, MakeClient

PATH = "/api/v2/organizations"


class Tenant:
    """Answers checkpoint pages of so many organizations; ``always_next`` as members were recorded to."""

    def __init__(self, count: int, *, size: int = 100, always_next: bool = False) -> None:
        self.rows = [{"id": f"org_{number:016}", "name": f"o{number}"} for number in range(count)]
        self.size = size
        self.always_next = always_next

    def __call__(self, seen: Seen) -> Reply:
        assert "page" not in seen.query
        start = int(seen.query.get("from", "0"))
        end = start + min(self.size, int(seen.query["take"]))
        document: dict[str, Any] = {"organizations": self.rows[start:end]}
        if end < len(self.rows) or (self.always_next and document["organizations"]):
            document["next"] = str(end)
        return Reply(json=document)


def test_a_server_with_smaller_pages_is_read_whole(auth0: Transport, client: Auth0Client) -> None:
    tenant = Tenant(120, size=50)
    auth0.on("GET", PATH, tenant)

    assert [row for page in organizations(client) for row in page.rows] == tenant.rows


@given(count=st.integers(0, 700), stop=st.integers(0, 8), always_next=st.booleans())
@example(count=1234, stop=99, always_next=True)
@example(count=1234, stop=99, always_next=False)
def test_list_is_complete_and_resumes_from_any_cursor(count: int, stop: int, always_next: bool) -> None:
    tenant = Tenant(count, always_next=always_next)
    transport = Transport().on("POST", "/oauth/token", TOKEN).on("GET", PATH, tenant)
    credentials = Auth0Credentials("client", "s3cret")

    def client() -> Auth0Client:
        return Auth0Client("acme.test", credentials, session=transport.session(), clock=FakeClock())

    found, cursor, ended = [], None, True
    for number, page in enumerate(organizations(client())):
        found += page.rows
        cursor = page.next
        if number == stop:
            ended = cursor is None
            break
    if not ended:
        for page in organizations(client(), cursor):
            found += page.rows

    assert found == tenant.rows


def test_a_cursor_that_repeats_ends_with_an_error(auth0: Transport, client: Auth0Client) -> None:
    rows = [{"id": "org_1"}]
    cursors = ["a", "b", "a"]
    auth0.on("GET", PATH, *(Reply(json={"organizations": rows, "next": cursor}) for cursor in cursors))

    with pytest.raises(RequestRefusedError, match="repeats"):
        list(organizations(client))

    assert len(auth0.calls("GET", PATH)) == 3


def test_the_cursor_that_a_list_goes_on_from_counts_as_seen(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", PATH, Reply(json={"organizations": [{"id": "org_1"}], "next": "a"}))

    with pytest.raises(RequestRefusedError, match="repeats"):
        list(organizations(client, "a"))


def test_an_empty_page_with_a_cursor_is_not_an_end(auth0: Transport, client: Auth0Client) -> None:
    auth0.on(
        "GET",
        PATH,
        Reply(json={"organizations": [], "next": "a"}),
        Reply(json={"organizations": [{"id": "org_1"}]}),
    )

    assert [page.rows for page in organizations(client)] == [[], [{"id": "org_1"}]]


def test_empty_pages_without_end_are_given_up(auth0: Transport, client: Auth0Client) -> None:
    numbers = iter(range(1000))
    auth0.on("GET", PATH, lambda _: Reply(json={"organizations": [], "next": str(next(numbers))}))

    with pytest.raises(RequestRefusedError, match="empty pages"):
        list(organizations(client))


@pytest.mark.parametrize(
    "answer", [{}, {"organizations": None}, {"organizations": ["canary"]}, "canary", 7, {"organizations": {}}]
)
def test_something_other_than_a_list_is_told(auth0: Transport, client: Auth0Client, answer: Any) -> None:
    auth0.on("GET", PATH, Reply(json=answer))

    with pytest.raises(WrongFormatError, match="the list of organizations") as caught:
        list(organizations(client))

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("cursor", [7, True, False, ["c"], {}])
def test_a_malformed_cursor_is_not_taken_for_the_end(auth0: Transport, client: Auth0Client, cursor: Any) -> None:
    auth0.on("GET", PATH, Reply(json={"organizations": [{"id": "org_1"}], "next": cursor}))

    with pytest.raises(WrongFormatError, match="expected a string as the cursor of the list of organizations, found "):
        list(organizations(client))


def test_a_list_that_outlasts_the_invocation_keeps_what_it_has(
    auth0: Transport, make_client: MakeClient, clock: FakeClock
) -> None:
    tenant = Tenant(5000)

    def slow(seen: Seen) -> Reply:
        clock.time += 10
        return tenant(seen)

    auth0.on("GET", PATH, slow)
    pages: list[Page] = []

    with pytest.raises(ProviderBusyError):
        pages.extend(organizations(make_client(seconds=100)))
    assert pages
    pages.extend(organizations(make_client(), pages[-1].next))

    assert [row for page in pages for row in page.rows] == tenant.rows
