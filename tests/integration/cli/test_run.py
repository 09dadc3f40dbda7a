"""``meibo run`` archives simulated directories over HTTPS, into a folder or a bucket, without a stack."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from meibo import aws
from meibo.archive.keys import plan_key, run_id_of
from meibo.archive.storage import FolderStorage
from meibo_cli.archive_folder import locked_archive
from meibo_local.caches import shared_clients
from meibo_simulators.faults import stall
from tests.integration.cli.conftest import Meibo, invoke
from tests.support.local_runs import LocalRuns

USERS = {"dataset": "users"}
USERS_CSV = {"dataset": "users", "format": "csv"}
# Tokens, signed URLs, e-mail addresses and passwords.
LEAKS = re.compile(r"eyJ[A-Za-z0-9_-]{8,}|Bearer |X-Amz-Signature|Signature=|[\w.+-]+@[\w-]+\.\w|simulated[-:]")


@pytest.fixture
def meibo(runs: LocalRuns) -> Meibo:
    return invoke


def test_every_export_is_archived_and_verified(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure(
        [USERS, USERS_CSV, {"dataset": "organizations"}, {"dataset": "members"}],
        [{"dataset": "directory"}, {"dataset": "directory", "format": "ndjson"}],
    )
    umask = os.umask(0)
    try:
        result = meibo("run", "--log", "log.jsonl")
    finally:
        os.umask(umask)

    assert result.status == 0, result.output + result.errors
    (manifest,) = runs.documents("runs/**/_manifest.json")
    assert (manifest["complete"], manifest["counts"]["planned"], manifest["counts"]["archived"]) == (True, 15, 15)
    assert runs.assert_complete_or_absent() == 15
    assert meibo("verify").output.startswith("15 exports of 1 run, read completely: no damage")
    assert runs.temporary_files() == []
    assert not list(runs.archive.glob("parts/*/*"))
    # The output: a line per export, which is not wrapped, and no user data.
    run_id = manifest["run_id"]
    assert re.search(r"example/user_organizations/csv/all +40 +\S+ kB +ok +[0-9a-f]{12}", result.output)
    assert f"run {run_id}: complete; archive: ./archive, report: ./archive/index.html\n" in result.output
    assert re.search(r"acme/users/csv/all  archived  300 rows\n", result.errors)
    log = (runs.folder / "log.jsonl").read_text(encoding="utf-8")
    assert sum(json.loads(line)["message"] == "archived" for line in log.splitlines()) == 15
    documents = [path.read_text(encoding="utf-8") for path in runs.archive.rglob("_*.json")]
    for text in (result.output, result.errors, log, *documents):
        assert LEAKS.findall(text) == []
    (users,) = runs.archive.glob("archive/provider=auth0/**/users.ndjson.gz")
    assert LEAKS.search(gzip.decompress(users.read_bytes()).decode())
    # The files.
    assert json.loads((runs.archive / ".meibo").read_bytes()) == {"kind": "archive", "version": 1}
    assert "The latest run is complete: 15 exports" in (runs.archive / "index.html").read_text(encoding="utf-8")
    assert list(runs.archive.glob(f"reports/dt=*/run={run_id}/index.html"))
    created = [runs.archive, *runs.archive.rglob("*"), runs.folder / "log.jsonl"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in created if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in created if path.is_file()} == {0o600}


def test_log_is_written_to_stderr(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure([USERS], [])

    result = meibo("run", "--log", "-")

    assert result.status == 0, result.output + result.errors
    logged = [json.loads(line) for line in result.errors.splitlines() if line.startswith("{")]
    assert [line["message"] for line in logged].count("archived") == 1
    assert not (runs.folder / "-").exists()


def test_failed_exports_do_not_stop_the_others_and_are_repaired(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure([USERS], [USERS, {"dataset": "groups"}], example={"login": "hr-export", "password": "wrong"})

    result = meibo("run")

    assert result.status == 1
    (manifest,) = runs.documents("runs/**/_manifest.json")
    assert [export["export_id"] for export in manifest["exports"]] == ["acme/users/ndjson/all"]
    assert {failure["error"] for failure in manifest["missing"]} == {"CredentialsRefusedError"}
    assert "missing example/users/csv/all: CredentialsRefusedError: cybozu.com" in result.output
    assert f"fix the causes, then run: meibo run --run {manifest['run_id']}\n" in result.output

    runs.configure([USERS], [USERS, {"dataset": "groups"}])
    requests = len(runs.tenant.requests)
    repaired = meibo("run", "--run", manifest["run_id"])

    assert repaired.status == 0, repaired.output + repaired.errors
    assert "3 of 3 exports archived" in repaired.output
    assert len(runs.tenant.requests) == requests
    assert runs.documents("runs/**/_manifest-2.json")[0]["complete"] is True
    assert meibo("run", "--run", "latest").status == 0
    assert not list(runs.archive.glob("runs/**/_manifest-3.json"))


def test_only_the_selected_exports_are_archived(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure([USERS, USERS_CSV], [{"dataset": "directory"}])

    result = meibo("run", "--only", "acme/users/csv", "--only", "example/titles")

    assert result.status == 0, result.errors
    (manifest,) = runs.documents("runs/**/_manifest.json")
    assert [export["export_id"] for export in manifest["exports"]] == ["acme/users/csv/all", "example/titles/csv/all"]


def test_pattern_that_matches_nothing_is_refused(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure([USERS, USERS_CSV], [])

    result = meibo("run", "--only", "acme/user")

    assert (result.status, result.errors) == (
        2,
        "--only: no export matches 'acme/user'; expected one of: acme/users/ndjson/all, acme/users/csv/all\n",
    )
    assert not runs.archive.exists()


def test_selection_and_repair_exclude_each_other(runs: LocalRuns, meibo: Meibo) -> None:
    result = meibo("run", "--only", "acme", "--run", "latest")

    assert (result.status, result.errors) == (
        2,
        "--only and --run cannot be used together: a repair archives all missing exports\n",
    )


def test_two_runs_in_the_same_second_have_different_ids(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure([], [{"dataset": "titles"}])

    assert [meibo("run").status for _ in range(3)] == [0, 0, 0]

    assert len({manifest["run_id"] for manifest in runs.documents("runs/**/_manifest.json")}) == 3


def leave_killed_run(runs: LocalRuns, age: timedelta) -> str:
    """Write the plan of a run as a killed process leaves it."""
    run_id = run_id_of(datetime.now(UTC) - age)
    plan = {
        "plan_version": 1,
        "run_id": run_id,
        "scheduled_time": "2026-11-21T18:00:00+00:00",
        "meibo_version": "0",
        "preparation": {"invocation": "killed", "until": (datetime.now(UTC) + timedelta(minutes=15)).isoformat()},
        "exports": [
            {
                "provider": "cybozu",
                "source": "example",
                "dataset": "titles",
                "format": "csv",
                "scope": "all",
                "endpoint": runs.domain.base_url,
                "secret": "meibo/example",
                "request": {},
                "options": {},
            }
        ],
    }
    with locked_archive(runs.archive, "archive"):
        FolderStorage(runs.archive).put_json(plan_key(run_id), plan)
    return run_id


def test_run_that_was_killed_while_its_jobs_were_created_is_continued_at_once(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure([], [{"dataset": "titles"}, {"dataset": "groups"}])
    run_id = leave_killed_run(runs, timedelta(minutes=1))

    result = meibo("run")

    assert result.status == 0, result.errors
    assert result.errors.startswith(f"continuing run {run_id} in archive\n")
    (manifest,) = runs.documents("runs/**/_manifest-2.json")
    assert (manifest["run_id"], manifest["counts"]["archived"]) == (run_id, 1)


@pytest.mark.parametrize("arguments", [(), ("--only", "example")])
def test_old_killed_run_and_selection_begin_a_new_run(
    runs: LocalRuns, meibo: Meibo, arguments: tuple[str, ...]
) -> None:
    runs.configure([], [{"dataset": "titles"}])
    run_id = leave_killed_run(runs, timedelta(minutes=1) if arguments else timedelta(hours=13))

    result = meibo("run", *arguments)

    assert result.status == 0, result.errors
    assert result.errors.startswith("starting a run in archive\n")
    (manifest,) = runs.documents("runs/**/_manifest*.json")
    assert manifest["run_id"] != run_id


def test_unknown_run_is_refused(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure([], [{"dataset": "titles"}])

    unknown, invalid, none = (meibo("run", "--run", name) for name in ("20261121T180000Z", "yesterday", "latest"))

    assert [unknown.status, invalid.status, none.status] == [2, 2, 2]
    assert unknown.errors == (
        "continuing run 20261121T180000Z in archive\n"
        "EventError: run 20261121T180000Z: expected a plan in the archive, found none; check the id (`meibo ls` lists"
        " finished runs)\n"
    )
    assert (
        invalid.errors == "--run: expected a run id such as 20261121T180000Z, latest or previous, found 'yesterday'\n"
    )
    assert none.errors == "archive contains no run\n"


def test_wrong_configurations_are_reported_in_one_line(runs: LocalRuns, meibo: Meibo) -> None:
    missing = meibo("run", "--sources", "none.json")
    runs.configure([{"dataset": "users", "[bold]": 1}], [])
    invalid = meibo("run")
    runs.configure([USERS], [])
    (runs.folder / ".env").chmod(0o644)
    readable = meibo("run")
    (runs.folder / ".env").unlink()
    without = meibo("run")

    assert [result.status for result in (missing, invalid, readable, without)] == [2, 2, 2, 2]
    assert missing.errors == "--sources: the file none.json does not exist; create it with `meibo init`\n"
    assert "exports[0].[bold]: is not allowed here" in invalid.errors
    assert (
        readable.errors == ".env contains credentials, but other users can read it (mode 0644); run: chmod 600 .env\n"
    )
    assert without.errors == (
        "SecretError: the source acme has no credentials: set client_id and client_secret, or client_id and"
        " private_key, each as MEIBO_ACME_<KEY>, in the environment or in .env, or store them in the Secrets Manager"
        " secret meibo/acme and set AWS_PROFILE and AWS_REGION\n"
    )
    assert not runs.archive.exists()


def test_folder_of_a_demonstration_is_refused(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure([USERS], [])
    with locked_archive(runs.archive, "demonstration"):
        pass

    result = meibo("run")

    assert result.status == 2
    assert result.errors == (
        "archive/ is a demonstration with simulated directories, which `make run` writes; choose another folder,"
        " because real archives and demonstrations are never mixed\n"
    )
    assert not (runs.archive / "runs").exists()


def test_second_run_in_the_same_folder_is_refused(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure([USERS], [])
    with locked_archive(runs.archive, "archive"):
        result = meibo("run")

    assert result.status == 2
    assert result.errors.startswith(f"another process ({os.getpid()}) is writing to archive/;")


@pytest.fixture
def bucket(runs: LocalRuns, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws(), shared_clients():
        aws.clear_clients()
        client = boto3.client("s3")
        client.create_bucket(Bucket="archive")
        yield client
    aws.clear_clients()


def test_bucket_receives_the_keys_of_a_folder(runs: LocalRuns, meibo: Meibo, bucket: Any) -> None:
    runs.configure([USERS, {"dataset": "organizations"}], [{"dataset": "titles"}])

    into_bucket, into_folder = meibo("run", "--archive", "s3://archive"), meibo("run")

    assert (into_bucket.status, into_folder.status) == (0, 0), into_bucket.errors + into_folder.errors
    keys = [entry["Key"] for entry in bucket.list_objects_v2(Bucket="archive")["Contents"]]
    paths = [path.relative_to(runs.archive).as_posix() for path in runs.archive.rglob("*/*") if path.is_file()]

    def shape(names: list[str]) -> list[str]:
        return sorted(re.sub(r"dt=[0-9-]+/run=\w+", "", name) for name in names if not name.startswith("parts/"))

    assert shape(keys) == shape(paths)
    assert meibo("verify", "--archive", "s3://archive").status == 0
    assert re.search(r"report: s3://archive/reports/dt=\S+/index\.html\n", into_bucket.output)


def test_secrets_are_read_from_secrets_manager(runs: LocalRuns, meibo: Meibo, bucket: Any) -> None:
    runs.configure([USERS], [{"dataset": "titles"}])
    (runs.folder / ".env").unlink()
    client = boto3.client("secretsmanager")
    client.create_secret(Name="meibo/acme", SecretString=json.dumps(runs.tenant.credentials()))

    result = meibo("run")

    assert result.status == 1
    assert "missing example/titles/csv/all: SecretError: the secret 'meibo/example' cannot be read" in result.output
    assert "acme/users/ndjson/all" in result.output


# -- runs in a separate process


def test_run_imports_neither_moto_nor_the_local_system(runs: LocalRuns) -> None:
    runs.configure([USERS], [USERS])
    runs.variables["PRINT_PACKAGES"] = "1"

    help_, result = runs.run("--help"), runs.run()

    for process in (help_, result):
        assert process.returncode == 0, process.stderr
        packages = set(process.stderr.rpartition("packages:")[2].split())
        assert {"meibo", "meibo_cli"} <= packages
        assert packages.isdisjoint({"moto", "meibo_local", "meibo_simulators", "samtranslator", "dotenv", "pytest"})
    assert runs.assert_complete_or_absent() == 2


def wait_for_half_a_run(runs: LocalRuns, process: subprocess.Popen[str]) -> None:
    """Wait until the titles are archived and the file of the users, which stalls, is being copied."""
    titles: list[Path] = []
    while not titles or len(runs.temporary_files()) != 1:
        assert process.poll() is None
        time.sleep(0.2)
        titles = list(runs.archive.glob("archive/provider=cybozu/**/_manifest.json"))
    # The manifest may still have its temporary name.
    time.sleep(0.5)
    assert len(runs.temporary_files()) == 1


def test_killed_run_is_continued(runs: LocalRuns) -> None:
    runs.configure([USERS], [{"dataset": "titles"}])
    runs.tenant.faults.add("GET /*.gz", stall(60, after_bytes=1000, stop=runs.tenant.stopping))

    with runs.start() as process:
        wait_for_half_a_run(runs, process)
        process.send_signal(signal.SIGKILL)
    assert runs.assert_complete_or_absent() == 1
    assert len(runs.temporary_files()) == 1
    (plan,) = runs.documents("runs/**/_plan.json")
    continued = runs.run()

    assert continued.returncode == 0, continued.stderr
    assert continued.stderr.startswith(f"continuing run {plan['run_id']} in archive\n")
    assert "example/titles" not in continued.stderr
    assert runs.assert_complete_or_absent() == 2
    assert runs.temporary_files() == []
    assert runs.documents("runs/**/_manifest-2.json")[0]["complete"] is True


def test_interrupted_run_ends_with_one_line(runs: LocalRuns) -> None:
    runs.configure([USERS], [{"dataset": "titles"}])
    runs.tenant.faults.add("GET /*.gz", stall(60, after_bytes=1000, stop=runs.tenant.stopping))

    with runs.start() as process:
        wait_for_half_a_run(runs, process)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)

    (plan,) = runs.documents("runs/**/_plan.json")
    assert (process.returncode, output) == (130, "")
    assert errors.splitlines()[-1] == (
        f"interrupted; run {plan['run_id']} is not complete; `meibo run --run {plan['run_id']}` archives its missing"
        " exports"
    )
    assert "Traceback" not in errors
    assert runs.assert_complete_or_absent() == 1
    continued = runs.run("--run", plan["run_id"])
    assert continued.returncode == 0, continued.stderr
    assert runs.assert_complete_or_absent() == 2
