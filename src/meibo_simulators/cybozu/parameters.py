"""The parameters of a request in every encoding that cybozu.com accepts."""

from __future__ import annotations

import json
import re
from typing import Any

from flask import request

from meibo_simulators.cybozu.directory import Entry
from meibo_simulators.cybozu.errors import CybozuError, invalid
from meibo_simulators.cybozu.switches import Switches

LIMIT = 100
_INDEXED = re.compile(r"(\w+)\[([0-9]{0,18})\]")
_INTEGER = re.compile(r"-?[0-9]{1,18}")


class Parameters:
    """The parameters of the current request. The methods raise the error response to an invalid parameter."""

    def __init__(self, switches: Switches) -> None:
        self._values = _read()
        self._switches = switches

    def required(self, name: str) -> str:
        """Return a required parameter."""
        value = self._values.get(name)
        if value is None or value == "" or isinstance(value, list):
            raise invalid(name, "必須です。")
        return str(value)

    def selection(self) -> tuple[str, list[str]]:
        """Return the property that selects entries, ``id`` or ``code``, and its values."""
        ids, codes = self._list("ids"), self._list("codes")
        if ids and codes and self._switches.both_ids_and_codes == "refuse":
            raise invalid("ids", "ids と codes は同時に指定できません。")
        return ("id", ids) if ids else ("code", codes)

    def page(self) -> slice:
        """Return the requested range of entries. A size over 100 is reduced to 100 unless the switch rejects it."""
        offset, size = self._integer("offset", 0), self._integer("size", LIMIT)
        if offset < 0:
            raise invalid("offset", "0以上で指定してください。")
        if size < 1:
            raise invalid("size", "1以上で指定してください。")
        if size > LIMIT and self._switches.size_over_limit == "refuse":
            raise invalid("size", f"{LIMIT}以下で指定してください。")
        return slice(offset, offset + min(size, LIMIT))

    def select(self, entries: list[Entry]) -> list[Entry]:
        """Return the requested page of the selected entries, or of all entries if the request selects none."""
        (key, values), page = self.selection(), self.page()
        return [entry for entry in entries if not values or entry[key] in values][page]

    def _list(self, name: str) -> list[str]:
        """Return the up to 100 values of a list parameter. The name of a single value may omit the brackets."""
        value = self._values.get(name)
        if value is None:
            return []
        values = [str(item) for item in value] if isinstance(value, list) else [str(value)]
        if len(values) > LIMIT:
            raise invalid(name, f"{LIMIT}個以下で指定してください。")
        return values

    def _integer(self, name: str, default: int) -> int:
        text = str(self._values.get(name, default))
        if not _INTEGER.fullmatch(text):
            raise invalid(name, "数値で指定してください。")
        return int(text)


def _read() -> dict[str, Any]:
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
    values: dict[str, Any] = {}
    indexed: dict[str, dict[int, str]] = {}
    for key, value in request.args.items(multi=True):
        match = _INDEXED.fullmatch(key)
        if match is None:
            values[key] = value
        else:
            items = indexed.setdefault(match.group(1), {})
            items[int(match.group(2) or len(items))] = value
    for key, items in indexed.items():
        values[key] = [items[position] for position in sorted(items)]
    return values
