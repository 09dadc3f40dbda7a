"""Control characters from the provider and from the file are escaped."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from meibo_cli.commands.changes import send
from meibo_cli.main import app


def test_ids_of_the_tenant_do_not_control_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given: two users with the same address
    ids = ["auth0|\x1b]0;title\x07", "auth0|[/x]\u202e"]
    monkeypatch.setattr(send, "_user_lookup", lambda *_: lambda _email: ids)
    path = tmp_path / "joiners.csv"
    path.write_text("organization,action,member\norg_0000000000000001,add,taro@example.com\n", encoding="utf-8")

    result = CliRunner().invoke(app, ["changes", "send", str(path), "--source", "acme", "--yes"])

    assert result.exit_code == 2
    assert "auth0|\\u001b]0;title\\u0007, auth0|[/x]\\u202e" in result.output
    assert result.output.replace("\n", "").isprintable()
