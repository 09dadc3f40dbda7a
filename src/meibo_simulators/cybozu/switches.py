"""The settings of a domain: behavior that Cybozu does not document, and other behavior that tests need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class Switches:
    """Settings that can be changed while the domain is running. The defaults are the most likely behavior."""

    # access
    legacy_auth_520: bool = False
    """Return 520 instead of 401 for a failed authentication, as until about 2023."""
    account_state_code: str = "CB_WA01"
    """Error code for a locked account or an expired password, which is not documented."""
    basic: tuple[str, str] | None = field(default=None, repr=False)
    """The shared user and password of the domain's Basic authentication, or None if it is not enabled."""
    basic_with_token: bool = True
    """Accept a token instead of Basic authentication, because both use the same header."""
    allowed_ips: tuple[str, ...] | None = None
    login_redirect: bool = False
    """Redirect requests without credentials to /login, as third-party clients expect."""
    csv_api: bool = True
    """Serve the CSV API, which kintone.com does not have."""
    error_message: bool = True
    """Include ``message`` in errors. The errors of some gateways have a ``reason`` instead."""
    language: Literal["ja", "en"] = "ja"
    """Language of messages, which depends on the locale of the caller."""
    max_url_length: int = 8192
    """Return 414 for a longer URL. Cybozu documents X-HTTP-Method-Override for URLs above 4 or 8 KB."""

    # JSON
    size_over_limit: Literal["clamp", "refuse"] = "clamp"
    """Response to a page size over 100: reduce it to 100, as a user reported, or return 400."""
    both_ids_and_codes: Literal["refuse", "ids"] = "refuse"
    """Response to ``ids`` together with ``codes``: return 400, or ignore ``codes``."""
    administrator_in_json: bool = True
    """Include the built-in Administrator in users.json."""
    unset: Literal["null", "empty"] = "null"
    """JSON value of a string that was never set: null or an empty string."""
    custom_items: bool = True
    """Include custom items. Without them, users.json has empty lists and user.csv has 25 columns."""
    unknown_code: Literal["refuse", "empty"] = "refuse"
    concurrency_limit: int | None = None
    """Maximum number of concurrent requests, or None for no limit. Further requests are rejected with 429."""
    page_seconds: float = 0.0
    """Duration of each request in seconds, for tests of concurrency."""

    # CSV
    csv_bom: bool = False
    csv_quoting: Literal["all", "minimal"] = "all"
    csv_line_end: str = "\r\n"
    csv_delete_column: bool = True
    """Include the column of user.csv, title.csv and group.csv that deletes an entry on import."""
    csv_new_code: Literal["empty", "same", "star"] = "empty"
    """Value of the column that renames an entry on import."""
    csv_password: str = "*"  # noqa: S105 - the value that replaces every password
    csv_content_type: str = "text/csv;charset=UTF-8"
    csv_disposition: bool = True
    """Include Content-Disposition in the responses."""
    csv_sized: bool = True

    def shown(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Return an entry with unset values and custom items as set by the switches."""
        if "customItemValues" in entry and not self.custom_items:
            entry = {**entry, "customItemValues": []}
        if self.unset == "null":
            return entry
        nullable = ("birthDate", "joinDate", "primaryOrganization", "sortOrder", "locale")
        return {name: "" if value is None and name not in nullable else value for name, value in entry.items()}
