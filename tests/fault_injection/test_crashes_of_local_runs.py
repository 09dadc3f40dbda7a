"""Kill ``meibo run`` before each file that it publishes, and run it again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from meibo.providers import clear_clients
from tests.integration.cli.conftest import invoke
from tests.support.local_runs import LocalRuns, local_runs

# The marker, the plan, the attempt's list of exports, the part of the organizations with its record, three files with
# their manifests, the run manifest and the report.
PUBLISHED_FILES = 13


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalRuns]:
    with local_runs(tmp_path, monkeypatch) as runs:
        runs.configure([{"dataset": "users"}, {"dataset": "organizations"}], [{"dataset": "titles"}])
        yield runs


@pytest.mark.parametrize("number", range(1, PUBLISHED_FILES + 1))
def test_run_killed_before_any_file_is_completed_by_the_next_run(runs: LocalRuns, number: int) -> None:
    runs.variables["KILLED_AT_LINK"] = str(number)
    killed = runs.run()

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    runs.assert_complete_or_absent()
    clear_clients()
    repaired = invoke("run")

    assert repaired.status == 0, repaired.errors
    assert "3 of 3 exports archived" in repaired.output
    assert runs.assert_complete_or_absent() >= 3
    assert runs.temporary_files() == []
    newest = max(runs.documents("runs/**/_manifest*.json"), key=lambda run: (run["run_id"], run["attempt"]))
    assert newest["complete"] is True


def test_run_publishes_no_other_files(runs: LocalRuns) -> None:
    runs.variables["KILLED_AT_LINK"] = str(PUBLISHED_FILES + 1)

    assert runs.run().returncode == 0
