"""Read and write text that is legal in a provider's file and refused by others: invalid UTF-8 and lone surrogates.

DuckDB refuses a whole file for one such character. In a readable copy it is visible text, ``\\xff`` or ``\\ud83d``, so
that the row stays there, and two different values stay different.
"""

from __future__ import annotations

import gzip
import json
import math
import re
from pathlib import Path
from typing import Any, Final

from isal import igzip

_GZIP_LEVEL: Final = 1
_INVALID_BYTE: Final = re.compile("[\udc80-\udcff]")
# A surrogate pair, a lone surrogate (group 1), or any other escape sequence of JSON.
_JSON_ESCAPE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


class NumberOutOfRangeError(ValueError):
    """A number that Python does not hold as it is written, such as 1e999."""


def opened(path: Path) -> Any:
    """Open a file's bytes, gzip or not."""
    return igzip.open(path, "rb") if is_gzip(path) else path.open("rb")  # type: ignore[no-untyped-call]  # isal has no types


def is_gzip(path: Path) -> bool:
    """Tell whether a file begins as gzip data does."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def readable_json(line: bytes) -> bytes:
    """Return a line of JSON with each invalid byte and each lone surrogate of its strings as visible text."""
    text = line.decode("utf-8", "surrogateescape")
    text = _INVALID_BYTE.sub(lambda match: f"\\\\x{ord(match[0]) - 0xDC00:02x}", text)
    if "\\u" in text:
        text = _JSON_ESCAPE.sub(lambda match: f"\\\\{match[1]}" if match[1] else match[0], text)
    return text.encode()


def readable_copy(source: Path, target: Path) -> None:
    """Write a file of JSON lines again, each line as ``readable_json`` returns it, gzip if the source is gzip."""
    with opened(source) as file:
        out: Any = gzip.open(target, "xb", _GZIP_LEVEL) if is_gzip(source) else target.open("xb")  # noqa: SIM115
        with out:
            for line in file:
                out.write(readable_json(line))


def readable_text(text: str) -> str:
    """Return text that was decoded with ``surrogateescape``, with each invalid byte as visible text (``\\xff``)."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def parse_json(text: str) -> Any:
    """Return a JSON value, raising NumberOutOfRangeError for a number that a float or an integer cannot hold."""
    try:
        return json.loads(text, strict=False, parse_float=_finite, parse_constant=_refuse)
    except (json.JSONDecodeError, NumberOutOfRangeError):
        raise
    except ValueError as error:  # an integer of more than 4,300 digits
        raise NumberOutOfRangeError(str(error)) from None


def parse_exact_json(text: str) -> Any:
    """Return a JSON value for a comparison; a number that Python cannot hold is a string with its digits."""
    return json.loads(text, strict=False, parse_float=_exact_float, parse_int=_exact_integer)


def json_bytes(value: Any) -> bytes:
    """Return a value as compact JSON in valid UTF-8; a lone surrogate is an escape sequence, as it was."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "backslashreplace")


def _refuse(constant: str) -> Any:
    # Python reads NaN and Infinity, which are no JSON.
    raise json.JSONDecodeError("a constant that is no JSON", constant, 0)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise NumberOutOfRangeError("a number is larger than a float")
    return value


def _exact_float(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else f"the number {text}"


def _exact_integer(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return f"the number {text}"
