"""Read request parameters in every encoding that cybozu.com accepts."""

from __future__ import annotations

import json
import re
from typing import Any

from flask import request

from meibo_simulators.cybozu.errors import CybozuError, invalid

LIMIT = 100
_INDEXED = re.compile(r"(\w+)\[([0-9]{0,18})\]")
_INTEGER = re.compile(r"-?[0-9]{1,18}")


def parameters() -> dict[str, Any]:
    """Return the parameters of the query (``ids[0]=…``, ``ids%5B0%5D=…``, ``ids=…``) or of a JSON body.

    A JSON body is also read on GET. Unknown parameters are ignored, as in the real service.
    """
    raw = request.get_data()
    if raw and (request.content_type or "").startswith("application/json"):
        try:
            body = json.loads(raw)
        except ValueError:
            raise CybozuError("CB_IJ01") from None
        if not isinstance(body, dict):
            raise CybozuError("CB_IJ01")
        return body
    given: dict[str, Any] = {}
    indexed: dict[str, dict[int, str]] = {}
    for key, value in request.args.items(multi=True):
        match = _INDEXED.fullmatch(key)
        if match is None:
            given[key] = value
        else:
            values = indexed.setdefault(match.group(1), {})
            values[int(match.group(2) or len(values))] = value
    for key, values in indexed.items():
        given[key] = [values[position] for position in sorted(values)]
    return given


def listed(given: dict[str, Any], name: str) -> list[str]:
    """Return the values of a list parameter, at most 100; a single value may be without brackets."""
    value = given.get(name)
    if value is None:
        return []
    values = [str(item) for item in value] if isinstance(value, list) else [str(value)]
    if len(values) > LIMIT:
        raise invalid(name, f"{LIMIT}個以下で指定してください。")
    return values


def paging(given: dict[str, Any], size_over_limit: str) -> tuple[int, int]:
    """Return (offset, size). A size over 100 is reduced to 100 unless the switch rejects it."""
    offset, size = _number(given, "offset", 0), _number(given, "size", LIMIT)
    if offset < 0:
        raise invalid("offset", "0以上で指定してください。")
    if size < 1:
        raise invalid("size", "1以上で指定してください。")
    if size > LIMIT and size_over_limit == "refuse":
        raise invalid("size", f"{LIMIT}以下で指定してください。")
    return offset, min(size, LIMIT)


def _number(given: dict[str, Any], name: str, default: int) -> int:
    text = str(given.get(name, default))
    if not _INTEGER.fullmatch(text):
        raise invalid(name, "数値で指定してください。")
    return int(text)


def required(given: dict[str, Any], name: str) -> str:
    """Return a required parameter. Raise the error response if it is missing or empty."""
    value = given.get(name)
    if value is None or value == "" or isinstance(value, list):
        raise invalid(name, "必須です。")
    return str(value)
