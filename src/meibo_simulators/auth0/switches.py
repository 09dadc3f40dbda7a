"""The settings of a tenant, for behaviour that Auth0 does not document and for tests that need other behaviour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Fate = Literal["completed", "failed", "expired", "error", "stuck", "vanished", "unheard_of"]


@dataclass
class Switches:
    """Settings that may be changed while the tenant is running. Defaults are the best-evidenced behaviour."""

    # tokens
    token_lifetime: int = 86400
    """Seconds until a token expires, which is a setting of an API."""
    token_scope: bool = True
    """Include ``scope`` in the response, as documented; no recorded response has it."""
    refused_client: Literal["access_denied", "invalid_client"] = "access_denied"

    # export jobs
    polls_until_completed: int = 1
    """Number of GET /jobs/{id} responses with status ``pending``."""
    polls_processing: int = 0
    """Number of subsequent responses with status ``processing``, which only third-party documents mention."""
    job_fate: Fate = "completed"
    """Outcome of jobs that are not in ``jobs.fates``."""
    progress: bool = False
    """Include percentage_done and time_left_seconds in responses."""
    summary: bool = False
    """Include a summary in completed exports, as in imports."""
    job_ttl: float = 86400.0
    """Seconds until a job is deleted."""

    # location and file
    location_ttl: float = 60.0
    location_scheme: Literal["https", "http", "none"] = "https"
    location_host: str | None = None
    """Host and port of locations; None: those of the export file host."""
    redirect_files_to: str | None = None
    file_ranges: bool = True
    file_content_encoding: str | None = None
    """Content-Encoding of the export file."""
    gzip_files: bool = True
    file_damage: Callable[[bytes], bytes] | None = None
    """Function that changes the file of a job once, so that all ranges contain the same damage."""

    # formats
    nested_subfields: bool = False
    """Write user_metadata.x without export_as as a nested object in NDJSON; if off, as a flat key."""
    csv_booleans: tuple[str, str] = ("false", "true")
    """The CSV values of False and True."""

    # connections and organizations
    hide_connection_options: bool = True
    """Omit the options of connections without read:connections_options, as since 2025-07."""
    members_always_next: bool = False
    """Add ``next`` to every members page that is not empty, as recorded until 2026-04."""
    members_repeat_cursor: bool = False
    """Return a cursor that never advances (a hostile provider)."""
    members_shuffled: bool = True
    """Return the rows of a members page in random order."""
    members_refusal: Literal["both", "missing"] = "both"
    """OAuth scopes in the 403 of a members list: both, as in the OpenAPI document, or only the missing scope."""
    enabled_connections_paged: bool = True
    """Apply page and per_page, as the SDKs' pagers require; not recorded. If off, every page is the complete list."""
    enabled_connections_limit_is_length: bool = True
    eventual_consistency: float = 0.0
    """Seconds until a change is visible in a members list."""

    # changes
    unknown_member: Literal["refuse", "ignore"] = "refuse"
    """Handling of an unknown user id: reject the complete request with 400, or ignore the id and return 204."""
    roles_of_non_member: Literal["accept", "refuse"] = "refuse"
    """Handling of a request for the roles of a user who is not a member: process it, or return 404."""
    unknown_role: Literal["refuse", "ignore"] = "refuse"
    """Handling of an unknown role id in an assignment: return 404, or ignore the id and return 204."""
    permission_servers: frozenset[str] = frozenset({"https://api.example.invalid"})
    """Identifiers of the APIs whose permissions a role can have."""
    invitation_status: Literal[200, 201] = 201
    """Status of a new invitation: 201 as recorded, or 200 as documented."""
    import_concurrency: int = 2
    """Maximum number of pending imports; Auth0 raises it on request."""
    import_seconds: float = 1.0
    """Seconds (of the tenant's clock) that an import is pending; its users are hidden until then."""

    # rate limits
    rate_tier: Literal["free", "essentials", "enterprise", "enterprise_nonproduction"] | None = None
    rate_refill: Literal["second", "window"] = "second"
    """Refill the tokens every second in equal shares, or all at the start of the minute (up to the burst)."""
    retry_after: bool = False
    """Add Retry-After to a 429; documented for token quotas only."""
