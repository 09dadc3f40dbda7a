"""The settings of a tenant: behavior that Auth0 does not document, and other behavior that tests need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Fate = Literal["completed", "failed", "expired", "error", "stuck", "vanished", "unknown_status"]


@dataclass
class Switches:
    """Settings that can be changed while the tenant is running. The defaults are the most likely behavior."""

    # tokens
    token_lifetime: int = 86400
    """Seconds until a token expires. In Auth0, it is a setting of each API."""
    token_scope: bool = True
    """Include ``scope`` in the response, as documented. No recorded response includes it."""
    refused_client: Literal["access_denied", "invalid_client"] = "access_denied"

    # export jobs
    polls_until_completed: int = 1
    """Number of responses with the status ``pending`` for each job."""
    polls_processing: int = 0
    """Number of subsequent responses with the status ``processing``, which only third parties document."""
    job_fate: Fate = "completed"
    """Outcome of jobs that are not in ``jobs.fates``."""
    progress: bool = False
    """Include percentage_done and time_left_seconds in responses."""
    summary: bool = False
    """Include a summary in the responses for completed exports, as for imports."""
    job_ttl: float = 86400.0
    """Seconds until a job is deleted."""

    # location and file
    location_ttl: float = 60.0
    location_scheme: Literal["https", "http", "none"] = "https"
    location_host: str | None = None
    """Host and port of locations, or None for the export file host."""
    redirect_files_to: str | None = None
    file_ranges: bool = True
    file_content_encoding: str | None = None
    """Content-Encoding of the export file."""
    gzip_files: bool = True
    file_damage: Callable[[bytes], bytes] | None = None
    """Function that changes the file of an export, so that all ranges have the same damage."""

    # formats
    nested_subfields: bool = False
    """Write user_metadata.x without export_as as a nested object in NDJSON, instead of a flat key."""
    csv_booleans: tuple[str, str] = ("false", "true")
    """The CSV values of False and True."""

    # connections and organizations
    hide_connection_options: bool = True
    """Omit the options of connections if the token has no read:connections_options, as Auth0 does since 2025-07."""
    members_always_next: bool = False
    """Add ``next`` to every members page that is not empty, as recorded until 2026-04."""
    members_repeat_cursor: bool = False
    """Return a cursor that never advances, as a faulty provider might."""
    members_shuffled: bool = True
    """Return the rows of a members page in random order."""
    members_refusal: Literal["both", "missing"] = "both"
    """OAuth scopes in the 403 response for a members list: both, as in the OpenAPI document, or the missing scope."""
    enabled_connections_paged: bool = True
    """Apply page and per_page, as the pagers of the SDKs require. Otherwise, each page is the complete list.

    Neither is recorded.
    """
    enabled_connections_limit_is_length: bool = True
    eventual_consistency: float = 0.0
    """Seconds until a change is visible in a members list."""

    # changes
    unknown_member: Literal["refuse", "ignore"] = "refuse"
    """Response to an unknown user id: reject the complete request with 400, or ignore the id and return 204."""
    roles_of_non_member: Literal["accept", "refuse"] = "refuse"
    """Response to a request for the roles of a user who is not a member: process the request, or return 404."""
    unknown_role: Literal["refuse", "ignore"] = "refuse"
    """Response to an unknown role id in an assignment: return 404, or ignore the id and return 204."""
    permission_servers: frozenset[str] = frozenset({"https://api.example.invalid"})
    """Identifiers of the APIs whose permissions a role can have."""
    invitation_status: Literal[200, 201] = 201
    """Status of a new invitation: 201 as recorded, or 200 as documented."""
    import_concurrency: int = 2
    """Maximum number of pending imports. Auth0 increases it on request."""
    import_seconds: float = 1.0
    """Duration of an import in seconds of the tenant's clock. Its users are visible afterwards."""

    # rate limits
    rate_tier: Literal["free", "essentials", "enterprise", "enterprise_nonproduction"] | None = None
    rate_refill: Literal["second", "window"] = "second"
    """Refill an equal share of the tokens every second, or all of them at the start of each minute."""
    retry_after: bool = False
    """Add Retry-After to 429 responses. Auth0 documents it for token quotas only."""
