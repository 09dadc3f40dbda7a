"""Offset and checkpoint pagination of the list endpoints."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from meibo_simulators.auth0.errors import query_error
from meibo_simulators.auth0.validation import Schema, check

MAX_RECORDS = 1000
DEFAULT_SIZE = 50
# Only ASCII digits, with a length that int() accepts. Other values fail the validation of integers.
_INTEGER = re.compile(r"-?[0-9]{1,18}")

PAGE: Schema = {"type": "integer", "minimum": 0, "maximum": 1000, "description": "Page index of the results to return."}
PER_PAGE: Schema = {"type": "integer", "minimum": 1, "maximum": 100, "description": "Number of results per page."}
TAKE: Schema = {"type": "integer", "minimum": 1, "maximum": 100, "description": "Number of results per page."}
FROM: Schema = {"type": "string", "description": "Optional Id from which to start selection."}
BOOLEAN: Schema = {"type": "boolean"}
OFFSET_QUERY = {"page": PAGE, "per_page": PER_PAGE, "include_totals": BOOLEAN}
CHECKPOINT_QUERY = {"take": TAKE, "from": FROM}
FIELDS_QUERY: dict[str, Schema] = {"fields": {"type": "string"}, "include_fields": BOOLEAN}


def read_query(arguments: Mapping[str, str], properties: dict[str, Schema]) -> dict[str, Any]:
    """Return the query parameters with their types. Raise a 400 error for an invalid parameter.

    Recorded: unknown parameters are ignored.
    """
    query = {name: _typed(value, properties[name]["type"]) for name, value in arguments.items() if name in properties}
    check(query, {"type": "object", "properties": properties}, "Query")
    return query


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
class Page:
    """A page of a list with offset pagination."""

    start: int
    size: int
    totals: bool

    def of(self, rows: Sequence[Any]) -> list[Any]:
        """Return the rows of the page."""
        return list(rows[self.start : self.start + self.size])

    def body(self, name: str, rows: list[Any], total: int, limit: int | None = None) -> Any:
        """Return the rows of the page as a response: an array, or an object if the request includes totals."""
        if not self.totals:
            return rows
        return {name: rows, "start": self.start, "limit": self.size if limit is None else limit, "total": total}


def read_page(query: dict[str, Any], message: str | None = None) -> Page:
    """Return the requested page. Raise a 400 error if it exceeds the first 1,000 records."""
    size = query.get("per_page", DEFAULT_SIZE)
    start = query.get("page", 0) * size
    if start + size > MAX_RECORDS:
        default = f"Requesting page exceeds the allowed maximum of {MAX_RECORDS} records."
        raise query_error(message or default, "invalid_paging")
    return Page(start, size, query.get("include_totals", False))


def list_body(query: dict[str, Any], name: str, rows: Sequence[dict[str, Any]], id_name: str) -> Any:
    """Return the requested page of a list that supports both kinds of pagination."""
    if "take" in query or "from" in query:
        start = int(read_cursor(query["from"])[0]) if "from" in query else 0
        end = start + query.get("take", DEFAULT_SIZE)
        following = {"next": cursor(end, rows[end][id_name])} if end < len(rows) else {}
        return {name: rows[start:end], **following}
    page = read_page(query)
    return page.body(name, page.of(rows), len(rows))


def cursor(created: float, identifier: str) -> str:
    """Return the opaque cursor of a row: its time and id in base64url, as in the recordings."""
    text = f"{datetime.fromtimestamp(created, UTC):%Y-%m-%d %H:%M:%S.%f}UTC,{identifier}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(text: str) -> tuple[float, str]:
    """Return the time and the id in a cursor. Raise a 400 error for an invalid cursor."""
    try:
        decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        moment, _, identifier = decoded.partition("UTC,")
        parsed = datetime.strptime(moment, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
    except (binascii.Error, ValueError):
        raise query_error("Query validation error: 'Invalid cursor' on property from.") from None
    return parsed.timestamp(), identifier


def comma_separated(value: str, allowed: tuple[str, ...], name: str) -> list[str]:
    """Return the values of a list parameter. Raise a 400 error for a value that is not allowed."""
    values = value.split(",")
    if not set(values) <= set(allowed):
        raise query_error(
            f"Query validation error: 'String '{value}' does not match pattern. Must be a comma separated list "
            f"of the following values: {','.join(allowed)}' on property {name} (Comma-separated list of fields)."
        )
    return values
