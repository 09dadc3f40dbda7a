"""Kill ``meibo run`` before each file that it publishes, and run it again."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from meibo_simulators import SimulatedDomain, SimulatedTenant, Simulators
from tests.support.local_runs import LocalRuns

# More than the run publishes.
MAX_FILES = 30


def test_run_that_is_killed_before_any_of_its_files_is_completed_by_the_next(tmp_path: Path) -> None:
    tenant = SimulatedTenant("acme", users=30, organizations=2)
    tenant.switches.polls_until_completed = 0
    kills = 0
    with Simulators([tenant], [SimulatedDomain("example", users=10)]) as simulators:
        for number in range(1, MAX_FILES):
            folder = tmp_path / str(number)
            folder.mkdir()
            runs = LocalRuns(folder, simulators)
            runs.configure([{"dataset": "users"}, {"dataset": "organizations"}], [{"dataset": "titles"}])
            runs.variables["KILLED_AT_LINK"] = str(number)
            killed = runs.run()
            if killed.returncode == 0:
                break
            kills += 1
            assert killed.returncode == -signal.SIGKILL, killed.stderr
            runs.assert_complete_or_absent()
            del runs.variables["KILLED_AT_LINK"]

            repaired = runs.run()

            assert repaired.returncode == 0, (number, repaired.stderr)
            assert runs.assert_complete_or_absent() >= 3
            assert runs.temporary_files() == []
            newest = max(runs.documents("runs/**/_manifest*.json"), key=lambda run: (run["run_id"], run["attempt"]))
            assert newest["complete"] is True
            assert re.search(r"3 of 3 exports archived", repaired.stdout)
    # The marker, the plan, the list of the attempt, the part of the organizations and its record, three files with
    # their manifests, the run manifest and the report.
    assert kills == 13
