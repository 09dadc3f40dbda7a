"""A written manifest can be read again. The error for an invalid manifest names the field."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meibo.archive.keys import ExportAddress
from meibo.archive.manifest import (
    ArchivedContent,
    ArchivedExport,
    ArchivedObject,
    ArchivingDetails,
    ExportManifest,
    ManifestJob,
    MissingExport,
    ObjectChecksum,
    RunCounts,
    RunManifest,
    Sanity,
)
from meibo.errors import ArchiveConflictError, ConfigurationError
from tests.support.archives import RUN, STAFF, USERS, export_manifest

KEY = "archive/_manifest.json"
RUN_KEY = "runs/_manifest.json"

TEXT = st.text(min_size=1, max_size=20)
COUNT = st.integers(0, 10**12)


def _manifest(address: ExportAddress, **fields: Any) -> ExportManifest:
    return ExportManifest(export_id=address.export_id, address=address, **fields)


MANIFESTS = st.builds(
    _manifest,
    run_id=st.just(RUN),
    address=st.sampled_from([USERS, STAFF]),
    request=st.dictionaries(TEXT, st.one_of(TEXT, st.lists(TEXT, max_size=3)), max_size=3),
    job=st.none() | st.builds(ManifestJob, id=TEXT, created_at=TEXT),
    object=st.builds(
        ArchivedObject,
        bucket=TEXT,
        key=TEXT,
        version_id=st.none() | TEXT,
        bytes=COUNT,
        sha256=TEXT,
        checksum=st.builds(ObjectChecksum, algorithm=TEXT, type=TEXT, value=TEXT),
    ),
    content=st.builds(
        ArchivedContent,
        gzip=st.booleans(),
        rows=st.none() | COUNT,
        uncompressed_bytes=st.none() | COUNT,
        columns=st.none() | COUNT | st.lists(TEXT, max_size=4).map(tuple),
        notes=st.dictionaries(st.sampled_from(["parts", "organizations", "skipped"]), COUNT),
    ),
    sanity=st.builds(
        Sanity,
        verdict=st.sampled_from(["ok", "suspect"]),
        previous_run_id=st.none() | TEXT,
        previous_rows=st.none() | COUNT,
        baseline_run_id=st.none() | TEXT,
        baseline_rows=st.none() | COUNT,
        accept_from=st.none() | TEXT,
        reason=st.none() | TEXT,
    ),
    archived=st.builds(
        ArchivingDetails, started_at=TEXT, finished_at=TEXT, meibo_version=TEXT, read_back=st.booleans()
    ),
)


def run_manifest(*manifests: ExportManifest, missing: tuple[MissingExport, ...] = ()) -> RunManifest:
    exports = tuple(ArchivedExport.of(manifest) for manifest in manifests)
    return RunManifest(
        run_id=RUN,
        attempt=1,
        scheduled_time="2026-11-21T18:00:00+00:00",
        finished_at="2026-11-21T18:02:00Z",
        meibo_version="0.1.0",
        complete=not missing,
        counts=RunCounts.of(exports, missing),
        exports=exports,
        missing=missing,
    )


@given(manifest=MANIFESTS)
def test_export_manifest_is_read_as_it_was_written(manifest: ExportManifest) -> None:
    document = json.loads(json.dumps(manifest.to_json()))

    assert ExportManifest.from_json(document, KEY) == manifest


@given(manifests=st.lists(MANIFESTS, max_size=3), reasons=st.lists(TEXT, max_size=2))
def test_run_manifest_is_read_as_it_was_written(manifests: list[ExportManifest], reasons: list[str]) -> None:
    missing = tuple(MissingExport(export_id=f"acme/{n}", error="E", reason=reason) for n, reason in enumerate(reasons))
    manifest = run_manifest(*manifests, missing=missing)
    document = json.loads(json.dumps(manifest.to_json()))

    assert RunManifest.from_json(document, RUN_KEY) == manifest


def _paths(document: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(document, dict):
        return [path]
    return [inner for name, value in document.items() for inner in _paths(value, (*path, name))]


REQUIRED = [
    path
    for path in _paths(export_manifest(USERS).to_json())
    if path[-1] not in {"job", "version_id", "rows", "uncompressed_bytes", "columns"}
    and (path[0] != "sanity" or path[-1] == "verdict")
]


@pytest.mark.parametrize("path", REQUIRED, ids=".".join)
def test_missing_field_of_an_export_manifest_is_named(path: tuple[str, ...]) -> None:
    document = copy.deepcopy(export_manifest(USERS).to_json())
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]

    expected = f"^{re.escape('.'.join((KEY, *path)))}: expected .+, found nothing$"
    with pytest.raises(ArchiveConflictError, match=expected):
        ExportManifest.from_json(document, KEY)


def test_export_id_of_another_export_is_an_error() -> None:
    document = {**export_manifest(USERS).to_json(), "scope": "con_0000000000000001"}

    expected = r"export_id: expected acme/users/ndjson/con_0{15}1, found a different id"
    with pytest.raises(ArchiveConflictError, match=expected):
        ExportManifest.from_json(document, KEY)


@pytest.mark.parametrize("kind", [ExportManifest, RunManifest])
def test_manifest_of_a_later_version_is_an_error(kind: Any) -> None:
    manifest = export_manifest(USERS)
    document = (manifest if kind is ExportManifest else run_manifest(manifest)).to_json()

    expected = f"^{re.escape(KEY)}: expected manifest_version 1, found 2; update Meibo to read it$"
    with pytest.raises(ConfigurationError, match=expected):
        kind.from_json({**document, "manifest_version": 2}, KEY)


def test_manifest_without_a_baseline_has_its_previous_export_as_the_baseline() -> None:
    document = export_manifest(USERS).to_json()
    document["sanity"] = {"verdict": "suspect", "previous_run_id": RUN, "previous_rows": 7, "reason": "no rows"}

    sanity = ExportManifest.from_json(document, KEY).sanity

    assert (sanity.baseline_run_id, sanity.baseline_rows) == (RUN, 7)


@pytest.mark.parametrize("entry", [None, "text", {}, {"manifest_key": "../secret"}])
def test_entry_that_cannot_be_read_is_left_out_and_the_counts_differ(entry: Any) -> None:
    document = run_manifest(export_manifest(USERS), export_manifest(STAFF)).to_json()
    document["exports"][0] = entry

    manifest = RunManifest.from_json(document, RUN_KEY)

    assert [export.export_id for export in manifest.exports] == [STAFF.export_id]
    assert manifest.counts != RunCounts.of(manifest.exports, manifest.missing)
