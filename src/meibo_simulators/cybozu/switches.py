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
    account_state_code: str = "CB_WA01"
    """Code of the error for a locked account or an expired password, which is not documented."""
    basic: tuple[str, str] | None = field(default=None, repr=False)
    """The shared user and password of the domain's Basic authentication; None: not enabled."""
    basic_with_token: bool = True
    """Accept a token, which uses the same header, instead of Basic authentication."""
    allowed_ips: tuple[str, ...] | None = None
    login_redirect: bool = False
    """Redirect a request without credentials to /login with 302, as third-party clients expect."""
    csv_api: bool = True
    """Serve the CSV API; kintone.com has none."""
    error_message: bool = True
    """Include ``message`` in errors; the errors of some gateways only have a ``reason``."""
    language: Literal["ja", "en"] = "ja"
    """Language of messages, which depends on the locale of the caller."""
    max_url_length: int = 8192
    """Return 414 for a longer URL; Cybozu documents X-HTTP-Method-Override for URLs above 4 or 8 KB."""

    # JSON
    size_over_limit: Literal["clamp", "refuse"] = "clamp"
    """Handling of a page size over 100: reduce it to 100, as recorded in a comment, or return 400."""
    both_ids_and_codes: Literal["refuse", "ids"] = "refuse"
    """Handling of ``ids`` together with ``codes``: return 400, or ignore ``codes``."""
    administrator_in_json: bool = True
    """Include the built-in Administrator in users.json."""
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
    csv_delete_column: bool = True
    """Write the last column of user.csv, title.csv and group.csv, which deletes an entry on import."""
    csv_new_code: Literal["empty", "same", "star"] = "empty"
    """Value of the column that renames an entry on import."""
    csv_password: str = "*"  # noqa: S105 - the value that replaces every password
    csv_content_type: str = "text/csv;charset=UTF-8"
    csv_disposition: bool = True
    """Include Content-Disposition in responses."""
    csv_sized: bool = True

    def shown(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Return an entry with unset values and custom items as set by the switches."""
        if "customItemValues" in entry and not self.custom_items:
            entry = {**entry, "customItemValues": []}
        if self.unset == "null":
            return entry
        nullable = ("birthDate", "joinDate", "primaryOrganization", "sortOrder", "locale")
        return {name: "" if value is None and name not in nullable else value for name, value in entry.items()}
