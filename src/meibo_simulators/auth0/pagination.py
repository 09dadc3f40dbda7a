"""Offset and checkpoint pagination of the list endpoints."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from meibo_simulators.auth0.responses import ApiError
from meibo_simulators.auth0.validation import Schema, check

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_RECORDS = 1000
DEFAULT_SIZE = 50
# ASCII digits only, and few enough for int(); any other value fails the integer validation.
_INTEGER = re.compile(r"-?[0-9]{1,18}")

PAGE: Schema = {"type": "integer", "minimum": 0, "maximum": 1000, "description": "Page index of the results to return."}
PER_PAGE: Schema = {"type": "integer", "minimum": 1, "maximum": 100, "description": "Number of results per page."}
TAKE: Schema = {"type": "integer", "minimum": 1, "maximum": 100, "description": "Number of results per page."}
FROM: Schema = {"type": "string", "description": "Optional Id from which to start selection."}
BOOLEAN: Schema = {"type": "boolean"}
OFFSET_QUERY = {"page": PAGE, "per_page": PER_PAGE, "include_totals": BOOLEAN}
CHECKPOINT_QUERY = {"take": TAKE, "from": FROM}
FIELDS_QUERY: dict[str, Schema] = {"fields": {"type": "string"}, "include_fields": BOOLEAN}


def read_query(arguments: dict[str, str], properties: dict[str, Schema]) -> dict[str, Any]:
    """Return the typed query parameters. Raise the 400 of an invalid parameter.

    Recorded: unknown parameters are ignored.
    """
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in properties:
            found[name] = _typed(value, properties[name]["type"])
    check(found, {"type": "object", "properties": properties}, "Query")
    return found


def _typed(value: str, kind: str) -> Any:
    """Return a parameter converted to its type, or unchanged if it cannot be converted."""
    if kind == "integer" and _INTEGER.fullmatch(value):
        return int(value)
    if kind == "boolean" and value in ("true", "false"):
        return value == "true"
    return value


def with_fields(body: dict[str, Any], query: dict[str, Any], always: Sequence[str] = ()) -> dict[str, Any]:
    """Return the properties selected by ``fields`` and ``include_fields``, and those in ``always``."""
    if not query.get("fields"):
        return body
    named, included = set(query["fields"].split(",")), query.get("include_fields", True)
    return {name: value for name, value in body.items() if name in always or (name in named) == included}


@dataclass(frozen=True)
class Slice:
    """A page by offset."""

    start: int
    size: int
    totals: bool


def offset(query: dict[str, Any], size: int = DEFAULT_SIZE, text: str | None = None) -> Slice:
    """Return the requested page. Raise the 400 of records after the first 1,000."""
    per_page = query.get("per_page", size)
    start = query.get("page", 0) * per_page
    if start + per_page > MAX_RECORDS:
        message = text or f"Requesting page exceeds the allowed maximum of {MAX_RECORDS} records."
        raise ApiError(400, message, "invalid_paging", rate_headers=False)
    return Slice(start, per_page, query.get("include_totals", False))


def by_offset(name: str, rows: Sequence[Any], page: Slice) -> Any:
    """Return a page of rows: an array, or an object if the request includes totals."""
    chosen = list(rows[page.start : page.start + page.size])
    if not page.totals:
        return chosen
    return {name: chosen, "start": page.start, "limit": page.size, "total": len(rows)}


def cursor(created: float, identifier: str) -> str:
    """Return the opaque cursor of a row: its time and id in base64url, as recorded."""
    text = f"{datetime.fromtimestamp(created, UTC):%Y-%m-%d %H:%M:%S.%f}UTC,{identifier}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(text: str) -> tuple[float, str]:
    """Return the time and the id in a cursor. Raise the 400 of an invalid cursor."""
    try:
        decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        moment, _, identifier = decoded.partition("UTC,")
        parsed = datetime.strptime(moment, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
    except (binascii.Error, ValueError):
        message = "Query validation error: 'Invalid cursor' on property from."
        raise ApiError(400, message, "invalid_query_string", rate_headers=False) from None
    return parsed.timestamp(), identifier


def comma_separated(value: str, allowed: tuple[str, ...], name: str) -> list[str]:
    """Return the values of a list parameter. Raise the 400 of a value that is not allowed."""
    values = value.split(",")
    if not set(values) <= set(allowed):
        raise ApiError(
            400,
            f"Query validation error: 'String '{value}' does not match pattern. Must be a comma separated list "
            f"of the following values: {','.join(allowed)}' on property {name} (Comma-separated list of fields).",
            "invalid_query_string",
            rate_headers=False,
        )
    return values
