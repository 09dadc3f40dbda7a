from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meibo.http.raw_json import JsonNumber, RawJson, parse_list

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def items(text: str, key: str | None) -> list[RawJson]:
    return parse_list(text, key)[0]


@given(
    rows=st.lists(VALUES, max_size=6),
    before=st.dictionaries(st.text().filter(lambda key: key != "users"), VALUES, max_size=2),
    indent=st.sampled_from([None, 0, 2, "\t"]),
    ascii_only=st.booleans(),
    line_end=st.sampled_from(["\n", "\r\n"]),
)
def test_each_value_is_unchanged(
    rows: list[Any], before: dict[str, Any], indent: int | str | None, ascii_only: bool, line_end: str
) -> None:
    text = json.dumps({**before, "users": rows}, indent=indent, ensure_ascii=ascii_only).replace("\n", line_end)

    items, members = parse_list(text, "users")

    assert members.keys() == before.keys()
    assert [json.loads(item.text) for item in items] == rows
    for item, row in zip(items, rows, strict=True):
        assert "\n" not in item.text
        assert "\r" not in item.text
        if indent is None:
            assert item.text == json.dumps(row, ensure_ascii=ascii_only)
            assert item.text in text


@pytest.mark.parametrize(
    "row",
    [
        '{"id":"7532782697181632513","n":1.10,"e":1E2,"z":-0}',
        '{"id":"1","name":"\\u5c71\\u7530","slash":"\\/","tab":"\\t"}',
        '{"id":"1","id":"2"}',
        '{"lone":"\\ud800"}',
        '{ "spaced" :  [ 1 ,2 ] }',
        '{"u":"\u2028"}',
    ],
)
def test_notation_of_a_value_is_unchanged(row: str) -> None:
    (item,) = items(f'{{"users":[{row}]}}', "users")

    assert item.text == row


def test_line_breaks_between_tokens_become_spaces() -> None:
    (item,) = items('{"users":[{"id":\r\n"1",\n"text":"a\\nb"}]}', "users")

    assert item.text == '{"id":  "1", "text":"a\\nb"}'


def test_numbers_keep_all_their_digits() -> None:
    (item,) = items('{"users":[{"id":7532782697181632513}]}', "users")

    assert item.value == {"id": JsonNumber("7532782697181632513")}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"users":{}}',
        '{"users":null}',
        '{"users":[1,]}',
        '{"users":[1',
        '{"users":[1]',
        '{"users":[1]}x',
        '{"users":[1]}{"users":[2]}',
        '{"users":[1],"users":[2]}',
        '{"users":[NaN]}',
        '{"users":["a\nb"]}',
        '{"users" [1]}',
        "{users:[1]}",
        '{"other":[1]}',
        "<html></html>",
        '{"users":[' + "[" * 200_000,
        '{"other":' + "[" * 200_000,
    ],
)
def test_other_text_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_list(text, "users")


def test_document_that_is_the_list_is_read_on_request() -> None:
    assert [item.text for item in items(' [{"id": 1.10}, 2]\n', None)] == ['{"id": 1.10}', "2"]
    for text in ('{"users":[]}', "[1]x", "[1", ""):
        with pytest.raises(ValueError, match=r"."):
            parse_list(text, None)
