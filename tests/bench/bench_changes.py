"""Measure the rate at which changes on the queue are applied in real time, with the rate limits of Auth0.

``make bench-changes`` sends as many ids as the limit allows in 90 seconds to the function, through moto's SQS.
``tests/unit/changes/test_load.py`` applies the load of ten minutes in simulated time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from collections import Counter
from pathlib import Path

from meibo.observability import logger
from meibo.providers import clear_clients
from meibo_local.aws import local_aws
from meibo_simulators import SimulatedTenant, Simulators

BURST, REQUESTS_PER_MINUTE, IDS_PER_REQUEST = 20, 200, 10


def main() -> int:
    """Return 0 if all changes were applied once, at 95 % or more of the limit, with at most one 429 per minute."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_changes", description=__doc__)
    parser.add_argument("--ids", type=int, default=3000, help="ids to add (default: %(default)s)")
    parser.add_argument("--organizations", type=int, default=12)
    parser.add_argument("--ids-per-message", type=int, default=50)
    options = parser.parse_args()
    tenant = SimulatedTenant("acme", users=options.ids, organizations=options.organizations, members=0)
    tenant.switches.rate_tier = "essentials"
    user_ids = [user["user_id"] for user in tenant.expected_users()]
    with contextlib.ExitStack() as stack:
        simulators = stack.enter_context(Simulators([tenant], []))
        log = stack.enter_context(Path(os.devnull).open("w"))
        aws = stack.enter_context(local_aws(environment=simulators.environment()))
        aws.configure({"sources": [tenant.source({"dataset": "users"})]}, {"meibo/acme": tenant.credentials()})
        clear_clients()
        logger.setLevel("ERROR")
        organizations = tenant.organizations.ids()
        messages = 0
        for start in range(0, options.ids, options.ids_per_message):
            members = user_ids[start : start + options.ids_per_message]
            change = {
                "version": 1,
                "change_id": f"bench-{start}",
                "source": "acme",
                "organization_id": organizations[messages % len(organizations)],
                "action": "add",
                "members": members,
            }
            aws.changes.send(change)
            messages += 1
        began = time.monotonic()
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            drained = aws.changes.source.drain(options.ids / IDS_PER_REQUEST / REQUESTS_PER_MINUTE * 60 * 3 + 60)
        seconds = time.monotonic() - began
        lines = [json.loads(line) for key in aws.keys("changes/") for line in aws.read(key).decode().splitlines()]
        dlq_messages = aws.changes.dead_letter_count()
    requests = [request.status for request in tenant.requests if request.path.endswith("/members")]
    minimum = max(0, requests.count(204) - BURST) / REQUESTS_PER_MINUTE * 60
    repeated = sum(count > 1 for count in Counter((line["message_id"], line["member"]) for line in lines).values())
    share = minimum / seconds
    print(
        f"{options.ids:,} ids in {messages} messages of {options.organizations} organizations\n"
        f"drained      {'yes' if drained else 'NO'} in {seconds:.1f} s; the minimum at the limit is {minimum:.1f} s\n"
        f"share of the limit {share:.1%}\n"
        f"responses    {requests.count(204)} with 204, {requests.count(429)} with 429"
        f" ({requests.count(429) / max(seconds / 60, 1e-9):.2f} per minute)\n"
        f"outcomes     {len(lines):,}, {repeated} repeated, {options.ids - len(lines)} missing,"
        f" {dlq_messages} DLQ messages"
    )
    good = drained and share >= 0.95 and requests.count(429) <= seconds / 60 and not repeated and not dlq_messages
    return 0 if good and len(lines) == options.ids else 1


if __name__ == "__main__":
    raise SystemExit(main())
