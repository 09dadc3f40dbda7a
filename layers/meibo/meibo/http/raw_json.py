"""Parse lists in JSON responses, and preserve the text of their items.

Python's parser does not preserve numbers such as 1.10 or 1e999, escape sequences, or repeated keys. Archived rows
contain the text as received.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, NoReturn

_SPACE: Final = re.compile(r"[ \t\r\n]*")


class JsonNumber(NamedTuple):
    """The text of a number. It is not converted, because ids can have more digits than a float."""

    text: str


def _reject_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_DECODER: Final = json.JSONDecoder(parse_int=JsonNumber, parse_float=JsonNumber, parse_constant=_reject_constant)


@dataclass(frozen=True)
class RawJson:
    """A parsed JSON value, in which numbers are JsonNumber, and its text as received but without line breaks."""

    value: Any = field(repr=False)
    text: str = field(repr=False)


def parse_list(text: str, key: str | None) -> tuple[list[RawJson], dict[str, Any]]:
    """Return the items of the list at a key of a JSON object, and the other members of the object.

    If ``key`` is None, the document must be a list. Raises ValueError for any other document, and for a document that
    has too many levels or contains the key twice.
    """
    start = _skip_space(text, 0)
    members: dict[str, Any] = {}
    try:
        items, end = _parse_array(text, start) if key is None else _parse_object(text, start, key, members)
        is_complete = _skip_space(text, end) == len(text)
    except (RecursionError, IndexError):
        # The document has too many levels or is truncated.
        is_complete = False
    if not is_complete:
        raise ValueError("expected a complete JSON document")
    return items, members


def line_with_id(name: str, identity: str, row: RawJson) -> bytes:
    """Return a JSON object as a line of NDJSON. The id of another resource is added as the first member."""
    rest = f",{row.text[1:]}" if row.value else "}"
    return f'{{"{name}":"{identity}"{rest}\n'.encode()


def line_with_list(row: RawJson, name: str, items: Sequence[RawJson]) -> bytes:
    """Return a JSON object that is not empty as a line of NDJSON. A list is added as the last member."""
    return f'{row.text[:-1]},"{name}":[{",".join(item.text for item in items)}]}}\n'.encode()


def _parse_object(text: str, start: int, key: str, members: dict[str, Any]) -> tuple[list[RawJson], int]:
    """Return the items of the list and the end of the object. Adds the other members to ``members``."""
    items: list[RawJson] | None = None
    position = _expect(text, start, "{") - 1
    while text[position] in "{,":
        name_start = _skip_space(text, position + 1)
        _expect(text, name_start, '"')
        name, position = _DECODER.raw_decode(text, name_start)
        position = _skip_space(text, _expect(text, _skip_space(text, position), ":"))
        if name != key:
            members[name], position = _DECODER.raw_decode(text, position)
        elif items is None:
            items, position = _parse_array(text, position)
        else:
            raise ValueError("expected the list once, found it twice")
        position = _skip_space(text, position)
    if items is None:
        raise ValueError("expected the list, found none")
    return items, _expect(text, position, "}")


def _parse_array(text: str, start: int) -> tuple[list[RawJson], int]:
    items: list[RawJson] = []
    position = _skip_space(text, _expect(text, start, "["))
    if text[position] == "]":
        return items, position + 1
    while True:
        value, end = _DECODER.raw_decode(text, position)
        items.append(RawJson(value, _one_line(text[position:end])))
        position = _skip_space(text, end)
        if text[position] == "]":
            return items, position + 1
        position = _skip_space(text, _expect(text, position, ","))


def _one_line(text: str) -> str:
    # Line breaks in strings are escaped, so these line breaks are between tokens.
    return text.replace("\r", " ").replace("\n", " ") if "\n" in text or "\r" in text else text


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _expect(text: str, position: int, character: str) -> int:
    """Return the position after the expected character, raising ValueError if there is another character."""
    if text[position] != character:
        raise ValueError(f"expected {character}")
    return position + 1
