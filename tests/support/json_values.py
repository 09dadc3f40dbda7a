"""Generate responses of a provider: random JSON values, and documented responses with replaced values."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

from meibo.errors import MeiboError

# A value that must not appear in error messages. It contains a space, which ids and error codes cannot contain.
CANARY = "canary "

_TEXTS = st.text(max_size=8) | st.sampled_from([CANARY, "\ud83d", "\x00", "²", "NaN", "../x", "x" * 300])
_NUMBERS = (
    st.integers(-2, 2)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.sampled_from([10**20, -(10**20), 10**400, 1e308, -0.0])
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)


# Values of each type, including values that are not hashable, not iterable, too large or not Unicode.
WRONG_VALUES: tuple[Any, ...] = (
    *(None, True, 7, -1, 10**400, float("inf"), float("nan"), "", CANARY, "\ud83d"),
    *([], [7], [[]], {}, {"x": 7}),
)


def replaced(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """Return a copy of the document with the value at a path replaced."""
    if not path:
        return value
    changed = copy.deepcopy(document)
    parent = changed
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    return changed


def value_paths(document: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every value in a document, including the document itself."""
    yield path
    children = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for step, child in children:
        yield from value_paths(child, (*path, step))


@st.composite
def altered(draw: st.DrawFn, document: Any) -> Any:
    """Return a copy of the document with one or two values replaced."""
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(list(value_paths(document))))
        document = replaced(document, path, draw(JSON))
    return document


def assert_ends(call: Callable[[], Any]) -> None:
    """Assert that a call returns, or raises a MeiboError without ``CANARY`` in its traceback."""
    text = ""
    try:
        call()
    except MeiboError as error:
        text = "".join(traceback.format_exception(error))
    assert CANARY not in text
