"""``meibo init``: the questions, the written files, and the examples in the repository."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jsonschema
import pytest
import typer
from typer.testing import CliRunner

from meibo.configuration import configuration_schema, parse_configuration
from meibo_cli.commands.init import env_text
from meibo_cli.main import app
from meibo_cli.sources import read_env_file

ROOT = Path(__file__).parents[3]
NEXT = "wrote sources.json, sources.schema.json, .env\nnext: enter the credentials in .env, then run `meibo check`\n"

Init = Callable[..., Any]


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Init:
    """Run the command in an empty folder, with the answers as its standard input."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, answers: str = "") -> Any:
        result = CliRunner().invoke(app, ["init", *arguments], input=answers)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def sources(path: str = "sources.json") -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))["sources"]


def files() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def test_answers_become_a_configuration(init: Init) -> None:
    answers = ["auth0", "acme.jp.auth0.com", "", "", "y", "cybozu", "example", "hr", "users, members", "n"]

    result = init(answers="\n".join(answers) + "\n")

    assert result.exit_code == 0
    assert result.stdout.endswith(NEXT)
    assert sources() == [
        {
            "provider": "auth0",
            "name": "acme",
            "domain": "acme.jp.auth0.com",
            "secret": "meibo/acme",
            "exports": [{"dataset": "users"}, {"dataset": "organizations"}, {"dataset": "members"}],
        },
        {
            "provider": "cybozu",
            "name": "hr",
            "base_url": "https://example.cybozu.com",
            "secret": "meibo/hr",
            "exports": [{"dataset": "users", "format": "csv"}, {"dataset": "members", "format": "ndjson"}],
        },
    ]
    parse_configuration(Path("sources.json").read_text(encoding="utf-8"))
    assert files() == [".env", "sources.json", "sources.schema.json"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in Path().iterdir()} == {0o600}


def test_written_schema_is_that_of_the_document(init: Init) -> None:
    init("--yes", "--provider", "auth0", "--domain", "acme.auth0.com")

    document = json.loads(Path("sources.json").read_text(encoding="utf-8"))
    schema = json.loads(Path(document["$schema"]).read_text(encoding="utf-8"))
    assert schema == configuration_schema()
    jsonschema.validate(document, schema)


def test_variables_have_no_values(init: Init) -> None:
    init("--yes", "--provider", "cybozu", "--domain", "https://example.cybozu.com/", "--name", "hr-jp")

    assert read_env_file(Path(".env")) == {"MEIBO_HR_JP_LOGIN": "", "MEIBO_HR_JP_PASSWORD": ""}
    text = Path(".env").read_text(encoding="utf-8")
    assert "# hr-jp (cybozu.com): login and password, or api_token\nMEIBO_HR_JP_LOGIN=\n" in text
    assert "# MEIBO_HR_JP_API_TOKEN=\n" in text


def test_options_replace_questions(init: Init) -> None:
    result = init("--yes", "--provider", "auth0", "--domain", "https://Acme.EU.auth0.com/", "--dataset", "users")

    assert (result.exit_code, result.stdout, result.stderr) == (0, NEXT, "")
    (source,) = sources()
    assert (source["domain"], source["name"], source["exports"]) == (
        "acme.eu.auth0.com",
        "acme",
        [{"dataset": "users"}],
    )


def test_only_missing_values_are_asked(init: Init) -> None:
    result = init("--provider", "auth0", "--name", "prod", answers="acme.auth0.com\nusers\nn\n")

    assert result.exit_code == 0
    assert result.stderr.startswith("domain, such as acme.jp.auth0.com:datasets to archive (")
    assert sources()[0]["name"] == "prod"


def test_domains_without_a_csv_api_are_archived_as_ndjson(init: Init) -> None:
    init("--yes", "--provider", "cybozu", "--domain", "example.kintone.com")

    (source,) = sources()
    assert source["base_url"] == "https://example.kintone.com"
    assert source["exports"] == [{"dataset": "directory", "format": "ndjson"}]


def test_invalid_answers_are_explained_and_asked_again(init: Init) -> None:
    answers = ["okta", "auth0", "acme auth0", "acme.auth0.com", "Acme!", "acme", "users,logs", "users", "maybe", "n"]

    result = init(answers="\n".join(answers) + "\n")

    assert result.exit_code == 0
    assert re.findall(r"Error: (.+)", result.stderr) == [
        "expected auth0 or cybozu, found 'okta'",
        "domain: expected a host name such as acme.jp.auth0.com",
        "name: expected lower-case letters, digits and hyphens, such as acme-jp",
        "expected one or more of users, organizations, members, roles, role_members, found 'logs'",
        "invalid input",
    ]


def test_name_of_another_source_is_not_accepted(init: Init) -> None:
    answers = ["auth0", "acme.auth0.com", "", "", "y", "auth0", "acme.eu.auth0.com", "", "acme-eu", "", "n"]

    result = init(answers="\n".join(answers) + "\n")

    assert "'acme' is already the name of sources[0]" in result.stderr
    assert [source["name"] for source in sources()] == ["acme", "acme-eu"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--provider", "okta"), "--provider: expected auth0 or cybozu, found 'okta'"),
        (("--provider", "auth0"), "--yes requires --domain"),
        ((), "--yes requires --provider"),
        (("--provider", "auth0", "--domain", "acme/"), None),
        (
            ("--provider", "auth0", "--domain", "a b"),
            "--domain: domain: expected a host name such as acme.jp.auth0.com",
        ),
        (
            ("--provider", "auth0", "--domain", "a.auth0.com", "--dataset", "logs"),
            "--dataset: expected one or more of users, organizations, members, roles, role_members, found 'logs'",
        ),
    ],
)
def test_invalid_options_are_refused(init: Init, arguments: tuple[str, ...], message: str | None) -> None:
    result = init("--yes", *arguments)

    if message is None:
        assert result.exit_code == 0
        return
    assert (result.exit_code, result.stderr) == (2, f"{message}\n")
    assert files() == []


@pytest.mark.parametrize("name", ["sources.json", "sources.schema.json", ".env"])
def test_existing_files_are_not_overwritten(init: Init, name: str) -> None:
    Path(name).write_text("mine", encoding="utf-8")

    result = init("--yes", "--provider", "auth0", "--domain", "acme.auth0.com")

    assert result.exit_code == 2
    assert result.stderr == (
        f"{name} already exists and is not overwritten; remove it, or choose another folder with --sources\n"
    )
    assert (files(), Path(name).read_text(encoding="utf-8")) == ([name], "mine")


def test_end_of_the_input_leaves_nothing(init: Init) -> None:
    result = init(answers="auth0\nacme.auth0.com\n")

    assert result.exit_code == 2
    assert result.stderr.endswith("\nstdin ended without an answer; use --yes to run the command without questions\n")
    assert files() == []


def test_interruption_leaves_nothing(init: Init, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **options: object) -> NoReturn:
        abort = typer.Abort()
        abort.__context__ = KeyboardInterrupt()  # as typer.prompt
        raise abort

    monkeypatch.setattr(typer, "prompt", interrupt)

    result = init()

    assert (result.exit_code, result.stderr) == (130, "\ninterrupted\n")
    assert files() == []


def test_interruption_between_the_files_leaves_nothing(init: Init, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link
    calls = []

    def second_is_interrupted(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        link(*arguments)

    monkeypatch.setattr(os, "link", second_is_interrupted)

    result = init("--yes", "--provider", "auth0", "--domain", "acme.auth0.com")

    assert result.exit_code == 130
    assert files() == []


def test_examples_in_the_repository_are_valid() -> None:
    text = (ROOT / "sources.example.json").read_text(encoding="utf-8")
    document = json.loads(text)

    configuration = parse_configuration(text)

    assert (ROOT / ".env.example").read_text(encoding="utf-8") == env_text(configuration)
    schema = json.loads((ROOT / document["$schema"]).read_text(encoding="utf-8"))
    jsonschema.validate(document, schema)
