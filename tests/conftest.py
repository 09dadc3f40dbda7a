"""Settings that all tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# CI machines are shared and sometimes slow, so a slow example is not a failure. No other check is relaxed.
settings.register_profile("meibo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("meibo")
