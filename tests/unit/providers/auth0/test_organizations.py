from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meibo.errors import ProviderBusyError, WrongFormatError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.organizations import OrganizationApi
from meibo.providers.auth0.pagination import Page
from tests.support.clock import FakeClock
from tests.support.transport import RecordedRequest, Reply, Transport
from tests.unit.providers.auth0.conftest import TOKEN, MakeClient

PATH = "/api/v2/organizations"


class Tenant:
    """Responds with checkpoint pages of ``count`` organizations.

    With ``always_next`` each page that is not empty has a cursor, as recorded for members.
    """

    def __init__(self, count: int, *, size: int = 100, always_next: bool = False) -> None:
        self.rows = [{"id": f"org_{number:016}", "name": f"o{number}"} for number in range(count)]
        self.size = size
        self.always_next = always_next

    def __call__(self, request: RecordedRequest) -> Reply:
        assert "page" not in request.query
        start = int(request.query.get("from", "0"))
        end = start + min(self.size, int(request.query["take"]))
        document: dict[str, Any] = {"organizations": self.rows[start:end]}
        if end < len(self.rows) or (self.always_next and document["organizations"]):
            document["next"] = str(end)
        return Reply(json=document)


def read_all(client: Auth0Client, pages: list[Page]) -> list[Page]:
    """Append the pages of the list of organizations that follow those in ``pages``, and return all pages."""
    api = OrganizationApi(client)
    while not pages or pages[-1].next is not None:
        pages.append(api.items(pages[-1].next if pages else None))
    return pages


def rows_of(pages: list[Page]) -> list[dict[str, Any]]:
    return [row.value for page in pages for row in page.rows]


def test_list_of_a_server_with_smaller_pages_is_complete(auth0: Transport, client: Auth0Client) -> None:
    tenant = Tenant(120, size=50)
    auth0.on("GET", PATH, tenant)

    assert rows_of(read_all(client, [])) == tenant.rows


@given(count=st.integers(0, 700), stop=st.integers(1, 8), always_next=st.booleans())
@example(count=1234, stop=99, always_next=True)
@example(count=1234, stop=99, always_next=False)
def test_list_is_complete_and_resumes_from_any_cursor(count: int, stop: int, always_next: bool) -> None:
    tenant = Tenant(count, always_next=always_next)
    transport = Transport().on("POST", "/oauth/token", TOKEN).on("GET", PATH, tenant)

    def client() -> Auth0Client:
        credentials = Auth0Credentials("client", "s3cret")
        return Auth0Client("acme.test", lambda: credentials, session=transport.session(), clock=FakeClock())

    pages = read_all(client(), read_all(client(), [])[:stop])

    assert rows_of(pages) == tenant.rows


def test_empty_page_with_a_cursor_does_not_end_the_list(auth0: Transport, client: Auth0Client) -> None:
    auth0.on(
        "GET",
        PATH,
        Reply(json={"organizations": [], "next": "a"}),
        Reply(json={"organizations": [{"id": "org_1"}]}),
    )

    assert [rows_of([page]) for page in read_all(client, [])] == [[], [{"id": "org_1"}]]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"organizations": None},
        {"organizations": ["canary"]},
        "canary",
        7,
        {"organizations": {}},
        {"organizations": [{"id": "org_1", "canary": math.nan}]},
    ],
)
def test_response_without_a_list_is_an_error(auth0: Transport, client: Auth0Client, document: Any) -> None:
    auth0.on("GET", PATH, Reply(json=document))
    found = "str" if document == {"organizations": ["canary"]} else "another document"

    with pytest.raises(
        WrongFormatError, match=f"expected the list of organizations as a list of objects, found {found}; check"
    ) as caught:
        read_all(client, [])

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("cursor", [7, True, False, ["c"], {}])
def test_malformed_cursor_does_not_end_the_list(auth0: Transport, client: Auth0Client, cursor: Any) -> None:
    auth0.on("GET", PATH, Reply(json={"organizations": [{"id": "org_1"}], "next": cursor}))

    with pytest.raises(WrongFormatError, match="expected a string as the cursor of the list of organizations, found "):
        read_all(client, [])


def test_list_that_outlasts_the_invocation_resumes_in_the_next(
    auth0: Transport, make_client: MakeClient, clock: FakeClock
) -> None:
    tenant = Tenant(5000)

    def slow(request: RecordedRequest) -> Reply:
        clock.time += 10
        return tenant(request)

    auth0.on("GET", PATH, slow)
    pages: list[Page] = []

    with pytest.raises(ProviderBusyError):
        read_all(make_client(seconds=100), pages)
    assert pages
    read_all(make_client(), pages)

    assert rows_of(pages) == tenant.rows


@pytest.mark.parametrize("row", [{}, {"id": None}, {"id": 7}, {"id": ""}])
def test_organization_without_an_id_is_an_error(auth0: Transport, client: Auth0Client, row: dict[str, Any]) -> None:
    auth0.on("GET", PATH, Reply(json={"organizations": [row]}))

    expected = "expected the list of organizations with an id in each object, found an object without a valid id"
    with pytest.raises(WrongFormatError, match=rf"^Auth0 \(acme\.jp\.auth0\.com\): {expected}$"):
        OrganizationApi(client).items(None)
