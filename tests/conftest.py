"""Settings that all tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The machines that run this are shared and slow at times: a slow example is not a failure. Nothing else is relaxed.
settings.register_profile("meibo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("meibo")
