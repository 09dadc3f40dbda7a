"""Register the provider of docs/adding-a-provider.md and archive from it, without any other change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from meibo.providers import PROVIDERS
from meibo_cli.main import app
from meibo_local.template import ROOT
from tests.support.stack import System

SOURCE = {
    "provider": "payroll",
    "name": "staff",
    "host": "payroll.example.com",
    "secret": "meibo/staff",
    "exports": [{"dataset": "employees"}],
}


@pytest.fixture(autouse=True)
def payroll(monkeypatch: pytest.MonkeyPatch) -> None:
    (code, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/adding-a-provider.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "payroll"}
    exec(compile(code, "docs/adding-a-provider.md", "exec", dont_inherit=True), names)  # noqa: S102  # the code of our own document
    monkeypatch.setitem(PROVIDERS, "payroll", names["PayrollProvider"]())


def test_documented_provider_is_archived(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system.configure(SOURCE, secrets={"meibo/staff": {"token": "t"}})

    first = system.run()
    system.run(days=1)

    # then: its rows are archived
    assert first["complete"]
    (export,) = first["exports"]
    assert export["key"].startswith(
        "archive/provider=payroll/source=staff/dataset=employees/format=ndjson/scope=all/dt=2026-11-21/"
    )
    assert (export["rows"], export["verdict"]) == (2, "ok")

    # and: the commands of the CLI read them
    system.aws.download(tmp_path)
    monkeypatch.setenv("MEIBO_ARCHIVE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")

    def meibo(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 0, result.output
        return result.output

    assert "staff/employees/ndjson/all" in meibo("ls")
    assert "Suzuki Ichiro" in meibo("query", "select name from payroll_employees where number = 2")
    assert "staff/employees/ndjson/all" in meibo("diff", "previous", "latest", "--all")
    meibo("verify")
