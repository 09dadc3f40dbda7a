"""Serve simulators from a separate process: ``python -m meibo_simulators --users 50000``.

It prints a line of JSON with the data that a client needs, and serves until standard input closes or SIGTERM arrives.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from itertools import islice
from typing import Any

from meibo_simulators import SimulatedDomain, SimulatedTenant, Simulators
from meibo_simulators.auth0.ratelimit import TIERS
from meibo_simulators.cybozu.secure_access import SecureAccess

_SHARED_ADDRESSES = 3


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m meibo_simulators", description=__doc__)
    parser.add_argument("--users", type=int, default=1000, help="number of users of the tenant, in two connections")
    parser.add_argument("--organizations", type=int, default=10, help="number of organizations of the tenant")
    parser.add_argument("--cybozu-users", type=int, default=100, help="number of users of the domain")
    parser.add_argument("--client-certificate", action="store_true", help="require client certificates for the domain")
    parser.add_argument("--rate-tier", choices=sorted(TIERS), help="enforce the rate limits of a subscription")
    return parser.parse_args(argv)


def _description(ca_file: str, tenant: SimulatedTenant, domain: SimulatedDomain) -> dict[str, Any]:
    return {
        "ca_file": ca_file,
        "auth0": {
            tenant.name: {
                "source": tenant.source(),
                "credentials": tenant.credentials(),
                "organizations": tenant.organizations.count(),
                "organization_ids": tenant.organizations.ids()[:100],
                "role_ids": list(tenant.roles.by_id),
                "user_ids": [user["user_id"] for user in islice(tenant.expected_users(), 500)],
                "members": sum(len(members) for members in tenant.memberships.values()),
                "connections": {
                    connection.id: connection.users for connection in tenant.directory.connections.values()
                },
            }
        },
        "cybozu": {
            domain.name: {
                "source": domain.source(),
                "credentials": domain.credentials(),
                "users": domain.directory.count(),
                "rows": domain.expected_rows(),
            }
        },
    }


def _share_addresses(tenant: SimulatedTenant) -> None:
    """Give the first users of the second connection the e-mail addresses of users of the first connection."""
    directory = tenant.directory
    first, second = directory.connections.values()
    for number in range(min(_SHARED_ADDRESSES, first.users or 0, second.users or 0)):
        owner, profile = (directory.get(directory.user_id(connection.start + number)) for connection in (first, second))
        if owner and profile:
            directory.put(second.id, {**profile, "email": owner["email"]})


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until standard input closes, or SIGTERM or SIGINT arrives. Return the exit status."""
    options = _arguments(argv)
    tenant = SimulatedTenant("acme", users=options.users, organizations=options.organizations)
    _share_addresses(tenant)
    tenant.switches.rate_tier = options.rate_tier
    secure_access = SecureAccess() if options.client_certificate else None
    domain = SimulatedDomain("example", users=options.cybozu_users, secure_access=secure_access)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Simulators([tenant], [domain]) as simulators:
        print(json.dumps(_description(str(simulators.ca_file), tenant, domain), ensure_ascii=False), flush=True)

        def wait_for_end() -> None:
            # Reading from sys.stdin would lock its buffer, which fails when the interpreter exits.
            while os.read(sys.stdin.fileno(), 1):
                pass
            stop.set()

        threading.Thread(target=wait_for_end, daemon=True).start()
        while not stop.wait(0.5):
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
