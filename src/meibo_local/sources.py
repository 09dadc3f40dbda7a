"""The sources of a run on this machine: simulated directories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from meibo.errors import ConfigurationError
from meibo_local.sample_changes import SampleChange, sample_changes
from meibo_local.template import ROOT

# More than one page of the API.
_ORGANIZATIONS = 120
# A small number, so that each organization has several changes.
_CHANGED_ORGANIZATIONS = 10
_STOP_SECONDS = 60


@dataclass(frozen=True)
class Sources:
    """A configuration with its secrets, and the environment variables that connections to the sources require.

    ``expected_rows`` maps export ids to numbers of rows. ``changes`` are sent to the queue after the run.
    """

    document: Any
    secrets: Mapping[str, Any] = field(repr=False)
    environment: Mapping[str, str]
    expected_rows: Mapping[str, int]
    changes: Sequence[SampleChange]


@contextmanager
def simulated_sources(*, users: int, cybozu_users: int, client_certificate: bool = False) -> Iterator[Sources]:
    """Serve a simulated tenant and a simulated domain over HTTPS on loopback, from a separate process.

    With ``client_certificate``, the domain requires the certificate in its secret.
    """
    sizes = {"users": users, "organizations": _ORGANIZATIONS, "cybozu-users": cybozu_users}
    options = [text for name, size in sizes.items() for text in (f"--{name}", str(size))]
    if client_certificate:
        options.append("--client-certificate")
    command = [sys.executable, "-m", "meibo_simulators", *options]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'layers' / 'meibo'}{os.pathsep}{ROOT / 'src'}{os.pathsep}{ROOT}",
    }
    with subprocess.Popen(  # noqa: S603 - a module of this repository, with numbers as arguments
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
        # Ctrl-C must not interrupt the simulators, which end with this process.
        start_new_session=True,
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise ConfigurationError("the simulators did not start; see their output above")
            yield _demonstration(json.loads(line))
        finally:
            # The simulators stop when their standard input closes.
            if process.stdin:
                process.stdin.close()
            process.wait(timeout=_STOP_SECONDS)


def _demonstration(simulators: Mapping[str, Any]) -> Sources:
    (tenant_name, tenant), (domain_name, domain) = (
        next(iter(simulators[provider].items())) for provider in ("auth0", "cybozu")
    )
    connection = next(iter(tenant["connections"]))
    fields = [
        "user_id",
        "email",
        "name",
        "created_at",
        {"name": "identities[0].connection", "export_as": "connection"},
        {"name": "user_metadata.country", "export_as": "country"},
    ]
    auth0_exports = [
        {"dataset": "users", "format": "ndjson", "connection_id": connection},
        {"dataset": "users", "format": "ndjson"},
        {"dataset": "users", "format": "csv", "fields": fields},
        {"dataset": "organizations"},
        {"dataset": "members"},
    ]
    cybozu_exports = [{"dataset": "directory", "format": "csv"}, {"dataset": "directory", "format": "ndjson"}]
    all_users = sum(tenant["connections"].values())
    expected = {
        f"{tenant_name}/users/ndjson/{connection}": tenant["connections"][connection],
        f"{tenant_name}/users/ndjson/all": all_users,
        f"{tenant_name}/users/csv/all": all_users,
        f"{tenant_name}/organizations/ndjson/all": tenant["organizations"],
        f"{tenant_name}/members/ndjson/all": tenant["members"],
        **{
            f"{domain_name}/{dataset}/{format_name}/all": rows
            for format_name, datasets in domain["rows"].items()
            for dataset, rows in datasets.items()
        },
    }
    ca_file = simulators["ca_file"]
    return Sources(
        document={
            "sources": [
                {**tenant["source"], "exports": auth0_exports},
                {**domain["source"], "exports": cybozu_exports},
            ]
        },
        secrets={f"meibo/{tenant_name}": tenant["credentials"], f"meibo/{domain_name}": domain["credentials"]},
        environment={"SSL_CERT_FILE": ca_file, "REQUESTS_CA_BUNDLE": ca_file},
        expected_rows=expected,
        changes=sample_changes(
            tenant_name, tenant["organization_ids"][:_CHANGED_ORGANIZATIONS], tenant["user_ids"], tenant["role_ids"]
        ),
    )
