"""Rate limits by subscription: token buckets that are refilled at each full second of the tenant's clock."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from meibo_simulators.auth0.errors import ApiError, OAuthError
from meibo_simulators.auth0.switches import Switches
from meibo_simulators.site import Clock

# (burst, tokens, seconds): the bucket has the capacity ``burst`` and receives ``tokens`` in ``seconds``.
# https://auth0.com/docs/troubleshoot/customer-support/operational-policies/rate-limit-policy
Limit = tuple[int, int, int]
GLOBAL = "global"
TIERS: dict[str, dict[str, Limit]] = {
    "free": {GLOBAL: (2, 2, 1)},
    "essentials": {
        "other": (10, 150, 60),
        "connections": (5, 50, 60),
        "organizations": (5, 50, 60),
        "organization": (20, 200, 60),
        "members": (40, 500, 60),
        "write_members": (20, 200, 60),
        "member_roles": (20, 200, 60),
        "write_member_roles": (20, 200, 60),
        "enabled_connections": (5, 50, 60),
        "users": (40, 500, 60),
    },
    "enterprise": {
        GLOBAL: (50, 16, 1),
        "organizations": (10, 100, 60),
        "organization": (10, 100, 60),
        "members": (40, 500, 60),
        "write_members": (20, 200, 60),
        "member_roles": (20, 200, 60),
        "write_member_roles": (20, 200, 60),
        "enabled_connections": (10, 100, 60),
        "invitations": (20, 200, 60),
        "write_invitations": (20, 200, 60),
    },
}
TIERS["enterprise_nonproduction"] = {**TIERS["enterprise"], GLOBAL: (10, 2, 1)}

# The Authentication API has separate limits.
TOKENS: dict[str, Limit] = {"free": (30, 5, 1), "essentials": (25, 25, 1), "enterprise": (100, 100, 1)}
TOKENS["enterprise_nonproduction"] = TOKENS["enterprise"]


@dataclass
class _Bucket:
    burst: int
    tokens: float
    filled: int


class RateLimits:
    """The token buckets of a tenant. ``refused`` counts the rejected requests."""

    def __init__(self, switches: Switches, now: Clock) -> None:
        self._switches = switches
        self._now = now
        self._lock = threading.Lock()
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self.refused = 0

    def take(self, endpoint: str) -> dict[str, str]:
        """Take a token from the global bucket and the endpoint's bucket. Return the headers, or raise a 429 error."""
        tier = self._switches.rate_tier
        if tier is None:
            return {}
        limits = TIERS[tier]
        names = [name for name in (GLOBAL, endpoint if endpoint in limits else "other") if name in limits]
        buckets = [(name, limits[name]) for name in names]
        empty, headers = self._take(tier, buckets)
        if empty is None:
            return headers
        if self._switches.retry_after:
            headers["Retry-After"] = str(max(1, math.ceil(int(headers["x-ratelimit-reset"]) - self._now())))
        message = (
            "Global limit has been reached"
            if empty == GLOBAL
            else "Too many requests. Check the X-RateLimit-Limit, X-RateLimit-Remaining and X-RateLimit-Reset headers."
        )
        raise ApiError(429, message, "too_many_requests", headers=headers)

    def take_for_token(self) -> dict[str, str]:
        """Take a token from the bucket of POST /oauth/token. Return the headers, or raise a 429 error."""
        tier = self._switches.rate_tier
        if tier is None:
            return {}
        empty, headers = self._take(tier, [("token", TOKENS[tier])])
        if empty is not None:
            raise OAuthError(429, "too_many_requests", "Global limit has been reached", headers)
        return headers

    def _take(self, tier: str, limits: list[tuple[str, Limit]]) -> tuple[str | None, dict[str, str]]:
        """Take a token from each bucket, or from none if a bucket is empty.

        Return the name and the headers of the empty bucket, or None and the headers of the last bucket.
        """
        with self._lock:
            buckets = [(name, self._filled(tier, name, limit), limit) for name, limit in limits]
            for name, bucket, limit in buckets:
                if bucket.tokens < 1:
                    self.refused += 1
                    return name, self._headers(bucket, limit)
            for _, bucket, _ in buckets:
                bucket.tokens -= 1
            return None, self._headers(*buckets[-1][1:])

    def _filled(self, tier: str, name: str, limit: Limit) -> _Bucket:
        burst, tokens, seconds = limit
        now = math.floor(self._now())
        bucket = self._buckets.setdefault((tier, name), _Bucket(burst, burst, now))
        step = seconds if self._switches.rate_refill == "window" else 1
        steps = now // step - bucket.filled // step
        if steps > 0:
            bucket.tokens = min(burst, bucket.tokens + steps * tokens * step / seconds)
            bucket.filled = now
        return bucket

    def _reset(self, bucket: _Bucket, limit: Limit) -> int:
        _, tokens, seconds = limit
        if self._switches.rate_refill == "window":
            return bucket.filled // seconds * seconds + seconds
        missing = 1 - (bucket.tokens % 1) if bucket.tokens % 1 else 1
        return bucket.filled + max(1, math.ceil(missing * seconds / tokens - 1e-9))

    def _headers(self, bucket: _Bucket, limit: Limit) -> dict[str, str]:
        return {
            "x-ratelimit-limit": str(bucket.burst),
            "x-ratelimit-remaining": str(math.floor(bucket.tokens)),
            "x-ratelimit-reset": str(self._reset(bucket, limit)),
        }
