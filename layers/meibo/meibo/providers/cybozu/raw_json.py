"""Extract the items of a JSON response as text, so that values stay exactly as received."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

_SPACE: Final = re.compile(r"[ \t\r\n]*")


def _no_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


# Numbers stay strings: ids have more digits than a float, and nothing here calculates.
_DECODER: Final = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_no_constant)


@dataclass(frozen=True)
class Item:
    """One item of a list: parsed (numbers as strings), and as one line of JSON text as received."""

    value: Any = field(repr=False)
    line: str = field(repr=False)


def parse_items(text: str, key: str) -> list[Item]:
    """Return the items of the list under ``key`` of the JSON object ``text``.

    Raises ValueError if the text is not such an object, is nested too deep, or contains the key twice.
    """
    try:
        return list(_items(text, key))
    except (RecursionError, IndexError):
        # Nested too deep, or truncated.
        pass
    raise ValueError("expected a complete JSON object")


def _items(text: str, key: str) -> Iterator[Item]:
    position = _expect(text, _skip(text, 0), "{")
    has_list = False
    while True:
        start = _skip(text, position)
        _expect(text, start, '"')
        name, position = _DECODER.raw_decode(text, start)
        position = _skip(text, _expect(text, _skip(text, position), ":"))
        if name == key:
            if has_list:
                raise ValueError("expected the list once, found it twice")
            has_list = True
            position = _expect(text, position, "[")
            position = yield from _list(text, position)
        else:
            position = _DECODER.raw_decode(text, position)[1]
        position = _skip(text, position)
        if text[position] == ",":
            position += 1
            continue
        position = _skip(text, _expect(text, position, "}"))
        if position != len(text):
            raise ValueError("expected nothing after the object")
        if not has_list:
            raise ValueError("expected the list, found none")
        return


def _list(text: str, position: int) -> Generator[Item, None, int]:
    position = _skip(text, position)
    if text[position] == "]":
        return position + 1
    while True:
        start = _skip(text, position)
        value, position = _DECODER.raw_decode(text, start)
        yield Item(value, _one_line(text[start:position]))
        position = _skip(text, position)
        if text[position] == "]":
            return position + 1
        position = _expect(text, position, ",")


def _one_line(text: str) -> str:
    # Inside a string a line break is always escaped, so these are between tokens.
    return text.replace("\r", " ").replace("\n", " ") if "\n" in text or "\r" in text else text


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _expect(text: str, position: int, character: str) -> int:
    if text[position] != character:
        raise ValueError(f"expected {character}")
    return position + 1
