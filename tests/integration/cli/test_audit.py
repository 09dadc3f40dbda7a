"""The commands of docs/audit.md, run on an archive of three days."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from meibo.archive.keys import ExportAddress
from meibo_local.template import ROOT
from tests.integration.cli.conftest import CommandResult, Meibo
from tests.support.archives import USERS, ArchiveBuilder, FolderArchive, ndjson

RUNS = [f"202611{day}T180000Z" for day in (19, 20, 21)]
MEMBERS = ExportAddress(provider="auth0", source="acme", dataset="members", format="ndjson", scope="all")
ROLE_MEMBERS = ExportAddress(provider="auth0", source="acme", dataset="role_members", format="ndjson", scope="all")
ORGANIZATION = "org_0000000000000001"
PAGE = (ROOT / "docs/audit.md").read_text(encoding="utf-8")
USER = "auth0|000000000000000000000001"
ADDED = "auth0|000000000000000000000002"


@pytest.fixture
def storage(tmp_path: Path) -> Any:
    return FolderArchive(tmp_path / "archive")


@pytest.fixture(autouse=True)
def _archive(builder: ArchiveBuilder) -> None:
    for number, run in enumerate(RUNS):
        users: list[dict[str, Any]] = [{"user_id": USER, "blocked": number > 1}, {"user_id": ADDED}]
        member = {
            "organization_id": ORGANIZATION,
            "user_id": USER,
            "name": "名",
            "roles": [{"id": "r", "name": "admin"}],
        }
        others = [{**member, "organization_id": "org_2", "roles": []}, *([member] if number > 1 else [])]
        assignments = [{"role_id": "rol_0000000000000001", "user_id": USER}] if number > 1 else []
        builder.run(
            {
                USERS: ndjson(users if number > 1 else users[:1]),
                MEMBERS: ndjson(others),
                ROLE_MEMBERS: ndjson(assignments),
            },
            run,
        )


def commands(heading: str) -> list[list[str]]:
    """Return the ``meibo`` commands of a section."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = "".join(re.findall(r"```bash\n(.*?)```", section, re.DOTALL)).splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("meibo ")]


def answers(meibo: Meibo, heading: str) -> list[CommandResult]:
    results = [meibo(*command) for command in commands(heading)]
    assert results
    assert [result.status for result in results] == [0] * len(results), [result.errors for result in results]
    return results


def test_members_of_an_organization_are_those_of_the_day(meibo: Meibo) -> None:
    (members,) = answers(meibo, "Who was a member of an organization on a day?")

    assert members.output.count(USER) == 1
    assert RUNS[2] in members.output


def test_roles_are_found_in_the_tenant_and_in_organizations(meibo: Meibo) -> None:
    in_tenant, in_organizations = answers(meibo, "Who had a role on a day?")

    assert USER in in_tenant.output
    assert in_organizations.output.count(ORGANIZATION) == 1
    assert "org_2" not in in_organizations.output


def test_run_in_which_a_user_was_blocked_is_named(meibo: Meibo) -> None:
    (blocked,) = answers(meibo, "When was a user blocked?")

    (line,) = [line for line in blocked.output.splitlines() if "changed" in line]
    assert RUNS[2] in line
    assert "blocked: false → true" in line


def test_added_users_are_listed(meibo: Meibo) -> None:
    _, _, first_runs = answers(meibo, "Who was added since a date?")

    assert f"{USERS.export_id},added,{ADDED}," in Path("changes.csv").read_text(encoding="utf-8")
    assert ADDED in first_runs.output
    assert USER not in first_runs.output


def test_history_contains_memberships_and_roles(meibo: Meibo) -> None:
    (history,) = answers(meibo, "What happened to a user?")

    assert f"organization_id={ORGANIZATION}" in history.output
    assert "role_id=rol_0000000000000001" in history.output


def test_archive_is_verified(meibo: Meibo) -> None:
    everything, run = answers(meibo, "Was the archive altered?")

    assert "9 exports" in everything.output
    assert run.json()["damage"] == []


def test_question_about_a_day_without_a_run_names_the_days_of_the_archive(meibo: Meibo) -> None:
    ((_, sql),) = commands("Who was a member of an organization on a day?")

    result = meibo("query", sql.replace("2026-11-21", "2026-11-22"))

    assert (result.status, result.output) == (0, "")
    assert "0 rows" in result.errors
    assert "days: 2026-11-19 to 2026-11-21" in result.errors
