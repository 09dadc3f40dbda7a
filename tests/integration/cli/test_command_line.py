"""The command line itself: options of all commands, pipes, terminals, interruptions and exit codes."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
import typer
from botocore.exceptions import EndpointConnectionError
from typer.testing import CliRunner

from meibo import __version__
from meibo_cli import exit_codes
from meibo_cli.commands import ls
from meibo_cli.commands.query import tables
from meibo_cli.main import app
from meibo_cli.restore.users import AUTH0_NOT_RESTORABLE
from meibo_local.template import ROOT
from tests.integration.cli.conftest import Meibo, invoke
from tests.support.archives import EARLIER, RUN, USERS, ArchiveBuilder, FolderArchive, ndjson

COMMAND = [sys.executable, "-m", "meibo_cli"]
TABLES = ", ".join(table.name for table in tables())
ASCII = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    builder = ArchiveBuilder(FolderArchive(tmp_path / "archive"))
    builder.run({USERS: ndjson([{"user_id": f"auth0|{number}", "name": "名"} for number in range(3)])})
    return tmp_path / "archive"


Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def shell(archive: Path, tmp_path: Path) -> Shell:
    """Run a shell command in an empty environment; ``meibo`` is the command."""
    (tmp_path / "home").mkdir()
    script = tmp_path / "home" / "meibo"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    script.chmod(0o700)

    def run(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{tmp_path / 'home'}:/usr/bin:/bin",
            "HOME": str(tmp_path / "home"),
            "PYTHONPATH": f"{ROOT / 'layers' / 'meibo'}{os.pathsep}{ROOT / 'src'}",
            "MEIBO_ARCHIVE": str(archive),
            "AWS_EC2_METADATA_DISABLED": "true",
            **variables,
        }
        return subprocess.run(  # noqa: S603  # a command of this test
            ["/bin/bash", "-c", command], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def meibo(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Meibo:
    """Run a command in this process, without a configuration of AWS."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("MEIBO_ARCHIVE", str(archive))
    monkeypatch.chdir(tmp_path)
    return invoke


def test_version_is_printed() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"meibo {__version__}\n"


@pytest.mark.parametrize("words", [[], ["ls"], ["changes"], ["changes", "send"]], ids=" ".join)
def test_every_command_has_help_and_the_options_for_aws(words: list[str]) -> None:
    short, long = (CliRunner().invoke(app, [*words, option], env={"COLUMNS": "100"}) for option in ("-h", "--help"))

    assert short.exit_code == 0
    assert short.stdout == long.stdout
    assert "--region" in short.stdout
    assert "--profile" in short.stdout


def test_completion_can_be_installed() -> None:
    assert "--install-completion" in CliRunner().invoke(app, ["-h"], env={"COLUMNS": "100"}).stdout


@pytest.mark.parametrize(
    "words",
    [
        ["changes", "redrive", "--region", "eu-south-1", "--profile", "hr"],
        ["--region", "eu-south-1", "--profile", "hr", "changes", "redrive"],
    ],
    ids=["after the command", "before the command"],
)
def test_options_for_aws_are_used_until_the_command_ends(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    variables = ("AWS_DEFAULT_REGION", "AWS_PROFILE")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    values: list[str | None] = []

    def queues_of(_stack: str) -> Any:
        values.extend(map(os.environ.get, variables))
        raise typer.Exit

    monkeypatch.setattr("meibo_cli.commands.changes.redrive.queues_of", queues_of)
    CliRunner().invoke(app, words)

    assert values == ["eu-south-1", "hr"]
    assert list(map(os.environ.get, variables)) == ["us-east-1", None]


@pytest.mark.parametrize(
    ("command", "variables", "message"),
    [
        ("changes redrive", {}, "no AWS region; set AWS_REGION or --region"),
        (
            "changes redrive --region eu-south-1",
            {},
            "no AWS credentials; set AWS_PROFILE or --profile, or run `aws configure`",
        ),
        (
            "changes redrive",
            {"AWS_PROFILE": "hr"},
            "no AWS profile 'hr'; `aws configure list-profiles` lists the profiles",
        ),
        (
            "changes redrive",
            {"AWS_REGION": "eu south"},
            "expected an AWS region such as ap-northeast-1, found 'eu south'; set --region",
        ),
        ("query --csv --json 'select 1'", {}, "--csv and --json cannot be used together"),
        (
            "diff latest latest --json --csv -",
            {},
            "--csv - and --json cannot be used together: both write to stdout; write the CSV to a file",
        ),
        ("restore acme -o -", {}, "--output: expected a new folder for several files, found '-'"),
        ("changes redrive --take -", {}, "--take: expected the name of a new file, found '-'"),
        ("query ''", {}, "expected one SELECT, DESCRIBE, EXPLAIN or SHOW statement, found none"),
        (
            "query 'select * from users'",
            {},
            f"Catalog Error: Table with name users does not exist! The tables are {TABLES}.",
        ),
    ],
)
def test_wrong_value_is_reported_in_one_line(
    meibo: Meibo, command: str, variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    result = meibo(*shlex.split(command))

    assert (result.status, result.output, result.errors) == (2, "", f"{message}\n")


def test_error_of_a_process_is_one_line_and_its_exit_status(shell: Shell) -> None:
    result = shell("meibo query ''")

    message = "expected one SELECT, DESCRIBE, EXPLAIN or SHOW statement, found none\n"
    assert (result.returncode, result.stdout, result.stderr) == (2, "", message)


def test_unreachable_host_is_named_without_the_signature(capsys: pytest.CaptureFixture[str]) -> None:
    error = EndpointConnectionError(endpoint_url="https://b.s3.nowhere-1.amazonaws.com/?X-Amz-Signature=x")
    with pytest.raises(typer.Exit), exit_codes.report_errors():
        raise error

    assert capsys.readouterr().err == (
        "cannot reach b.s3.nowhere-1.amazonaws.com (EndpointConnectionError); check the region and the network"
        " connection\n"
    )


@pytest.mark.parametrize("command", ["ls", "ls --json", "verify", "report -o -", "get acme -o -", "query 'select 1'"])
def test_full_disk_behind_stdout_is_reported_in_one_line(shell: Shell, command: str) -> None:
    result = shell(f"meibo {command} > /dev/full")

    assert (result.returncode, result.stderr) == (2, "stdout: No space left on device\n")


@pytest.mark.parametrize("command", ["ls", "ls --help"])
def test_full_disk_behind_unbuffered_stdout_is_reported_in_one_line(shell: Shell, command: str) -> None:
    result = shell(f"meibo {command} > /dev/full", PYTHONUNBUFFERED="1")

    assert (result.returncode, result.stderr) == (2, "stdout: No space left on device\n")


@pytest.mark.parametrize("command", ["ls", "query 'from auth0_users, range(100000)' --csv", "get acme -o -"])
def test_pipe_that_is_closed_early_ends_silently(shell: Shell, command: str) -> None:
    result = shell(f"meibo {command} | true; exit ${{PIPESTATUS[0]}}")

    assert result.stderr == ""
    assert result.returncode in {0, exit_codes.EXIT_BROKEN_PIPE}


def test_ascii_terminal_shows_escapes(shell: Shell) -> None:
    assert shell("meibo diff latest latest", **ASCII).stdout == f"{RUN} -> {RUN}\n1 export unchanged\n"
    assert r"\u540d" in shell("meibo query 'select name from auth0_users'", **ASCII).stdout
    assert shell("meibo ls", **ASCII).stdout.isascii()
    assert shell("meibo query 'select min(name) as n from auth0_users' --json", **ASCII).stdout == '{"n": "\\u540d"}\n'
    assert shell("meibo query 'select min(name) as n from auth0_users' --csv", **ASCII).stdout == "n\n名\n"
    assert "名" in shell("meibo query \"select '名' as n\" --csv", **ASCII).stdout


def test_export_and_page_are_written_to_stdout(shell: Shell) -> None:
    assert shell("meibo get acme -o - | gunzip -cf | head -c 21").stdout == '{"user_id": "auth0|0"'
    assert shell("meibo report -o -").stdout.startswith("<!doctype html>")


@pytest.mark.parametrize("command", ["ls", "report", "verify", "get acme", "diff latest previous"])
def test_folder_without_runs_is_an_error(meibo: Meibo, command: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    result = meibo(*command.split(), "--archive", "empty")

    assert result.status == 2
    assert result.errors.startswith("empty contains no")
    assert result.errors.count("\n") == 1


@pytest.fixture(scope="module")
def large_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs with files that are large enough to interrupt a command that reads them."""
    folder = tmp_path_factory.mktemp("large")
    builder = ArchiveBuilder(FolderArchive(folder))
    users = [{"user_id": f"auth0|{number}", "email": f"{number}@example.jp"} for number in range(400_000)]
    builder.run({USERS: ndjson(users)}, EARLIER)
    builder.run({USERS: ndjson([{**user, "name": "x"} for user in users])})
    return folder


def test_interrupted_command_exits_with_130(monkeypatch: pytest.MonkeyPatch, archive: Path) -> None:
    def interrupt(_location: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ls, "open_archive", interrupt)

    result = CliRunner().invoke(app, ["ls", "--archive", str(archive)])

    assert (result.exit_code, result.stderr) == (exit_codes.EXIT_INTERRUPTED, "interrupted\n")


@pytest.mark.parametrize(
    "words",
    [
        ["query", "select count(*) from range(1000000000) a, range(100000) b"],
        ["diff", EARLIER, "latest", "--csv", "changes.csv"],
        ["verify"],
        ["get", "acme"],
        ["restore", "acme"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.xdist_group("large archive")
def test_long_command_is_interrupted_with_one_line_and_leaves_nothing(
    words: list[str], large_archive: Path, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'layers' / 'meibo'}{os.pathsep}{ROOT / 'src'}",
        "TMPDIR": str(tmp_path),
        "MEIBO_ARCHIVE": str(large_archive),
    }
    with subprocess.Popen(  # noqa: S603  # our own module
        [*COMMAND, *words], env=environment, cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True, text=True
    ) as process:
        # Interrupt the command as soon as it has opened a file of the archive, or has created its own.
        while process.poll() is None and not (any(tmp_path.iterdir()) or _reads(process.pid, large_archive)):
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)

    assert errors.replace(AUTH0_NOT_RESTORABLE, "").strip() == "interrupted"
    assert process.returncode == exit_codes.EXIT_INTERRUPTED
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    ("module", "content"),
    [
        ("duckdb", "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(9)\nexcept BaseException:\n    pass"),
        ("sitecustomize", "import atexit\natexit.register(os.kill, os.getpid(), signal.SIGINT)"),
    ],
    ids=["import", "exit"],
)
def test_interruption_outside_of_a_command_is_one_line(module: str, content: str, shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / f"{module}.py").write_text(f"import os, signal, time\n{content}\n", encoding="utf-8")

    result = shell(f"PYTHONPATH={folder}:$PYTHONPATH meibo --version")

    assert (result.returncode, result.stderr) == (exit_codes.EXIT_INTERRUPTED, "interrupted\n")


def _reads(pid: int, folder: Path) -> bool:
    try:
        files = list(Path(f"/proc/{pid}/fd").iterdir())
        return any(str(path.readlink()).startswith(str(folder)) for path in files)
    except OSError:
        return False


def test_end_of_stdin_is_not_an_answer(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def abort(_location: str) -> None:
        raise typer.Abort

    monkeypatch.setattr(ls, "open_archive", abort)

    result = CliRunner().invoke(app, ["ls", "--archive", str(archive)])

    assert result.exit_code == exit_codes.EXIT_FAILURE
    assert result.stderr == "\nstdin ended without an answer; use --yes to run the command without questions\n"


def test_exit_codes_are_documented() -> None:
    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    documented = {int(number) for number in re.findall(r"^\| ([0-9]+) \|", text, re.MULTILINE)}

    assert documented == {0} | {value for name, value in vars(exit_codes).items() if name.startswith("EXIT_")}
