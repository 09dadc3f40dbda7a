"""Rows are counted as a CSV or JSON parser would, however the bytes are cut."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meibo.archive.copy.rows import KEY_ROWS, CsvRows, NdjsonRows, check_start
from meibo.errors import CorruptFileError, FileTooLargeError, WrongFormatError

MUCH = 1 << 20


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def csv_of(records: list[list[str]], line_end: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=line_end).writerows(records)
    return text.getvalue().encode()


values = st.text(alphabet=st.sampled_from('ab"\n\r,\0é名'), max_size=6)


@given(
    records=st.lists(st.lists(values, min_size=1, max_size=3), min_size=1, max_size=8),
    line_end=st.sampled_from(["\n", "\r\n"]),
    last_line_ended=st.booleans(),
    size=st.integers(1, 20),
)
def test_csv_records_are_counted_as_written(
    records: list[list[str]], line_end: str, last_line_ended: bool, size: int
) -> None:
    data = csv_of(records, line_end)
    if not last_line_ended:
        data = data.removesuffix(line_end.encode())
    rows = CsvRows(header=False, max_row_bytes=MUCH)

    for piece in cut(data, size):
        rows.feed(piece)

    assert rows.finish() == (len(records), len(records[0]))


unreturned = st.text(alphabet=st.sampled_from('ab"\n,\0é名'), max_size=6)  # csv leaves a lone return unquoted


@given(
    records=st.lists(st.lists(unreturned, min_size=1, max_size=3), min_size=1, max_size=12),
    blanks=st.lists(st.integers(0, 12), max_size=6),
    line_end=st.sampled_from(["\n", "\r\n"]),
    size=st.integers(1, 30),
)
def test_blank_lines_between_csv_records_do_not_count(
    records: list[list[str]], blanks: list[int], line_end: str, size: int
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_MINIMAL, lineterminator=line_end)
    for number, record in enumerate(records):
        text.write(line_end * blanks.count(number))
        writer.writerow(record)
    rows = CsvRows(header=False, max_row_bytes=MUCH)
    for piece in cut(text.getvalue().encode(), size):
        rows.feed(piece)
    assert rows.finish() == (len(records), len(records[0]))


def test_csv_header_is_not_a_row_and_names_the_columns() -> None:
    rows = CsvRows(header=True, max_row_bytes=MUCH)
    rows.feed(b'\xef\xbb\xbf"user\nid","e-mail"\r\n"1","a@example.com"\r\n\r\n')
    assert rows.finish() == (1, ("user\nid", "e-mail"))


def test_a_csv_that_ends_inside_quotes_is_corrupt() -> None:
    rows = CsvRows(header=False, max_row_bytes=MUCH)
    rows.feed(b'"a","b"\n"c","d')
    with pytest.raises(CorruptFileError, match="inside a quoted field"):
        rows.finish()


@pytest.mark.parametrize("rows", [CsvRows(header=False, max_row_bytes=100), NdjsonRows(max_row_bytes=100)])
@pytest.mark.parametrize("size", [10, 1000])
def test_a_row_without_end_is_too_large(rows: CsvRows | NdjsonRows, size: int) -> None:
    with pytest.raises(FileTooLargeError):  # noqa: PT012  (some chunk raises)
        for piece in cut(b'{"a":"' + b"x\n" * (0 if isinstance(rows, NdjsonRows) else 60) + b"x" * 200, size):
            rows.feed(piece)
        rows.finish()


json_values = st.none() | st.booleans() | st.integers() | st.text(max_size=5)


@given(
    objects=st.lists(st.dictionaries(st.sampled_from("abcd"), json_values, max_size=3), max_size=8),
    blanks=st.sampled_from([b"", b"\n", b"\r\n"]),
    size=st.integers(1, 20),
)
def test_ndjson_rows_and_keys_are_noted(objects: list[dict[str, Any]], blanks: bytes, size: int) -> None:
    data = b"".join(json.dumps(item).encode() + b"\n" + blanks for item in objects)
    rows = NdjsonRows(max_row_bytes=MUCH)

    for piece in cut(data, size):
        rows.feed(piece)

    count, columns = rows.finish()
    assert count == len(objects)
    assert set(columns) == {key for item in objects for key in item}


def test_an_ndjson_row_that_is_nested_without_reason_is_a_row() -> None:
    rows = NdjsonRows(max_row_bytes=MUCH)

    rows.feed(b'{"a":1}\n{"b":' + b"[" * 100_000 + b"]" * 100_000 + b'}\n{"c":1}\n')

    # Its bytes are the provider's; only its keys stay unknown.
    assert rows.finish() == (3, ("a", "c"))


@given(extra=st.integers(0, 40), blank_at=st.integers(0, 30), size=st.integers(1, 300))
def test_ndjson_rows_after_the_noted_ones_are_counted_too(extra: int, blank_at: int, size: int) -> None:
    lines = [b'{"a":1}'] * (KEY_ROWS + extra)
    lines.insert(KEY_ROWS + blank_at, b" ")
    rows = NdjsonRows(max_row_bytes=MUCH)
    for piece in cut(b"\n".join(lines), size):
        rows.feed(piece)
    assert rows.finish() == (KEY_ROWS + extra, ("a",))


@pytest.mark.parametrize("bad", [b"[1]", b"oops", b'"x"'])
@pytest.mark.parametrize("before", [0, KEY_ROWS + 10])
def test_an_ndjson_row_that_is_no_object_is_refused(bad: bytes, before: int) -> None:
    rows = NdjsonRows(max_row_bytes=MUCH)
    with pytest.raises(WrongFormatError, match=f"row {before + 1} "):  # noqa: PT012  (either call may raise)
        rows.feed(b'{"a":1}\n' * before + bad + b'\n{"a":1}\n')
        rows.finish()


def test_an_error_names_the_row_but_not_what_is_in_it() -> None:
    rows = NdjsonRows(max_row_bytes=MUCH)
    with pytest.raises(WrongFormatError) as caught:
        rows.feed(b'{"email":"a@example.com"\n')
    assert "example.com" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("format_name", "start"),
    [
        ("csv", b"<!DOCTYPE html>"),
        ("csv", b"\xef\xbb\xbf\r\n <html>"),
        ("csv", b'{"error":"x"}'),
        ("ndjson", b"<Error>"),
        ("ndjson", b'[{"a":1}]'),
    ],
)
def test_another_format_is_told_by_its_first_bytes(format_name: str, start: bytes) -> None:
    with pytest.raises(WrongFormatError):
        check_start(format_name, start)
