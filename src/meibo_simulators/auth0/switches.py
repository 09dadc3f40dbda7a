"""What Auth0's documentation leaves open, and what a test wants different, as settings of one tenant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

DAY = 86400.0
Fate = Literal["completed", "failed", "expired", "error", "stuck", "vanished", "unheard_of"]


@dataclass
class Switches:
    """Settings that may be changed while the tenant serves. A default is the best-evidenced behaviour."""

    # tokens
    token_lifetime: int = 86400
    token_scope_in_answer: bool = True
    refused_client: Literal["access_denied", "invalid_client"] = "access_denied"

    # export jobs
    polls_until_completed: int = 1
    """How many times GET /jobs/{id} still answers pending."""
    polls_processing: int = 0
    """How many of the answers after those say ``processing``, a state seen in third-party documents only."""
    job_seconds: float = 0.0
    """A job completes no earlier than this after its creation."""
    job_fate: Literal["completed", "failed", "expired", "error", "stuck", "vanished", "unheard_of"] = "completed"
    """What becomes of jobs for which ``jobs.fates`` names nothing else."""
    job_ttl: float = DAY
    progress: bool = False
    """Whether answers carry percentage_done and time_left_seconds."""
    summary: bool = False
    """Whether a completed export carries a summary, as imports do."""
    unknown_field: Literal["refuse", "absent"] = "refuse"
    """What happens to a field that cannot be exported: refused with 400, or accepted and never there."""

    # the location and the file behind it
    location_ttl: float = 60.0
    location_scheme: Literal["https", "http", "none"] = "https"
    location_host: str | None = None
    """A host (with port) to name in locations instead of the file host's own."""
    redirect_files_to: str | None = None
    file_ranges: bool = True
    file_if_range: bool = True
    file_if_match: bool = True
    """Without it, a part of an exchanged file comes as if nothing had happened, only its ETag tells."""
    file_etag: bool = True
    file_content_type: str = "application/octet-stream"
    file_content_encoding: str | None = None
    file_sized: bool = True
    """Whether the file is sent with a Content-Length, or chunked."""
    file_seconds_to_first_byte: float = 0.0
    file_bytes_per_second: float | None = None
    """How fast one connection is served; real storage gives one connection a part of what several get."""
    gzip_files: bool = True
    file_damage: Callable[[bytes], bytes] | None = None
    """Changes a job's file once and for all, so that every range of it tells the same lie."""

    # formats
    nested_subfields: bool = False
    """Whether user_metadata.x without export_as becomes a nested object in NDJSON, or a flat key."""
    csv_booleans: tuple[str, str] = ("false", "true")
    csv_line_end: str = "\n"

    # connections and organizations
    hide_connection_options: bool = True
    members_always_next: bool = False
    """Whether every members page that is not empty has a next, as recorded until 2026-04."""
    members_repeat_cursor: bool = False
    """A hostile case: the cursor never advances."""
    members_shuffled: bool = True
    """Rows inside a members page are not sorted."""
    members_refusal: Literal["both", "missing"] = "both"
    """Whether the 403 of a members list names both OAuth scopes, as in the OpenAPI document, or the missing one."""
    enabled_connections_paged: bool = True
    """Whether page and per_page are honoured, as the SDKs' pagers need it; not recorded. If not, pages never end."""
    enabled_connections_limit_is_length: bool = True
    eventual_consistency: float = 0.0
    """Seconds until a members list shows a change."""

    # changes
    unknown_member: Literal["refuse", "ignore"] = "refuse"
    """Whether an id that no user has refuses the whole request with 400, or is passed over with 204."""
    roles_of_non_member: Literal["accept", "refuse"] = "refuse"
    unknown_role: Literal["refuse", "ignore"] = "refuse"
    invitation_status: Literal[200, 201] = 201
    import_concurrency: int = 2
    import_seconds: float = 1.0
    """How long an import is pending, by the tenant's clock; its users are hidden until then."""

    # rate limits
    rate_tier: Literal["free", "essentials", "enterprise", "enterprise_nonproduction"] | None = None
    rate_refill: Literal["second", "window"] = "second"
    """Tokens come every second in equal shares, or all at the top of the minute (capped at the burst)."""
    retry_after: bool = False
    """Whether a 429 has a Retry-After; documented for token quotas only."""
