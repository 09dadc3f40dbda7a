"""Archive a simulated tenant, and restore it to an empty tenant: ``python -m meibo_local.drill --users 300``.

The first tenant is stopped before the restore, so the archive is the only source. Both steps run the command ``meibo``
in a separate process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from meibo_cli.restore.directory_planner import DATASETS
from meibo_cli.restore.restorable_rows import USERS
from meibo_local.template import ROOT
from meibo_simulators import Connection, SimulatedTenant, Simulators

SOURCE = "acme"
FOLDER = Path(".local/drill")
"""The default folder, which each drill replaces."""
_CONNECTIONS = ("Username-Password-Authentication", "directory-2")
_SOCIAL = "google-oauth2"
_SOCIAL_USERS = 3


def source_tenant(*, users: int, organizations: int, members: int, roles: int) -> SimulatedTenant:
    """Return a tenant with two database connections, and with some social users, who cannot be restored."""
    tenant = SimulatedTenant(
        SOURCE,
        users=users,
        organizations=organizations,
        members=members,
        roles=roles,
        connections=_connections(0, None),
    )
    *_, social = tenant.directory.connections
    for number in range(_SOCIAL_USERS):
        user_id, email = f"{_SOCIAL}|{10**20 + number}", f"social{number}@example.jp"
        identity = {"connection": _SOCIAL, "provider": _SOCIAL, "user_id": user_id.partition("|")[2], "isSocial": True}
        tenant.directory.put(social, {"user_id": user_id, "email": email, "name": email, "identities": [identity]})
        for organization_id in tenant.organizations.ids()[:1]:
            tenant.organizations.add_members(organization_id, [user_id])
    return tenant


def empty_tenant() -> SimulatedTenant:
    """Return an empty tenant whose connections have the same names and different ids."""
    return SimulatedTenant("scratch", roles=0, connections=_connections(10, 0))


def _connections(first: int, users: int | None) -> dict[str, Connection]:
    """Return a social connection, and two database connections with ``users`` users each, or an equal share if None."""
    ids = [f"con_{number:016d}" for number in range(first + 1, first + 4)]
    databases = [
        Connection(connection_id, name, users=users) for connection_id, name in zip(ids, _CONNECTIONS, strict=False)
    ]
    return {connection.id: connection for connection in (*databases, Connection(ids[2], _SOCIAL, _SOCIAL, users=0))}


def main(argv: Sequence[str] | None = None) -> int:
    """Run both commands, and return the exit status of the first command that fails, or else of ``meibo drill``."""
    parser = argparse.ArgumentParser(prog="python -m meibo_local.drill", description=__doc__)
    parser.add_argument("--users", type=int, default=300, help="users of the simulated tenant, in two connections")
    parser.add_argument("--organizations", type=int, default=12, help="organizations of the simulated tenant")
    parser.add_argument("--members", type=int, default=20, help="average number of members per organization")
    parser.add_argument("--roles", type=int, default=6, help="roles of the simulated tenant")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="a new folder for the archive and the restore")
    options = parser.parse_args(argv)
    folder: Path = options.folder
    if folder == FOLDER:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    archive = folder / "archive"
    tenant = source_tenant(
        users=options.users, organizations=options.organizations, members=options.members, roles=options.roles
    )
    with Simulators([tenant]) as simulators:
        sources = folder / "sources.json"
        exports = [{"dataset": name} for name in (USERS, *DATASETS)]
        sources.write_text(json.dumps({"sources": [tenant.source(*exports)]}), encoding="utf-8")
        status = _meibo(simulators, tenant, "run", "--sources", str(sources), "--archive", str(archive))
    if status:
        return status
    scratch = empty_tenant()
    with Simulators([scratch]) as simulators:
        target = ("--to", scratch.domain, "--location-host", scratch.file_host)
        folders = ("--archive", str(archive), "--output", str(folder / "restore"))
        return _meibo(simulators, scratch, "drill", SOURCE, *target, *folders, "--yes")


def _meibo(simulators: Simulators, tenant: SimulatedTenant, *arguments: str) -> int:
    """Run a command with the credentials of a tenant, and return its exit status."""
    print(f"\n$ meibo {' '.join(arguments)}", flush=True)
    credentials = {f"MEIBO_{SOURCE.upper()}_{name.upper()}": value for name, value in tenant.credentials().items()}
    paths = {"PYTHONPATH": f"{ROOT / 'layers' / 'meibo'}{os.pathsep}{ROOT / 'src'}"}
    command = [sys.executable, "-m", "meibo_cli", *arguments]
    environment = {**os.environ, **simulators.environment(), **credentials, **paths}
    return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - fixed arguments


if __name__ == "__main__":
    sys.exit(main())
