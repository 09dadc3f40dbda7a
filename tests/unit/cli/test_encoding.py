"""Invalid text is replaced by a readable form, and valid text is unchanged."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meibo_cli.encoding import (
    NumberOutOfRangeError,
    json_bytes,
    open_decompressed,
    parse_exact_json,
    parse_json,
    parse_simple_object,
    readable_copy,
    readable_json,
)

# Includes surrogates.
TEXT = st.text(st.characters(exclude_categories=[]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("line", "readable"),
    [
        (rb'{"a":"\ud83d"}', rb'{"a":"\\ud83d"}'),
        (rb'{"a":"\uDE00\uD83D"}', rb'{"a":"\\uDE00\\uD83D"}'),
        (rb'{"a":"\ud83d\ud83d\ude00"}', rb'{"a":"\\ud83d\ud83d\ude00"}'),
        (rb'{"a":"\\ud83d \\\ud83d \n\u0041"}', rb'{"a":"\\ud83d \\\\ud83d \n\u0041"}'),
        (b'{"a\xff":"\xed\xa0\xbd"}', rb'{"a\\xff":"\\xed\\xa0\\xbd"}'),
        ('{"a":"髙😀"}'.encode(), '{"a":"髙😀"}'.encode()),
    ],
)
def test_only_invalid_text_is_replaced(line: bytes, readable: bytes) -> None:
    assert readable_json(line) == readable
    json.loads(readable)


@given(st.binary(max_size=30))
def test_any_line_becomes_utf_8(line: bytes) -> None:
    readable_json(line).decode()


@given(VALUES)
def test_json_is_valid_utf_8_and_has_the_same_value(value: Any) -> None:
    document = json_bytes(value)

    again = json.loads(document.decode())
    # JSON parsers combine a pair of surrogates into one character.
    assert again == json.loads(json.dumps(value))
    json.loads(readable_json(document).decode()).__str__().encode()


@given(VALUES, st.booleans())
def test_simple_object_has_the_same_values_as_with_the_standard_library(value: Any, ascii_only: bool) -> None:
    line = json.dumps({"a": value, "b": 1}, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")

    # repr() differs for 1, 1.0 and True, and contains the order of the names.
    row = parse_simple_object(line)
    assert row is None or repr(row) == repr(parse_json(line.decode()))


@given(st.floats(-1e308, 1e308), st.sampled_from(["", ".17e", ".25e", ".3e"]))
def test_simple_object_has_exact_numbers(number: float, form: str) -> None:
    assert repr(parse_simple_object(b'{"a":%b}' % format(number, form).encode())) == repr(
        {"a": float(format(number, form))}
    )


@pytest.mark.parametrize(
    "value",
    [
        *(
            b"1e999",
            b"[-1e999]",
            b'{"b":1e999}',
            b"9" * 400 + b".5",
            b"9" * 5000,
            b"NaN",
            b"-Infinity",
            b"01",
            b"1.",
            b"",
        ),
        *(rb'"\ud83d"', rb'"\ude00\ud83d"', b'"\xff"', b'"\xed\xa0\xbd"', b'"\n"', b"[1,]", b"[" * 300 + b"]" * 300),
    ],
)
def test_unusual_value_requires_the_standard_library(value: bytes) -> None:
    assert parse_simple_object(b'{"a":%b}' % value) is None


@pytest.mark.parametrize("line", [b"1", b"[1]", b"{} x", b"\xef\xbb\xbf{}", b"", b"1e999"])
def test_line_that_is_not_an_object_requires_the_standard_library(line: bytes) -> None:
    assert parse_simple_object(line) is None


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_number_that_is_not_json_is_not_written(number: float) -> None:
    assert json_bytes("NaN, Infinity") == b'"NaN, Infinity"'
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_bytes({"a": [number]})


@pytest.mark.parametrize("compressed", [False, True])
def test_copy_is_compressed_like_its_source(tmp_path: Path, compressed: bool) -> None:
    body = b'{"a":"\xff"}\n{"a":1}\n'
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(gzip.compress(body) if compressed else body)

    readable_copy(source, target)

    assert (target.read_bytes()[:2] == b"\x1f\x8b") is compressed
    with open_decompressed(target) as file:
        assert file.read() == rb'{"a":"\\xff"}' + b'\n{"a":1}\n'


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 5000])
def test_number_out_of_range_is_not_changed_to_another_number(number: str) -> None:
    with pytest.raises(NumberOutOfRangeError):
        parse_json(f"[{number}]")

    assert parse_exact_json(f"[{number}]") == [f"the number {number}"]
    assert parse_exact_json("[12345678901234567890, 1.5]") == parse_json("[12345678901234567890, 1.5]")


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constant_that_only_python_accepts_is_rejected(constant: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_json(f"[{constant}]")
