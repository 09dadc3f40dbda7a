"""Measure the pace of changes from the queue in real time: the real function, moto's SQS, the real limits.

``make bench-changes`` sends ids for a minute and a half of the limit; the same load for ten minutes runs in simulated
time in ``tests/unit/changes/test_load.py``.
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

BURST, A_MINUTE, A_REQUEST = 20, 200, 10


def main() -> int:
    """Return 0 where the queue drained at 95 % of the limit or more."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_changes", description=__doc__)
    parser.add_argument("--ids", type=int, default=3000, help="ids to add (default: %(default)s)")
    parser.add_argument("--organizations", type=int, default=12)
    parser.add_argument("--ids-a-message", type=int, default=50)
    options = parser.parse_args()
    tenant = SimulatedTenant("acme", users=options.ids, organizations=options.organizations, members=0)
    tenant.switches.rate_tier = "essentials"
    people = [user["user_id"] for user in tenant.expected_users()]
    with contextlib.ExitStack() as stack:
        simulators = stack.enter_context(Simulators([tenant], []))
        log = stack.enter_context(Path(os.devnull).open("w"))
        aws = stack.enter_context(local_aws(environment=simulators.environment()))
        aws.configure({"sources": [tenant.source({"dataset": "users"})]}, {"meibo/acme": tenant.credentials()})
        clear_clients()
        logger.setLevel("ERROR")
        organizations = tenant.organizations.ids()
        messages = 0
        for start in range(0, options.ids, options.ids_a_message):
            members = people[start : start + options.ids_a_message]
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
            drained = aws.changes.source.drain(options.ids / A_REQUEST / A_MINUTE * 60 * 3 + 60)
        seconds = time.monotonic() - began
        lines = [json.loads(line) for key in aws.keys("changes/") for line in aws.read(key).decode().splitlines()]
        dlq_messages = aws.changes.dead_letter_count()
    requests = [one.status for one in tenant.requests if one.path.endswith("/members")]
    at_best = max(0, len([status for status in requests if status == 204]) - BURST) / A_MINUTE * 60
    twice = sum(times > 1 for times in Counter((line["message_id"], line["member"]) for line in lines).values())
    share = at_best / seconds
    print(  # the report is what this is for
        f"{options.ids:,} ids in {messages} messages of {options.organizations} organizations\n"
        f"drained      {'yes' if drained else 'NO'} in {seconds:.1f} s; the limit allows {at_best:.1f} s\n"
        f"of the limit {share:.1%}\n"
        f"requests     {requests.count(204)} answered 204, {requests.count(429)} answered 429"
        f" ({requests.count(429) / max(seconds / 60, 1e-9):.2f} a minute)\n"
        f"outcomes     {len(lines):,}, {twice} twice, {options.ids - len(lines)} lost, {dlq_messages} DLQ messages"
    )
    good = drained and share >= 0.95 and requests.count(429) <= seconds / 60 and not twice and not dlq_messages
    return 0 if good and len(lines) == options.ids else 1


if __name__ == "__main__":
    raise SystemExit(main())
