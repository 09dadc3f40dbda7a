"""The settings of a domain, for behaviour that Cybozu does not document and for tests that need other behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class Switches:
    """Settings that may be changed while the domain is running. Defaults are the best-evidenced behaviour."""

    # access
    legacy_auth_520: bool = False
    """Return 520 for a failed authentication, as until about 2023, instead of 401."""
    basic: tuple[str, str] | None = field(default=None, repr=False)
    """The shared user and password of the domain's Basic authentication; None: not enabled."""
    allowed_ips: tuple[str, ...] | None = None
    csv_api: bool = True
    """Serve the CSV API; kintone.com has none."""

    # JSON
    unset: Literal["null", "empty"] = "null"
    """JSON value of a string that was never set: null or an empty string."""
    custom_items: bool = True
    """Serve custom items; without them users.json has empty lists and user.csv has 25 columns."""
    unknown_code: Literal["refuse", "empty"] = "refuse"
    concurrency_limit: int | None = None
    """Maximum number of concurrent requests; further requests get 429. None: no limit."""
    page_seconds: float = 0.0
    """Duration of each request in seconds, for tests of concurrency."""

    # CSV
    csv_bom: bool = False
    csv_quoting: Literal["all", "minimal"] = "all"
    csv_line_end: str = "\r\n"
    csv_sized: bool = True

    def shown(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Return an entry with unset values and custom items as set by the switches."""
        if "customItemValues" in entry and not self.custom_items:
            entry = {**entry, "customItemValues": []}
        if self.unset == "null":
            return entry
        nullable = ("birthDate", "joinDate", "primaryOrganization", "sortOrder", "locale")
        return {name: "" if value is None and name not in nullable else value for name, value in entry.items()}
