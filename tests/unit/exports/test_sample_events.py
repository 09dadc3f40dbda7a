"""The sample events are accepted by the functions and include every dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meibo.configuration import parse_configuration
from meibo.exports.events import parse_create_event, parse_export_event, parse_finish_event
from meibo.exports.resolve import resolve
from meibo.providers.base import ProviderContext
from tests.unit.exports.conftest import auth0_source, cybozu_source

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
    sources = [
        auth0_source({"dataset": "users"}, {"dataset": "organizations"}, {"dataset": "members"}),
        cybozu_source({"dataset": "directory"}, {"dataset": "directory", "format": "ndjson"}),
    ]
    configured = resolve(parse_configuration(json.dumps({"sources": sources})), ProviderContext(lambda: 900.0))

    samples = [parse_export_event(json.loads(path.read_text())).export for path in EVENTS.glob("archive_export.*.json")]

    assert {(export.provider, export.dataset, export.format) for export in configured} <= {
        (export.provider, export.dataset, export.format) for export in samples
    }
