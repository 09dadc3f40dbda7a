"""What Cybozu's documentation leaves open, and what a test wants different, as settings of one domain."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class Switches:
    """Settings that may be changed while the domain serves. A default is the best-evidenced behaviour."""

    # access
    legacy_auth_520: bool = False
    """Whether a failed authentication is answered 520, as until about 2023, instead of 401."""
    basic: tuple[str, str] | None = field(default=None, repr=False)
    """The shared user and password of the Basic gate, if the domain has one."""
    basic_with_token: bool = True
    """Whether a token, which takes Basic's header, passes a Basic gate. Not documented."""
    allowed_ips: tuple[str, ...] | None = None
    login_redirect: bool = False
    """Whether a request without credentials is sent to /login with 302."""
    csv_api: bool = True
    """kintone.com has no CSV API."""
    error_message: bool = True
    """Some gateways' errors have only a ``reason``."""
    language: Literal["ja", "en"] = "ja"

    longest_url: int | None = 8192
    """Longer ones are answered 414; the documents say to use X-HTTP-Method-Override above 4 or 8 KB."""

    # JSON
    size_over_limit: Literal["clamp", "refuse"] = "clamp"
    unset: Literal["null", "empty"] = "null"
    """How a text that was never set is printed."""
    administrator_in_json: bool = True
    custom_items: bool = True
    """Whether the domain has custom items; without them users.json has empty lists and user.csv 25 columns."""
    both_ids_and_codes: Literal["refuse", "ids"] = "refuse"
    unknown_code: Literal["refuse", "empty"] = "refuse"
    concurrency_limit: int | None = None
    """How many requests may run at once; one more is answered 429. None: no limit."""
    page_seconds: float = 0.0
    """How long each JSON page takes, for tests of concurrency."""

    # CSV
    csv_bom: bool = False
    csv_quoting: Literal["all", "minimal"] = "all"
    csv_line_end: str = "\r\n"
    csv_content_type: str = "text/csv;charset=UTF-8"
    csv_delete_column: bool = True
    csv_new_code: Literal["empty", "same", "star"] = "empty"
    csv_hidden: str = "*"
    """What the password column holds."""
    csv_sized: bool = True
    csv_disposition: bool = True
