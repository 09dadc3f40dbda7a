"""Gzip files are decoded up to the trailer with limited output, and other files are rejected."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meibo.archive.content import Content, Facts, Inspection
from meibo.archive.content.inspection import MIB, OUTPUT_BYTES, Gunzip
from meibo.errors import BadFileError, CorruptFileError, FileTooLargeError, WrongFormatError


def inspect(data: bytes, content: Content, size: int = 1000) -> Facts:
    inspection = Inspection(content)
    for at in range(0, len(data), size):
        inspection.feed(memoryview(data)[at : at + size])
    return inspection.finish()


@given(
    members=st.lists(st.binary(max_size=2000), min_size=1, max_size=3),
    padding=st.integers(0, 5),
    size=st.integers(1, 3000),
)
def test_every_member_is_decoded(members: list[bytes], padding: int, size: int) -> None:
    data = b"".join(map(gzip.compress, members)) + b"\0" * padding
    facts = inspect(data, Content("opaque", "required"), size)
    assert facts == Facts(gzip=True, rows=None, columns=None, expanded_bytes=sum(map(len, members)))


@given(data=st.binary(min_size=1, max_size=2000), cut=st.integers(1, 30), size=st.integers(1, 3000))
def test_file_that_ends_early_is_corrupt(data: bytes, cut: int, size: int) -> None:
    zipped = gzip.compress(data)
    with pytest.raises(BadFileError):
        inspect(zipped[: -min(cut, len(zipped))], Content("opaque", "required"), size)


@given(data=st.binary(min_size=1, max_size=500), at=st.integers(0, 7), flip=st.integers(1, 255))
def test_wrong_trailer_is_corrupt(data: bytes, at: int, flip: int) -> None:
    zipped = bytearray(gzip.compress(data))
    zipped[-1 - at] ^= flip
    with pytest.raises(CorruptFileError):
        inspect(bytes(zipped), Content("opaque", "required"))


def test_bytes_after_the_last_member_are_corrupt() -> None:
    with pytest.raises(CorruptFileError):
        inspect(gzip.compress(b"x") + b"rubbish", Content("opaque", "required"))


def test_bomb_is_decoded_in_bounded_chunks_and_refused() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(100)) + packer.flush()

    chunks = Gunzip().feed(memoryview(bomb))

    assert max(map(len, chunks)) <= OUTPUT_BYTES
    with pytest.raises(FileTooLargeError, match="400 times"):
        inspect(bomb, Content("opaque", "required"))
    with pytest.raises(FileTooLargeError, match="more than 1000 bytes"):
        inspect(bomb, Content("opaque", "required", max_expanded_bytes=1000))


def test_uncompressed_bytes_are_refused_if_gzip_is_required() -> None:
    with pytest.raises(CorruptFileError, match=r"^expected gzip data, found other data$"):
        inspect(b"a,b\n", Content("csv", "required"))
    with pytest.raises(WrongFormatError, match="HTML"):
        inspect(b"<html>", Content("csv", "required"))


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("data", [b"<html></html>", b"\xef\xbb\xbf  \n<html>", b"<"])
def test_html_is_refused_in_chunks_of_any_size(data: bytes, size: int) -> None:
    with pytest.raises(WrongFormatError):
        inspect(data, Content("csv", "never"), size)
    with pytest.raises(WrongFormatError):
        inspect(gzip.compress(data), Content("ndjson"), size)


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    "record",
    [b"[admin],Admin", b"{x},X", b"<b>,B", b"<x@example.jp>,X", b"[,x", b"{,x", b"<,x", b"[1,x", b"[admin]", b"{x}"],
)
def test_first_cell_without_header_may_look_like_json_or_html(record: bytes, bom: bytes, size: int) -> None:
    columns = 1 + record.count(b",")
    for end in (b"\r\n", b"\n", b""):
        data = bom + record + end
        facts = inspect(data, Content("csv", "never"), size)
        assert (facts.rows, facts.columns) == (1, columns)
        if end:
            assert inspect(data + record, Content("csv", "never"), size).rows == 2


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html>\n<p>Sorry, try again.",
        b"<HTML><body>Sorry, try again.</body></HTML>",
        b'<html lang="ja"><title>Sorry, try again.</title>',
        b"<?xml version='1.0'?><Error>Sorry, try again.</Error>",
        b"<p>Sorry</p>\n",
        b'{"code":"CB_NO02","message":"Sorry, try again."}',
        b'{\n  "code": "CB_NO02",\n  "message": "x"\n}',
        b'[{"code":"x"},{"code":"y"}]',
        b'["x","y"]\n',
        b"[\n  1,\n  2\n]",
        b"[{\n",
        b"[]",
        b"{}\n",
        b"[null]",
    ],
)
def test_json_and_html_are_not_csv_without_a_header(data: bytes, size: int) -> None:
    with pytest.raises(WrongFormatError, match=r"HTML|JSON"):
        inspect(data, Content("csv", "never"), size)


@pytest.mark.parametrize("first", [b"[id]", b"{id}", b"<id>"])
def test_header_begins_with_a_name(first: bytes) -> None:
    with pytest.raises(WrongFormatError, match=r"HTML|JSON"):
        inspect(first + b",name\n1,a\n", Content("csv", "never", header=True))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_rows_of_compressed_and_uncompressed_files_are_counted(size: int) -> None:
    data = b'id,name\r\n1,"\xff\x00\n"\r\n'
    expected = Facts(gzip=False, rows=1, columns=("id", "name"), expanded_bytes=len(data))
    assert inspect(data, Content("csv", header=True), size) == expected
    assert inspect(gzip.compress(data), Content("csv", header=True), size).rows == 1


def test_csv_with_header_that_ends_between_two_fields_is_corrupt() -> None:
    data = b"id,name,note\n" + b"1,a,b\n" * 1500 + b"2"
    with pytest.raises(CorruptFileError, match="last record has 1 fields, expected 3"):
        inspect(gzip.compress(data), Content("csv", "required", header=True))


def test_csv_without_header_that_ends_between_two_fields_is_corrupt_unless_it_is_ragged() -> None:
    data = b"1,a,b\n" * 1500 + b"2"
    with pytest.raises(CorruptFileError, match="last record has 1 fields, expected 3"):
        inspect(data, Content("csv", "never", uniform=True))
    assert inspect(data, Content("csv", "never")).rows == 1501


def test_ndjson_that_ends_inside_a_row_is_refused() -> None:
    data = b'{"user_id":"auth0|1","email":"a@example.com"}\n' * 1500 + b'{"user_id":"auth0|1500","ema'
    with pytest.raises(WrongFormatError, match="row 1501 is not valid JSON"):
        inspect(gzip.compress(data), Content("ndjson", "required"))


@pytest.mark.parametrize("data", [b"", b"1", b"\n"])
def test_short_files_are_inspected_completely(data: bytes) -> None:
    facts = inspect(data, Content("csv", "never"), 1)
    assert (facts.rows, facts.expanded_bytes) == (int(data == b"1"), len(data))


def test_nothing_is_decoded_if_decoding_is_switched_off() -> None:
    facts = inspect(gzip.compress(b"<html>")[:-9], Content("csv", "required", decode=False))
    assert facts == Facts(gzip=True, rows=None, columns=None, expanded_bytes=None)
    with pytest.raises(CorruptFileError):
        inspect(b"a,b\n", Content("csv", "required", decode=False))
