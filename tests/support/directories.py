"""Tenants with roles, organizations and members, whose archives are restored to other tenants."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from meibo.providers import clear_clients
from meibo_simulators import SimulatedTenant, Simulators
from tests.integration.cli.conftest import invoke

USERS = 60
DATASETS = ("users", "roles", "organizations", "role_members", "members")


def source_tenant(**options: Any) -> SimulatedTenant:
    """Return a tenant with ten organizations, one without members and one without connections."""
    tenant = SimulatedTenant("acme", **{"users": USERS, "organizations": 10, "members": 6, **options})
    tenant.switches.polls_until_completed = 0
    return tenant


def empty_tenant(**options: Any) -> SimulatedTenant:
    """Return a tenant with the same users and connections, but without roles and organizations."""
    tenant = SimulatedTenant("copy", **{"users": USERS, "organizations": 0, "roles": 0, **options})
    tenant.switches.polls_until_completed = 0
    return tenant


@contextmanager
def running(*tenants: SimulatedTenant, clock: Any = None) -> Iterator[None]:
    """Serve the tenants, and set the credentials of the source acme to those of the first tenant."""
    options = {} if clock is None else {"clock": clock}
    with Simulators(list(tenants), **options) as simulators, pytest.MonkeyPatch.context() as patch:
        for name, value in simulators.environment().items():
            patch.setenv(name, value)
        for name, value in tenants[0].credentials().items():
            patch.setenv(f"MEIBO_ACME_{name.upper()}", value)
        yield
    clear_clients()


def archive_tenant(
    tenant: SimulatedTenant, archive: Path, *, datasets: tuple[str, ...] = DATASETS, exports: Sequence[Any] = ()
) -> str:
    """Archive the datasets or the exports of a running tenant to a folder, and return the id of the run."""
    source = {
        "provider": "auth0",
        "name": "acme",
        "domain": tenant.domain,
        "secret": "meibo/acme",
        "location_hosts": tenant.allowed_hosts,
        "exports": [*exports] or [{"dataset": name} for name in datasets],
    }
    configuration = archive.parent / f"{archive.name}.json"
    configuration.write_text(json.dumps({"sources": [source]}), encoding="utf-8")
    result = invoke("run", "--sources", str(configuration), "--archive", str(archive))
    assert result.status == 0, result.output + result.errors
    runs = sorted(path.name.removeprefix("run=") for path in archive.glob("runs/*/run=*"))
    return runs[-1]


def contents(tenant: SimulatedTenant) -> dict[str, Any]:
    """Return the roles, organizations and memberships of a tenant by their natural keys."""
    organizations = tenant.organizations
    roles = tenant.roles.by_id
    return {
        "roles": {
            role["name"]: {
                "description": role["description"],
                "permissions": sorted(
                    (item["resource_server_identifier"], item["permission_name"])
                    for item in tenant.roles.permissions(role_id)
                ),
                "users": sorted(user["user_id"] for user in tenant.roles.users(role_id)),
            }
            for role_id, role in roles.items()
        },
        "organizations": {
            body["name"]: {
                **{key: body.get(key) for key in ("display_name", "branding", "metadata")},
                "connections": sorted(
                    json.dumps(organizations.enabled_connection(body["id"], connection_id), sort_keys=True)
                    for connection_id in organizations.connections(body["id"])
                ),
                "members": {
                    user_id: sorted(
                        roles[role_id]["name"] for role_id in organizations.member_roles(body["id"], user_id)
                    )
                    for user_id in organizations.members(body["id"])
                },
            }
            for body in tenant.expected_organizations()
        },
    }
