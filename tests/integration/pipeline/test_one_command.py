"""Run the main command as a new user does: exit status, table, files, and no user data in the output."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from meibo_cli.archive_folder import locked_archive
from meibo_cli.main import app
from meibo_local.__main__ import main
from meibo_local.template import ROOT

QUERIES = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "queries.md").read_text(encoding="utf-8"), re.DOTALL)
# Tokens, signed URLs and e-mail addresses.
LEAKS = re.compile(r"eyJ[A-Za-z0-9_-]{8,}|Bearer |X-Amz-Signature|Signature=|[\w.+-]+@[\w-]+\.\w|simulated-[0-9a-f]{8}")

# The command runs once for all tests. It takes half a minute on an idle machine, and several minutes on a busy machine.
pytestmark = [pytest.mark.xdist_group("one command"), pytest.mark.timeout(300)]


@dataclass
class Command:
    status: int
    output: str
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "run.log").read_text(encoding="utf-8")

    def manifests(self) -> list[Path]:
        return sorted((self.folder / "archive").glob("archive/**/_manifest.json"))


def run(folder: Path, *options: str, **environment: str) -> Command:
    """Run the command in its own process, with its archive and its log in a folder."""
    # The worst case for the modes of files: an existing log that all users can read, and a umask of 0.
    (folder / "run.log").touch(0o644)
    process = subprocess.run(  # noqa: S603  # our own module
        [
            *(sys.executable, "-m", "meibo_local"),
            *("--archive", str(folder / "archive"), "--log", str(folder / "run.log"), *options),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'layers' / 'meibo'}{os.pathsep}{ROOT / 'src'}{os.pathsep}{ROOT}",
            "COLUMNS": "160",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        umask=0,
    )
    return Command(process.returncode, process.stdout + process.stderr, folder)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    return run(tmp_path_factory.mktemp("run"), "--users", "400", "--cybozu-users", "120")


def test_command_succeeds_with_a_table(command: Command) -> None:
    assert command.status == 0, command.output
    assert "complete; archive:" in command.output
    assert "digest, rows" in command.output
    # The results of the exports are shown before the changes are sent, and the page contains the changes.
    assert command.output.index("16 of 16 exports archived") < command.output.index("Sending 300 membership changes")
    page = (command.folder / "archive" / "index.html").read_text(encoding="utf-8")
    assert "Membership changes of the last 7 days" in page
    assert ">Applied<" in page.split("Membership changes of the last 7 days", 1)[1]


def test_every_file_on_disk_has_the_digest_of_its_manifest(command: Command) -> None:
    assert command.manifests()
    for path in command.manifests():
        manifest = json.loads(path.read_text(encoding="utf-8"))
        body = (command.folder / "archive" / manifest["object"]["key"]).read_bytes()
        assert hashlib.sha256(body).hexdigest() == manifest["object"]["sha256"]
        assert len(body) == manifest["object"]["bytes"]


def test_no_token_location_or_address_is_logged_or_printed(command: Command) -> None:
    assert '"message":"archived"' in command.log
    for text in (command.log, command.output):
        assert LEAKS.findall(text) == []


def test_pattern_finds_user_data_in_the_archive(command: Command) -> None:
    (users, *_) = (command.folder / "archive").glob("archive/provider=auth0/**/users.ndjson.gz")

    assert LEAKS.search(gzip.decompress(users.read_bytes()).decode())


def test_documents_contain_no_user_data(command: Command) -> None:
    for path in (command.folder / "archive").rglob("_*.json"):
        assert LEAKS.findall(path.read_text(encoding="utf-8")) == [], path


def test_only_the_owner_can_read_the_archive_and_the_log(command: Command) -> None:
    created = [command.folder / "archive", *(command.folder / "archive").rglob("*"), command.folder / "run.log"]

    assert {stat.S_IMODE(path.stat().st_mode) for path in created if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in created if path.is_file()} == {0o600}


@pytest.mark.parametrize("number", range(len(QUERIES)))
def test_documented_query_returns_rows_of_the_demonstration(command: Command, number: int) -> None:
    archive = str(command.folder / "archive")

    def rows(sql: str) -> list[dict[str, str]]:
        result = CliRunner().invoke(app, ["query", sql, "--json", "--archive", archive])
        assert result.exit_code == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    (member,) = rows("select organization_id, email, dt from auth0_members where email is not null limit 1")
    sql = QUERIES[number]
    examples = {
        "2026-11-21": member["dt"],
        "someone@example.jp": member["email"],
        "org_0000000000000001": member["organization_id"],
    }
    for example, value in examples.items():
        sql = sql.replace(example, value)

    assert rows(sql)


def test_sources_are_archived_through_a_proxy_and_aws_is_called_directly(tmp_path: Path) -> None:
    # The proxy of the network is ignored: it cannot reach the local AWS and the simulators.
    network = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:1")

    command = run(tmp_path, "--users", "40", "--cybozu-users", "12", "--proxy", **network)

    assert command.status == 0, command.output
    assert "16 of 16 exports archived" in command.output
    (connections,) = re.findall(r"^connections through the proxy: (.*)$", command.output, re.MULTILINE)
    # The API and the files of Auth0, and cybozu.com.
    assert re.fullmatch(r"[0-9]+ to localhost:[0-9]+(, [0-9]+ to localhost:[0-9]+){2}", connections)


def test_sources_are_archived_with_a_client_certificate(tmp_path: Path) -> None:
    command = run(tmp_path, "--users", "40", "--cybozu-users", "12", "--client-certificate")

    assert command.status == 0, command.output
    assert "16 of 16 exports archived" in command.output


@pytest.fixture
def private_umask() -> Iterator[None]:
    """Restore the umask, which the command sets for its process."""
    umask = os.umask(0o077)
    yield
    os.umask(umask)


@pytest.mark.usefixtures("private_umask")
def test_second_run_in_the_same_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.log").write_text("of the first run", encoding="utf-8")
    with locked_archive(tmp_path / "archive", "demonstration"):
        status = main(["--archive", str(tmp_path / "archive"), "--log", str(tmp_path / "run.log")])

    assert status == 2
    errors = capsys.readouterr().err
    assert f"another process ({os.getpid()}) is writing to" in errors
    assert errors.count("\n") == 1
    assert (tmp_path / "run.log").read_text(encoding="utf-8") == "of the first run"


@pytest.mark.usefixtures("private_umask")
def test_folder_of_real_archives_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked_archive(tmp_path / "archive", "archive"):
        pass

    assert main(["--archive", str(tmp_path / "archive")]) == 2
    assert "is an archive of real directories, which `meibo run` writes" in capsys.readouterr().err
    assert not (tmp_path / "archive" / "runs").exists()


@pytest.mark.usefixtures("private_umask")
def test_full_disk_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "[archive]"))

    monkeypatch.setattr("meibo_local.sources.simulated_sources", lambda **_sizes: nullcontext())
    monkeypatch.setattr("meibo_local.runner.run", fail)

    assert main(["--archive", str(tmp_path / "archive")]) == 2
    assert capsys.readouterr().err == f"{tmp_path}/[archive]: No space left on device\n"
