"""Kill ``meibo run`` before each file that it publishes, and run it again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from meibo_simulators import SimulatedDomain, SimulatedTenant, Simulators
from tests.support.local_runs import LocalRuns

# The marker, the plan, the attempt's list of exports, the record of the organizations' only part, which is empty, three
# files with their manifests, the run manifest and the report.
PUBLISHED_FILES = 12


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[LocalRuns]:
    tenant = SimulatedTenant("acme", users=30)
    tenant.switches.polls_until_completed = 0
    with Simulators([tenant], [SimulatedDomain("example", users=10)]) as simulators:
        runs = LocalRuns(tmp_path, simulators)
        runs.configure([{"dataset": "users"}, {"dataset": "organizations"}], [{"dataset": "titles"}])
        yield runs


@pytest.mark.parametrize("number", range(1, PUBLISHED_FILES + 1))
def test_run_that_is_killed_before_a_file_is_completed_by_the_next(runs: LocalRuns, number: int) -> None:
    runs.variables["KILLED_AT_LINK"] = str(number)
    killed = runs.run()

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    runs.assert_complete_or_absent()
    del runs.variables["KILLED_AT_LINK"]
    repaired = runs.run()

    assert repaired.returncode == 0, repaired.stderr
    assert "3 of 3 exports archived" in repaired.stdout
    assert runs.assert_complete_or_absent() >= 3
    assert runs.temporary_files() == []
    newest = max(runs.documents("runs/**/_manifest*.json"), key=lambda run: (run["run_id"], run["attempt"]))
    assert newest["complete"] is True


def test_run_publishes_no_other_files(runs: LocalRuns) -> None:
    runs.variables["KILLED_AT_LINK"] = str(PUBLISHED_FILES + 1)

    assert runs.run().returncode == 0
