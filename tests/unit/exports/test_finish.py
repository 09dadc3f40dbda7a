"""Finish a run: the run manifest, recorded failures and the event."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from meibo import errors
from meibo.errors import EventError
from meibo.exports.events import CaughtError
from meibo.exports.finish import RunFinisher
from meibo.exports.plan import PlannedExport
from tests.support.archives import export_manifest
from tests.unit.exports.conftest import RUN, TICK, ExportsHarness

FOLDER = f"runs/dt=2026-11-21/run={RUN}/"


@dataclass
class FinishHarness:
    harness: ExportsHarness
    events: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def finisher(self) -> RunFinisher:
        return RunFinisher(storage=self.harness.storage, publish=self.events.append, now=lambda: TICK)

    def exports(self) -> list[PlannedExport]:
        plan = self.harness.storage.read_json(FOLDER + "_plan.json")
        assert plan is not None
        return [PlannedExport.from_json(entry, "export") for entry in plan["exports"]]

    def archive(self, export: PlannedExport, *, rows: int = 10, reason: str | None = None) -> None:
        manifest = export_manifest(export.address, body=b"x" * 100, rows=rows, reason=reason)
        self.harness.storage.put_json(export.address.manifest_key(RUN), manifest.to_json())


@pytest.fixture
def run(harness: ExportsHarness) -> FinishHarness:
    harness.creator.begin(TICK)
    return FinishHarness(harness)


def test_run_with_all_exports_archived_is_complete(run: FinishHarness) -> None:
    for export in run.exports():
        run.archive(export)

    summary = run.finisher.finish(RUN, 1)

    assert summary["complete"] is True
    assert (summary["planned"], summary["archived"], summary["missing"], summary["rows"]) == (3, 3, 0, 30)
    assert run.events[0]["missing"] == []


def test_missing_exports_are_listed_with_their_reasons(run: FinishHarness) -> None:
    first, second, third = run.exports()
    run.archive(first)
    cause = json.dumps({"errorMessage": "the client secret is wrong", "errorType": "CredentialsRefusedError"})
    run.finisher.record_failure(RUN, 1, second, CaughtError("CredentialsRefusedError", cause))

    summary = run.finisher.finish(RUN, 1)

    assert summary["complete"] is False
    manifest = run.harness.storage.read_json(FOLDER + "_manifest.json")
    assert manifest is not None
    assert manifest["missing"] == [
        {
            "export_id": second.export_id,
            "error": "CredentialsRefusedError",
            "reason": "the client secret is wrong",
        },
        {
            "export_id": third.export_id,
            "error": "Unknown",
            "reason": "no reason was recorded; see the execution's history in Step Functions",
        },
    ]
    assert run.events[0]["missing"] == [second.export_id, third.export_id]


def test_message_of_an_unexpected_error_is_not_recorded(run: FinishHarness) -> None:
    export = run.exports()[0]
    run.finisher.record_failure(RUN, 1, export, CaughtError("KeyError", '{"errorMessage": "taro@example.jp"}'))

    run.finisher.finish(RUN, 1)

    manifest = run.harness.storage.read_json(FOLDER + "_manifest.json")
    assert manifest is not None
    assert manifest["missing"][0]["error"] == "KeyError"
    assert "taro" not in json.dumps(manifest)


def test_suspect_exports_are_counted_and_named(run: FinishHarness) -> None:
    for index, export in enumerate(run.exports()):
        run.archive(export, reason="no rows" if index == 1 else None)

    summary = run.finisher.finish(RUN, 1)

    assert summary["complete"] is True
    assert summary["suspect"] == 1
    assert run.events[0]["suspect"] == [run.exports()[1].export_id]


def test_second_finish_keeps_the_first_manifest(run: FinishHarness) -> None:
    first = run.finisher.finish(RUN, 1)
    for export in run.exports():
        run.archive(export)

    assert run.finisher.finish(RUN, 1) == first


def test_repair_has_its_own_manifest_and_can_complete_the_run(run: FinishHarness) -> None:
    first, *others = run.exports()
    run.archive(first)
    run.finisher.finish(RUN, 1)
    run.harness.workflow.executions[RUN, 1] = "FAILED"
    run.harness.creator.repair(RUN)
    for export in others:
        run.archive(export)

    assert run.finisher.finish(RUN, 2)["complete"] is True
    assert run.harness.storage.exists(FOLDER + "_manifest-2.json")
    manifest = run.harness.storage.read_json(FOLDER + "_manifest.json")
    assert manifest is not None
    assert manifest["complete"] is False


def test_run_without_a_plan_is_an_event_error() -> None:
    with pytest.raises(EventError, match=f"^run {RUN}: expected a plan in the archive, found none; check the id"):
        RunFinisher(storage=ExportsHarness(None).storage).finish(RUN, 1)  # type: ignore[arg-type]  # no configuration is read


def test_every_error_of_meibo_is_recorded_with_a_reason(run: FinishHarness) -> None:
    names = [name for name, kind in vars(errors).items() if isinstance(kind, type) and name.endswith("Error")]
    for name, export in zip(names, run.exports() * len(names), strict=False):
        run.harness.storage.objects = {k: v for k, v in run.harness.storage.objects.items() if "_failures" not in k}

        run.finisher.record_failure(RUN, 1, export, CaughtError(name))

        (record,) = [k for k in run.harness.storage.objects if "_failures" in k]
        document = run.harness.storage.read_json(record)
        assert document is not None
        assert document["reason"]
