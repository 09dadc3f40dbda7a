from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meibo.errors import (
    ArchiveConflictError,
    EventError,
    ProviderBusyError,
    RequestRefusedError,
    ScopeMissingError,
)
from meibo.http.raw_json import parse_list
from meibo.providers import provider
from meibo.providers.auth0.pagination import ItemPosition, Page
from meibo.providers.base import ExportRequest, PageResult, ProviderContext
from tests.support.memory_tenant import ORGANIZATION_PAGES, MemoryTenant, organization_id, raw_json, read_in_invocations

DATASETS = pytest.mark.parametrize("dataset", ["organizations", "members"])


def rows(steps: list[PageResult]) -> list[dict[str, Any]]:
    return [json.loads(line) for step in steps for line in step.lines]


def read(dataset: str, tenant: MemoryTenant, position: Any = None) -> Iterator[PageResult]:
    """Read from a position that was stored as JSON."""
    return ORGANIZATION_PAGES[dataset](tenant).results(json.loads(json.dumps(position)))


@DATASETS
@pytest.mark.parametrize("always_next", [True, False])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 20])
def test_every_row_is_read_once_in_order(dataset: str, count: int, always_next: bool) -> None:
    tenant = MemoryTenant(count, always_next=always_next)

    steps = list(read(dataset, tenant))

    assert rows(steps) == tenant.lines(dataset)
    assert [step.finished for step in steps if step.finished] == [organization_id(n) for n in range(count)]


@given(
    dataset=st.sampled_from(["organizations", "members"]),
    count=st.integers(0, 15),
    always_next=st.booleans(),
    stops=st.lists(st.integers(1, 9), max_size=12),
)
def test_reading_resumes_from_any_position_without_gaps_or_duplicates(
    dataset: str, count: int, always_next: bool, stops: list[int]
) -> None:
    tenant = MemoryTenant(count, always_next=always_next)

    steps = read_in_invocations(ORGANIZATION_PAGES[dataset](tenant).results, tenant, stops)

    assert rows(steps) == tenant.lines(dataset)


@given(
    dataset=st.sampled_from(["organizations", "members"]),
    deletions=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 11)), max_size=6),
)
def test_deletion_between_invocations_skips_no_other_organization(
    dataset: str, deletions: list[tuple[int, int]]
) -> None:
    # given: the pages change while they are read
    tenant = MemoryTenant(12)

    steps = read_in_invocations(
        ORGANIZATION_PAGES[dataset](tenant).results,
        tenant,
        [calls for calls, _ in deletions],
        between=lambda number: tenant.delete(deletions[number][1]),
    )

    # then: every organization that still exists was read once
    result = [json.dumps(row) for row in rows(steps)]
    assert {json.dumps(row) for row in tenant.lines(dataset)} <= set(result)
    assert len(result) == len(set(result))


@DATASETS
def test_deleted_organization_is_skipped_and_named(dataset: str) -> None:
    tenant = MemoryTenant(7, gone={organization_id(2), organization_id(6)})

    steps = list(read(dataset, tenant))

    assert [step.skipped for step in steps if step.skipped] == [organization_id(2), organization_id(6)]
    assert rows(steps) == tenant.lines(dataset)


@DATASETS
@pytest.mark.parametrize(
    "error",
    [
        RequestRefusedError("an error page of a proxy", status=404, foreign=True),
        RequestRefusedError("a validation error", status=400),
        ScopeMissingError("needs the scope"),
    ],
)
def test_any_other_error_ends_the_reading(dataset: str, error: Exception) -> None:
    def refuse(question: str) -> None:
        if organization_id(1) in question:
            raise error

    tenant = MemoryTenant(3, before=refuse)

    with pytest.raises(type(error)):
        list(read(dataset, tenant))


def test_missing_scope_for_roles_is_stored_in_the_position() -> None:
    tenant = MemoryTenant(6, roles=False)

    steps = list(read("members", tenant))

    assert steps[-1].position["with_roles"] is False
    assert "had_roles" not in steps[-1].position


def test_roles_that_become_unavailable_differ_from_roles_that_never_were_read() -> None:
    tenant = MemoryTenant(9)

    def lose(question: str) -> None:
        tenant.roles = tenant.roles and organization_id(7) not in question

    tenant.before = lose
    steps = list(read("members", tenant))

    assert steps[-1].position["with_roles"] is False
    assert steps[-1].position["had_roles"] is True


@pytest.mark.parametrize("cycle", [["a"], ["a", "b"], ["a", "b", "c", "a"], [str(n) for n in range(40)]])
@DATASETS
def test_repeated_cursor_is_an_error_across_invocations(dataset: str, cycle: list[str]) -> None:
    # given: a list whose cursors repeat; every invocation has time for three requests
    class RepeatedCursors(MemoryTenant):
        def repeated_page(self, key: str, cursor: str | None) -> Page:
            at = cycle.index(cursor) + 1 if cursor else 0
            return Page([raw_json({key: organization_id(at)})], cycle[at % len(cycle)])

        def items(self, cursor: str | None) -> Page:
            self._record("organizations")
            return (
                self.repeated_page("id", cursor)
                if dataset == "organizations"
                else Page([raw_json({"id": organization_id(1)})], None)
            )

        def members(self, organization_id: str, cursor: str | None, *, with_roles: bool = True) -> tuple[Page, bool]:
            self._record("members")
            return self.repeated_page("user_id", cursor), True

    tenant = RepeatedCursors()

    def invoke_repeatedly() -> None:
        position: Any = None
        for _ in range(1000):
            tenant.calls_left = 3
            try:
                for step in read(dataset, tenant, position):
                    position = step.position
            except ProviderBusyError:
                continue

    with pytest.raises(RequestRefusedError, match="repeats"):
        invoke_repeatedly()

    # then: after a few cycles
    assert len(tenant.calls) <= 3 * (6 * len(cycle) + 6)


def test_endless_empty_pages_of_members_are_an_error() -> None:
    class Empty(MemoryTenant):
        def members(self, organization_id: str, cursor: str | None, *, with_roles: bool = True) -> tuple[Page, bool]:
            self._record("members")
            return Page([], str(len(self.calls))), True

    with pytest.raises(RequestRefusedError, match="empty pages"):
        list(read("members", Empty(1)))


@dataclass
class OneRow(MemoryTenant):
    """A tenant whose responses contain one row, as JSON text."""

    text: str = "{}"

    def items(self, cursor: str | None) -> Page:
        return self._page_of(
            f'{{"id":"{organization_id(1)}"{"," if json.loads(self.text, parse_int=str) else ""}{self.text[1:]}'
        )

    def members(self, organization_id: str, cursor: str | None, *, with_roles: bool = True) -> tuple[Page, bool]:
        return self._page_of(self.text), True

    def _page_of(self, row: str) -> Page:
        return Page(parse_list(f"[{row}]", None)[0], None)


@DATASETS
@pytest.mark.parametrize(
    "text",
    [
        *(
            f'{{"metadata":[{number},{{"level":{number},"name":"{name}"}}]}}'
            for number in ("1e999", "-1E+400", "1.10", "0.30000000000000000001", "-0", "12", "9" * 5000)
            for name in ("", "組織", "\\ud83d")
        ),
        '{"name":"\\u7d44\\u7e54","a":1,"a":2}',
        '{ "name" : "a" }',
    ],
)
def test_row_has_the_text_of_the_response(dataset: str, text: str) -> None:
    (step,) = read(dataset, OneRow(text=text))

    assert text[1:-1] in step.lines[0].decode()
    assert json.loads(step.lines[0], parse_int=str).keys() > json.loads(text, parse_int=str).keys()


def test_member_without_fields_is_a_row() -> None:
    (step,) = read("members", OneRow(text="{}", count=1))

    assert step.lines == (f'{{"organization_id":"{organization_id(1)}"}}\n'.encode(),)


def test_lines_contain_non_ascii_characters_unescaped() -> None:
    (step,) = read("organizations", MemoryTenant(1))

    assert "組織" in step.lines[0].decode()
    assert step.lines[0].endswith(b"}\n")


def test_unknown_dataset_is_rejected() -> None:
    request = ExportRequest(dataset="titles", format="ndjson", scope="all", endpoint="acme.test", secret="meibo/acme")

    names = "'users' or 'organizations' or 'members' or 'roles' or 'role_members'"
    with pytest.raises(EventError, match=f"expected {names} for Auth0, found 'titles'"):
        provider("auth0").open_source(request, None, ProviderContext(lambda: 900.0))


def test_repr_of_a_position_does_not_contain_cursors() -> None:
    steps = list(read("members", MemoryTenant(5)))

    assert "auth0|" not in repr(steps)


@pytest.mark.parametrize("document", [{}, {"done": [], "inside": 7}, {"done": [], "inside": {"x": 1}}])
def test_position_of_another_version_is_rejected(document: dict[str, Any]) -> None:
    with pytest.raises(ArchiveConflictError, match="version"):
        ItemPosition.stored(document)


def test_position_of_the_first_version_is_read() -> None:
    tenant = MemoryTenant(10)
    watch = {"mark": "auth0|1", "steps": 0, "until": 2, "empty": 0}
    inside = {"cursor": "auth0|1", "watch": watch, "organization_id": organization_id(4)}
    position = {
        "cursor": organization_id(2),
        "watch": {"mark": organization_id(2), "steps": 0, "until": 2, "empty": 0},
        "done": [organization_id(3)],
        "inside": inside,
        "with_roles": True,
        "had_roles": True,
    }

    lines = tenant.lines("members")

    start = lines.index(
        {"organization_id": organization_id(4), "user_id": "auth0|2", "email": "2@example.com", "roles": []}
    )
    assert rows(list(read("members", tenant, position))) == lines[start:]
