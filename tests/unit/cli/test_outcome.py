"""The latest outcome of each member is shown, and control characters in records are escaped."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from meibo_cli.main import app

ORGANIZATION = "org_0000000000000001"
DAY = datetime.now(UTC) - timedelta(days=2)

Outcome = Callable[..., Result]


@pytest.fixture
def outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*options: str) -> Result:
        return CliRunner().invoke(app, ["changes", "outcome", "hr-1", "--archive", str(tmp_path), *options])

    return invoke


def _record(archive: Path, message: str, *lines: dict[str, Any], hours: int = 0) -> None:
    """Write the outcome record of a message that was sent ``hours`` after the first day."""
    sent = DAY + timedelta(hours=hours)
    folder = archive / "changes" / "source=acme" / f"dt={sent:%Y-%m-%d}"
    folder.mkdir(parents=True, exist_ok=True)
    common = {
        "version": 1,
        "message_id": message,
        "change_id": "hr-1",
        "source": "acme",
        "organization_id": ORGANIZATION,
        "action": "add",
        "sent_at": f"{sent.isoformat(timespec='milliseconds')[:-6]}Z",
        "at": f"{(sent + timedelta(seconds=1)).isoformat(timespec='milliseconds')[:-6]}Z",
    }
    text = "".join(json.dumps({**common, **line}) + "\n" for line in lines)
    (folder / f"{message}.ndjson").write_text(text, encoding="utf-8")


def _line(member: str, outcome: str, **more: Any) -> dict[str, Any]:
    return {"member": member, "outcome": outcome, **more}


def test_repaired_member_counts_as_applied(tmp_path: Path, outcome: Outcome) -> None:
    # given: the record of the repaired message sorts before that of the rejected one
    _record(tmp_path, "m-2", _line("auth0|1", "applied"), _line("auth0|2", "rejected", reason="refused"))
    _record(tmp_path, "m-1", _line("auth0|2", "applied"), hours=1)

    shown, only_rejected, as_json = outcome(), outcome("--rejected"), outcome("--json")

    assert shown.exit_code == 0, shown.output
    assert "2 applied" in shown.output
    assert "rejected" not in shown.output
    assert only_rejected.exit_code == 0
    assert "auth0|2" not in only_rejected.output
    assert [json.loads(line)["outcome"] for line in as_json.stdout.splitlines()] == ["applied", "applied"]


def test_member_that_is_rejected_again_counts_once(tmp_path: Path, outcome: Outcome) -> None:
    _record(tmp_path, "m-1", _line("auth0|1", "rejected", reason="first"))
    _record(tmp_path, "m-2", _line("auth0|1", "rejected", reason="second"), hours=25)

    shown = outcome()

    assert shown.exit_code == 1
    assert "1 rejected" in shown.output
    assert "second" in shown.output
    assert "first" not in shown.output


@pytest.mark.parametrize("other", [{"action": "remove"}, {"organization_id": "org_0000000000000002"}])
def test_other_action_or_organization_does_not_supersede_a_rejection(
    tmp_path: Path, outcome: Outcome, other: dict[str, str]
) -> None:
    _record(tmp_path, "m-1", _line("auth0|1", "rejected"))
    _record(tmp_path, "m-2", _line("auth0|1", "applied", **other), hours=1)

    shown = outcome()

    assert shown.exit_code == 1
    assert "1 applied, 1 rejected" in shown.output


def test_recorded_text_does_not_control_the_terminal(tmp_path: Path, outcome: Outcome) -> None:
    member, reason = "auth0|[/x][red]:cat:\x1b[2J", "\x9b31m[bold]\u202e\\"
    _record(tmp_path, "m-1", _line(member, "rejected", reason=reason))

    shown, as_json = outcome(), outcome("--json")

    assert shown.exit_code == 1, shown.output
    assert "auth0|[/x][red]:cat:\\u001b[2J" in shown.output
    assert "\\u009b31m[bold]\\u202e\\" in shown.output
    assert all(character.isprintable() for character in (shown.output + as_json.stdout).replace("\n", ""))
    document = json.loads(as_json.stdout)
    assert (document["member"], document["reason"]) == (member, reason)
