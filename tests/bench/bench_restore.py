"""Measure the rate at which memberships are restored in simulated time, through the queue and directly."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from meibo.observability import logger
from tests.support.membership_restores import MembershipRestore

MIN_SHARE = 0.95
WAYS = {
    "through the queue": MembershipRestore.through_queue,
    "without the queue": MembershipRestore.without_queue,
}


def main() -> int:
    """Return 0 if every restore reaches 95 % of the rate limit without a 429 response."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_restore", description=__doc__)
    parser.add_argument("--memberships", type=int, default=100_000)
    parser.add_argument("--role-interval", type=int, default=10, help="one of N memberships has a role (default: 10)")
    options = parser.parse_args()
    # The function logs each processed message.
    logger.setLevel("ERROR")
    print("| memberships | roles | sent | simulated seconds | share of the limit | 429 responses |")
    print("| --- | --- | --- | --- | --- | --- |")
    good = True
    for way, run in WAYS.items():
        with tempfile.TemporaryDirectory(prefix="meibo-restore-") as folder:
            restore = MembershipRestore(
                Path(folder), memberships=options.memberships, role_interval=options.role_interval
            )
            pace = run(restore)
            restore.check()
        good &= pace.share >= MIN_SHARE and not pace.refused
        cells = (f"{pace.memberships:,}", f"{pace.roles:,}", way, f"{pace.seconds:,.0f}", f"{pace.share:.1%}")
        print(f"| {' | '.join(cells)} | {pace.refused} |", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
