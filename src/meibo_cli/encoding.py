"""Read and write invalid UTF-8 and lone surrogates, which files of the providers may contain.

DuckDB rejects a file that contains such a character. A readable copy contains visible text instead, ``\\xff`` or
``\\ud83d``, so that no row is lost and different values remain different.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import re
from pathlib import Path
from typing import Any, Final

from isal import igzip
from pydantic_core import from_json, to_json

_GZIP_LEVEL: Final = 1
_BUFFER_BYTES: Final = 1024 * 1024
_INVALID_BYTE: Final = re.compile("[\udc80-\udcff]")
# A surrogate pair, a lone surrogate (group 1), or any other escape sequence of JSON.
_JSON_ESCAPE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


class NumberOutOfRangeError(ValueError):
    """A number that Python cannot represent, such as 1e999."""


def open_decompressed(path: Path) -> Any:
    """Open a file for reading and decompress it if it is gzip."""
    if not is_gzip(path):
        return path.open("rb")
    # BufferedReader reads lines faster than isal, which calls a Python method for each line.
    return io.BufferedReader(igzip.open(path, "rb"), _BUFFER_BYTES)  # type: ignore[no-untyped-call]  # isal has no types


def is_gzip(path: Path) -> bool:
    """Return whether a file is gzip."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def readable_json(line: bytes) -> bytes:
    """Return a line of JSON with visible text for each invalid byte and each lone surrogate."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = line.decode("utf-8", "surrogateescape")
        text = _INVALID_BYTE.sub(lambda match: f"\\\\x{ord(match[0]) - 0xDC00:02x}", text)
    if "\\u" in text:
        text = _JSON_ESCAPE.sub(lambda match: f"\\\\{match[1]}" if match[1] else match[0], text)
    return text.encode()


def readable_copy(source: Path, target: Path) -> None:
    """Write a copy of a file of JSON lines that DuckDB can read. The copy is gzip if the source is gzip."""
    with open_decompressed(source) as file:
        out: Any = gzip.open(target, "xb", _GZIP_LEVEL) if is_gzip(source) else target.open("xb")  # noqa: SIM115
        with out:
            for line in file:
                out.write(_with_unique_names(readable_json(line)))


def _with_unique_names(line: bytes) -> bytes:
    """Return a line of JSON without duplicate names. As in Python's parser, the last value of a name is used."""
    has_duplicates = False

    def to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal has_duplicates
        unique = dict(pairs)
        has_duplicates |= len(unique) < len(pairs)
        return unique

    try:
        row = json.loads(
            line, object_pairs_hook=to_object, strict=False, parse_float=_exact_float, parse_int=_exact_integer
        )
    except (ValueError, RecursionError):
        return line
    return json_bytes(row) + b"\n" if has_duplicates else line


def readable_text(text: str) -> str:
    """Return text that was decoded with ``surrogateescape``, with visible text (``\\xff``) for each invalid byte."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def parse_simple_object(line: bytes) -> dict[str, Any] | None:
    """Return the object in a line of JSON, or None if the line must be parsed with ``parse_json``.

    pydantic is faster than the standard library. It rejects control characters, lone surrogates and deep nesting, and
    parses a number that exceeds the range of a float as infinity.
    """
    try:
        row = from_json(line, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        return None
    return row if isinstance(row, dict) and _simple_json(row) is not None else None


def parse_written_object(line: bytes) -> dict[str, Any]:
    """Return the object in a line that ``json_bytes`` wrote."""
    try:
        row: dict[str, Any] = from_json(line, cache_strings="keys")
    except ValueError:
        row = json.loads(line)
    return row


def parse_json(text: str) -> Any:
    """Return a JSON value. Raises NumberOutOfRangeError for a number that Python cannot represent."""
    try:
        return _STRICT_DECODER.decode(text)
    except (json.JSONDecodeError, NumberOutOfRangeError):
        raise
    except ValueError as error:  # an integer of more than 4,300 digits
        raise NumberOutOfRangeError(str(error)) from None


def parse_exact_json(text: str) -> Any:
    """Return a JSON value for a comparison. A number that Python cannot represent is a string with its digits."""
    return _EXACT_DECODER.decode(text)


def parse_row(line: bytes) -> dict[str, Any] | None:
    """Return the object in a line of NDJSON for a comparison, or None if the line is not a JSON object."""
    try:
        row = parse_exact_json(readable_json(line).decode())
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def json_bytes(value: Any) -> bytes:
    """Return a value as compact JSON in valid UTF-8. A lone surrogate is an escape sequence, as in the source."""
    document = _simple_json(value)
    return _ENCODER.encode(value).encode("utf-8", "backslashreplace") if document is None else document


def _simple_json(value: Any) -> bytes | None:
    """Return a value as compact JSON, or None for lone surrogates, deep nesting, NaN and infinity."""
    try:
        document = to_json(value)
    except ValueError:
        return None
    # A string can contain these words too; the standard library then encodes the value.
    return None if b"NaN" in document or b"Infinity" in document else document


def _refuse(constant: str) -> Any:
    # Python accepts NaN and Infinity, which are not JSON.
    raise json.JSONDecodeError("expected JSON, found a constant that is not JSON", constant, 0)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise NumberOutOfRangeError("a number exceeds the range of a float")
    return value


def _exact_float(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else f"the number {text}"


def _exact_integer(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return f"the number {text}"


# json.loads and json.dumps would create a decoder or an encoder for each row.
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_STRICT_DECODER: Final = json.JSONDecoder(strict=False, parse_float=_finite, parse_constant=_refuse)
_EXACT_DECODER: Final = json.JSONDecoder(strict=False, parse_float=_exact_float, parse_int=_exact_integer)
