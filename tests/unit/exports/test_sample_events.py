"""The sample events are accepted by the functions and include every dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meibo.exports.events import parse_create_event, parse_export_event, parse_finish_event
from meibo.providers import all_providers

EVENTS = Path(__file__).parents[3] / "events"
PARSERS = {
    "create_exports": parse_create_event,
    "check_export": parse_export_event,
    "archive_export": parse_export_event,
    "finish_run": parse_finish_event,
}
SAMPLES = sorted(path for path in EVENTS.glob("*.json") if path.name.split(".")[0] in PARSERS)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_sample_event_is_accepted(path: Path) -> None:
    assert PARSERS[path.name.split(".")[0]](json.loads(path.read_text()))


def test_every_dataset_has_a_sample_event_in_every_format() -> None:
    # The end-to-end tests send each event. A job creates a file in one format, so a dataset with a job has one event.
    samples = [parse_export_event(json.loads(path.read_text())).export for path in EVENTS.glob("archive_export.*.json")]

    assert {
        (provider.name, dataset.name, export_format)
        for provider in all_providers()
        for dataset in provider.datasets
        for export_format in (dataset.formats[:1] if dataset.reading == "job" else dataset.formats)
    } - {(export.provider, export.dataset, export.format) for export in samples} == set()
