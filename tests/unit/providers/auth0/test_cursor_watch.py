from __future__ import annotations

from collections.abc import Iterable
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meibo.errors import RequestRefusedError
from meibo.http.raw_json import RawJson
from meibo.providers.auth0.pagination import CursorWatch, Page

ROWS = [RawJson({"id": "org_1"}, '{"id":"org_1"}')]


def watch(pages: Iterable[Page]) -> None:
    """Watch the cursors of pages, as consecutive invocations do."""
    state = CursorWatch()
    for page in pages:
        state = state.after(page, subject="the list", provider="Auth0 (acme.test)")


@given(st.integers(0, 2000))
def test_list_with_distinct_cursors_is_read_completely(length: int) -> None:
    watch(Page(ROWS, str(number)) for number in range(length))


@given(lead_in=st.integers(0, 200), cycle=st.integers(1, 200))
def test_cycle_of_any_length_is_detected(lead_in: int, cycle: int) -> None:
    places = (step if step < lead_in else lead_in + (step - lead_in) % cycle for step in count())
    soon = 3 * max(lead_in, cycle) + cycle + 2

    with pytest.raises(RequestRefusedError, match="repeats"):
        watch(Page(ROWS, str(place)) for place, _ in zip(places, range(soon), strict=False))


def test_endless_empty_pages_are_an_error() -> None:
    with pytest.raises(RequestRefusedError, match="empty pages"):
        watch(Page([], str(number)) for number in range(100))
