"""``meibo diff RUN live`` compares a run with the current state of simulated directories."""

from __future__ import annotations

import csv
import json
import signal
import stat
import tempfile
import time
from pathlib import Path

import pytest

from meibo.archive.storage import TEMPORARY_PREFIX
from meibo.providers import clear_clients
from meibo_simulators.auth0.tenant import FIRST_CONNECTION
from meibo_simulators.faults import respond, stall
from tests.integration.cli.conftest import CommandResult, Meibo, invoke
from tests.support.local_runs import LocalRuns

EXPORTS = [{"dataset": name} for name in ("users", "organizations", "members", "roles", "role_members")]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, which is empty after each command."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def meibo(runs: LocalRuns, temporary: Path) -> Meibo:
    """Run a command of ``meibo`` in this process, with the archive of a run."""

    def run(*arguments: str) -> CommandResult:
        clear_clients()
        result = invoke(*arguments)
        assert list(temporary.iterdir()) == []
        return result

    runs.configure([*EXPORTS, {"dataset": "users", "format": "csv"}], [{"dataset": "directory"}])
    assert run("run").status == 0
    return run


def test_changes_since_the_run_are_counted(runs: LocalRuns, meibo: Meibo) -> None:
    archived = sorted(runs.archive.rglob("*"))
    assert meibo("diff", "latest", "live").output.endswith("exports unchanged\n")
    tenant = runs.tenant
    user_id = tenant.directory.user_id(0)
    profile = tenant.directory.get(user_id)
    assert profile is not None
    tenant.directory.put(FIRST_CONNECTION, {**profile, "name": "New name"})
    organization_id = next(name for name in tenant.memberships if user_id not in tenant.memberships[name])
    tenant.organizations.add_members(organization_id, [user_id])
    runs.domain.directory.remove(3)

    result = meibo("diff", "latest", "live", "--json", "--csv", "changes.csv")

    assert (result.status, result.errors) == (0, "")
    document = result.json()
    assert document["run_b"] == "live"
    counts = {
        export["export_id"]: (export["added"], export["removed"], export["changed"]) for export in document["exports"]
    }
    # Each row of the user contains the name. A user of cybozu.com has a row in three other files.
    assert {name: count for name, count in counts.items() if any(count)} == {
        "acme/users/ndjson/all": (0, 0, 1),
        "acme/users/csv/all": (0, 0, 1),
        "acme/members/ndjson/all": (1, 0, 1),
        "acme/role_members/ndjson/all": (0, 0, 4),
        "example/users/csv/all": (0, 1, 0),
        "example/user_organizations/csv/all": (0, 1, 0),
        "example/user_groups/csv/all": (0, 1, 0),
        "example/user_services/csv/all": (0, 1, 0),
    }
    rows = list(csv.DictReader(Path("changes.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["change"], row["fields"]) for row in rows if row["key"] == user_id] == [("changed", "name")] * 2
    assert sorted(runs.archive.rglob("*")) == archived


def test_only_the_named_exports_are_created(runs: LocalRuns, meibo: Meibo) -> None:
    requests = len(runs.tenant.requests)

    result = meibo("diff", "latest", "live", "example/users", "--all")

    assert result.output.endswith("example/users/csv/all: 0 added, 0 removed, 0 changed, 40 unchanged\n")
    assert len(runs.tenant.requests) == requests


def test_configuration_replaces_the_secret_of_the_run(runs: LocalRuns, meibo: Meibo, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (runs.folder / ".env").rename(folder / ".env")
    document = json.loads((runs.folder / "sources.json").read_text(encoding="utf-8"))
    (folder / "sources.json").write_text(json.dumps(document), encoding="utf-8")

    without = meibo("diff", "latest", "live", "acme/roles")
    result = meibo("diff", "latest", "live", "acme/roles", "--sources", str(folder / "sources.json"))

    assert without.status == 2
    assert without.errors.startswith(
        "SecretError: the source acme has no credentials: set client_id and client_secret, or "
    )
    assert result.status == 0, result.errors
    assert result.output.endswith("1 export unchanged\n")


def test_export_that_cannot_be_created_is_named(runs: LocalRuns, meibo: Meibo) -> None:
    runs.tenant.faults.add("GET /api/v2/roles", respond(403), times=None)

    result = meibo("diff", "latest", "live", "acme/roles")

    assert result.status == 2
    assert result.errors.startswith("the current state cannot be read: acme/roles/ndjson/all: ")


def test_files_are_deleted_if_the_command_is_interrupted(runs: LocalRuns, meibo: Meibo, temporary: Path) -> None:
    runs.tenant.faults.add("GET /*.gz", stall(60, after_bytes=1000, stop=runs.tenant.stopping))
    runs.variables["TMPDIR"] = str(temporary)

    with runs.start("latest", "live", "acme/users/ndjson", command="diff") as process:
        while not list(temporary.rglob(f"{TEMPORARY_PREFIX}*/*")):
            assert process.poll() is None
            time.sleep(0.1)
        assert {stat.S_IMODE(path.stat().st_mode) for path in temporary.iterdir()} == {0o700}
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)

    assert (process.returncode, output, errors) == (130, "", "interrupted\n")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("live", "latest"), "expected live as the second run: meibo diff RUN live"),
        (("latest", "latest", "--sources", "sources.json"), "--sources requires live as the second run"),
        (("latest", "live", "other"), "no export of run "),
    ],
)
def test_invalid_arguments_are_reported(meibo: Meibo, arguments: tuple[str, ...], message: str) -> None:
    result = meibo("diff", *arguments)

    assert (result.status, result.output) == (2, "")
    assert result.errors.startswith(message)
