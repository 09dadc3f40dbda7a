"""The settings of a domain, for behaviour that Cybozu does not document and for tests that need other behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class Switches:
    """Settings that may be changed while the domain is running. Defaults are the best-evidenced behaviour."""

    # access
    legacy_auth_520: bool = False
    """Return 520 for a failed authentication, as until about 2023, instead of 401."""
    basic: tuple[str, str] | None = field(default=None, repr=False)
    """The shared user and password of the domain's Basic authentication; None: not enabled."""
    basic_with_token: bool = True
    """Accept a token, which uses the same header, instead of Basic authentication. Not documented."""
    allowed_ips: tuple[str, ...] | None = None
    login_redirect: bool = False
    """Redirect a request without credentials to /login with 302."""
    csv_api: bool = True
    """Serve the CSV API; kintone.com has none."""
    error_message: bool = True
    """Include ``message`` in errors; the errors of some gateways only have a ``reason``."""
    language: Literal["ja", "en"] = "ja"

    longest_url: int | None = 8192
    """Return 414 for a longer URL; Cybozu documents X-HTTP-Method-Override for URLs above 4 or 8 KB."""

    # JSON
    size_over_limit: Literal["clamp", "refuse"] = "clamp"
    unset: Literal["null", "empty"] = "null"
    """JSON value of a string that was never set: null or an empty string."""
    administrator_in_json: bool = True
    custom_items: bool = True
    """Serve custom items; without them users.json has empty lists and user.csv has 25 columns."""
    both_ids_and_codes: Literal["refuse", "ids"] = "refuse"
    unknown_code: Literal["refuse", "empty"] = "refuse"
    concurrency_limit: int | None = None
    """Maximum number of concurrent requests; further requests get 429. None: no limit."""
    page_seconds: float = 0.0
    """Duration of each request in seconds, for tests of concurrency."""

    # CSV
    csv_bom: bool = False
    csv_quoting: Literal["all", "minimal"] = "all"
    csv_line_end: str = "\r\n"
    csv_content_type: str = "text/csv;charset=UTF-8"
    csv_delete_column: bool = True
    csv_new_code: Literal["empty", "same", "star"] = "empty"
    csv_hidden: str = "*"
    """Value of the password column."""
    csv_sized: bool = True
    csv_disposition: bool = True
