"""Rows are counted as by a CSV or JSON parser, in chunks of any size."""

from __future__ import annotations

import csv
import io
import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meibo.archive.content.rows import KEY_ROWS, CsvRows, NdjsonRows, check_start
from meibo.errors import CorruptFileError, FileTooLargeError, WrongFormatError

MAX_ROW_BYTES = 1 << 20


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
    rows = CsvRows(header=False, max_row_bytes=MAX_ROW_BYTES)

    for piece in cut(data, size):
        rows.feed(piece)

    assert rows.finish() == (len(records), len(records[0]))


unreturned = st.text(alphabet=st.sampled_from('ab"\n,\0é名'), max_size=6)  # csv does not quote a single carriage return


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
    rows = CsvRows(header=False, max_row_bytes=MAX_ROW_BYTES)
    for piece in cut(text.getvalue().encode(), size):
        rows.feed(piece)
    assert rows.finish() == (len(records), len(records[0]))


@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
@pytest.mark.parametrize("size", [1000, 4096, 1 << 20])
def test_quoted_newlines_and_blank_lines_are_found_in_large_chunks(quoting: Literal[0, 1], size: int) -> None:
    notes = ["plain"] * 30 + ['two\nlines and "quotes"', '\n"\n', "", '"', "\n,\n", "\n'x"]
    ids = ["auth0|1", "'auth0|2", '"3"', "4\n5", ""]
    records = [[ids[number % 97 % len(ids)], notes[number % len(notes)]] for number in range(5000)]
    text = io.StringIO()
    writer = csv.writer(text, quoting=quoting, lineterminator="\n")
    for number, record in enumerate(records):
        text.write("\n" * (number % 101 == 100))
        writer.writerow(record)
    rows = CsvRows(header=False, max_row_bytes=MAX_ROW_BYTES)
    for piece in cut(text.getvalue().encode(), size):
        rows.feed(piece)
    assert rows.finish() == (5000, 2)


def test_csv_header_is_not_a_row_and_names_the_columns() -> None:
    rows = CsvRows(header=True, max_row_bytes=MAX_ROW_BYTES)
    rows.feed(b'\xef\xbb\xbf"user\nid","e-mail"\r\n"1","a@example.com"\r\n\r\n')
    assert rows.finish() == (1, ("user\nid", "e-mail"))


def test_csv_that_ends_inside_quotes_is_corrupt() -> None:
    rows = CsvRows(header=False, max_row_bytes=MAX_ROW_BYTES)
    rows.feed(b'"a","b"\n"c","d')
    with pytest.raises(CorruptFileError, match="inside a quoted field"):
        rows.finish()


@st.composite
def uniform_records(draw: st.DrawFn) -> list[list[str]]:
    columns = draw(st.integers(2, 4))
    return draw(st.lists(st.lists(unreturned, min_size=columns, max_size=columns), min_size=2, max_size=8))


@given(
    records=uniform_records(),
    missing=st.integers(0, 3),
    blanks=st.lists(st.integers(0, 9), max_size=6),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    last_line_ended=st.booleans(),
    size=st.integers(1, 40),
)
def test_last_csv_record_has_as_many_fields_as_the_first(
    records: list[list[str]],
    missing: int,
    blanks: list[int],
    quoting: Literal[0, 1],
    line_end: str,
    last_line_ended: bool,
    size: int,
) -> None:
    # given: records of one length, the last of which lacks some fields
    *others, last = records
    cut_off = last[: max(1, len(last) - missing)]
    text = io.StringIO()
    writer = csv.writer(text, quoting=quoting, lineterminator=line_end)
    for number, record in enumerate([*others, cut_off]):
        text.write(line_end * blanks.count(number))
        writer.writerow(record)
    data = text.getvalue().encode()
    data = data + line_end.encode() * blanks.count(9) if last_line_ended else data.removesuffix(line_end.encode())
    rows = CsvRows(header=False, max_row_bytes=MAX_ROW_BYTES, uniform=True)
    for piece in cut(data, size):
        rows.feed(piece)

    if len(cut_off) == len(last):
        assert rows.finish() == (len(records), len(last))
    else:
        with pytest.raises(CorruptFileError, match=f"last record has {len(cut_off)} fields, expected {len(last)}"):
            rows.finish()


@pytest.mark.parametrize("size", [1, 1000, 1 << 17])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n\r\n"])
@pytest.mark.parametrize("note", [b"x" * 300_000, b'"' + b'a""b\n,' * 40_000 + b'"'], ids=["long", "quoted"])
def test_fields_of_a_last_csv_record_larger_than_a_chunk_are_counted(note: bytes, end: bytes, size: int) -> None:
    before = b"id,name,note\n" + b"1,a,b\n" * 50_000
    for last, complete in ((b"2,c," + note, True), (note + b",c,d", True), (b"2," + note, False)):
        data = before + last + end
        rows = CsvRows(header=True, max_row_bytes=MAX_ROW_BYTES, uniform=True)
        pieces = cut(data, size) if size > 1 else [before, *cut(last + end, 1000)]
        for piece in pieces:
            rows.feed(piece)
        if complete:
            assert rows.finish() == (50_001, ("id", "name", "note"))
        else:
            with pytest.raises(CorruptFileError, match="last record has 2 fields, expected 3"):
                rows.finish()


def test_ragged_csv_records_are_rows_unless_they_must_be_uniform() -> None:
    rows = CsvRows(header=False, max_row_bytes=MAX_ROW_BYTES)
    rows.feed(b"alice,sales,dev\r\nbob\r\n")
    assert rows.finish() == (2, 3)


@pytest.mark.parametrize("rows", [CsvRows(header=False, max_row_bytes=100), NdjsonRows(max_row_bytes=100)])
@pytest.mark.parametrize("size", [10, 1000])
def test_row_without_end_is_too_large(rows: CsvRows | NdjsonRows, size: int) -> None:
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
def test_ndjson_rows_and_keys_are_collected(objects: list[dict[str, Any]], blanks: bytes, size: int) -> None:
    data = b"".join(json.dumps(item).encode() + b"\n" + blanks for item in objects)
    rows = NdjsonRows(max_row_bytes=MAX_ROW_BYTES)

    for piece in cut(data, size):
        rows.feed(piece)

    count, columns = rows.finish()
    assert count == len(objects)
    assert set(columns) == {key for item in objects for key in item}


def test_deeply_nested_ndjson_row_is_counted() -> None:
    rows = NdjsonRows(max_row_bytes=MAX_ROW_BYTES)

    rows.feed(b'{"a":1}\n{"b":' + b"[" * 100_000 + b"]" * 100_000 + b'}\n{"c":1}\n')

    # The row is archived as delivered; only its keys are unknown.
    assert rows.finish() == (3, ("a", "c"))


@given(extra=st.integers(0, 40), blank_at=st.integers(0, 30), size=st.integers(1, 300))
def test_ndjson_rows_after_those_with_collected_keys_are_counted(extra: int, blank_at: int, size: int) -> None:
    lines = [b'{"a":1}'] * (KEY_ROWS + extra)
    lines.insert(KEY_ROWS + blank_at, b" ")
    rows = NdjsonRows(max_row_bytes=MAX_ROW_BYTES)
    for piece in cut(b"\n".join(lines), size):
        rows.feed(piece)
    assert rows.finish() == (KEY_ROWS + extra, ("a",))


@pytest.mark.parametrize("bad", [b"[1]", b"oops", b'"x"'])
@pytest.mark.parametrize("before", [0, KEY_ROWS + 10])
def test_ndjson_row_that_is_not_an_object_is_refused(bad: bytes, before: int) -> None:
    rows = NdjsonRows(max_row_bytes=MAX_ROW_BYTES)
    with pytest.raises(WrongFormatError, match=f"row {before + 1} "):  # noqa: PT012  (either call may raise)
        rows.feed(b'{"a":1}\n' * before + bad + b'\n{"a":1}\n')
        rows.finish()


LAST = b'{"user_id":"auth0|1500","email":"a@example.com","n":{"x":[1,2]}}'


@pytest.mark.parametrize("size", [1, 63, 1000, 1 << 17])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n\r\n", b"\n \n"])
@pytest.mark.parametrize("rows_before", [0, KEY_ROWS - 1, KEY_ROWS, KEY_ROWS + 500])
def test_last_ndjson_row_is_valid_json(rows_before: int, end: bytes, size: int) -> None:
    before = b'{"a":1}\n' * rows_before
    for length in (*range(1, len(LAST), 9), len(LAST) - 1, len(LAST)):
        rows = NdjsonRows(max_row_bytes=MAX_ROW_BYTES)
        pieces = [before, *cut(LAST[:length] + end, 1)] if size == 1 else cut(before + LAST[:length] + end, size)
        if length == len(LAST):
            for piece in pieces:
                rows.feed(piece)
            assert rows.finish()[0] == rows_before + 1
            continue
        with pytest.raises(WrongFormatError, match=f"^row {rows_before + 1} is not valid JSON$") as caught:  # noqa: PT012  (either call may raise)
            for piece in pieces:
                rows.feed(piece)
            rows.finish()
        assert caught.value.__cause__ is None


@pytest.mark.parametrize("rows_before", [0, KEY_ROWS + 500])
@pytest.mark.parametrize("value", [b"1" * 5000, b"1e999", b'"\\ud83d"', b'"\xff"', b'"\t"'])
def test_unusual_values_are_valid_json(rows_before: int, value: bytes) -> None:
    rows = NdjsonRows(max_row_bytes=MAX_ROW_BYTES)
    rows.feed(b'{"a":1}\n' * rows_before + b'{"a":' + value + b"}\n")
    assert rows.finish() == (rows_before + 1, ("a",))


@pytest.mark.parametrize("size", [1000, 1 << 17])
def test_last_ndjson_row_larger_than_a_chunk_is_valid_json(size: int) -> None:
    before = b'{"a":1}\n' * (KEY_ROWS + 500)
    long_row = b'{"note":"' + b"x" * 300_000 + b'"}'
    for last, valid in ((long_row, True), (long_row[:-1], False), (long_row[:-2], False)):
        for end in (b"", b"\n", b"\n" * 200_000):
            rows = NdjsonRows(max_row_bytes=MAX_ROW_BYTES)
            for piece in cut(before + last + end, size):
                rows.feed(piece)
            if valid:
                assert rows.finish() == (KEY_ROWS + 501, ("a",))
            else:
                with pytest.raises(WrongFormatError, match=f"^row {KEY_ROWS + 501} is not valid JSON$"):
                    rows.finish()


def test_error_names_the_row_without_its_content() -> None:
    rows = NdjsonRows(max_row_bytes=MAX_ROW_BYTES)
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
def test_another_format_is_recognized_by_its_first_bytes(format_name: str, start: bytes) -> None:
    with pytest.raises(WrongFormatError):
        check_start(format_name, start)
