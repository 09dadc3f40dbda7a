"""``meibo verify``: every kind of damage is detected and named."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from meibo.archive.keys import plan_key, report_key, run_id_of
from meibo.archive.storage import S3Reader
from meibo.archive.verification import Verifier, plan_everything, plan_runs
from meibo.formatting import format_count
from tests.integration.cli.conftest import Meibo
from tests.support.archives import (
    RUN,
    STAFF_CSV,
    USERS,
    USERS_CSV,
    ArchiveBuilder,
    BucketArchive,
    FolderArchive,
    Storage,
    ndjson,
)

OLD = "20260101T000000Z"
PEOPLE = [{"user_id": f"auth0|{n}", "name": "名簿"} for n in range(50)]
BODY = ndjson(PEOPLE)
STAFF = b'"\xe5\x90\x8d","two\r\nlines"\r\n"b","c"\r\n'
KEY = USERS.object_key(OLD, gzip=True)
MANIFEST = USERS.manifest_key(OLD)
RUN_MANIFEST = "runs/dt=2026-01-01/run=20260101T000000Z/_manifest.json"

Damager = Callable[[ArchiveBuilder], object]


@pytest.fixture(autouse=True)
def _archived(builder: ArchiveBuilder) -> None:
    builder.run({USERS: BODY, STAFF_CSV: STAFF}, OLD)


def replace(builder: ArchiveBuilder, body: bytes, *, rehash: bool = False) -> None:
    """Replace the object's bytes; in a bucket, also the version id in the manifest."""
    version = builder.storage.put(KEY, body)
    if version:
        builder.edit(MANIFEST, "object", "version_id", value=version)


def flip(builder: ArchiveBuilder) -> None:
    replace(builder, BODY[:-20] + bytes([BODY[-20] ^ 4]) + BODY[-19:])


def extra(key: str) -> Damager:
    return lambda builder: builder.storage.put(key, b"{}")


DAMAGES: list[Any] = [
    pytest.param(flip, {"different SHA-256", "invalid content"}, KEY, id="a flipped bit"),
    pytest.param(
        lambda m: replace(m, BODY[:-9]), {"truncated", "different SHA-256", "invalid content"}, KEY, id="truncated"
    ),
    pytest.param(lambda m: replace(m, BODY + b"\0"), {"longer", "different SHA-256"}, KEY, id="longer"),
    pytest.param(
        lambda m: replace(m, ndjson(PEOPLE[:49])),
        {"truncated", "different SHA-256", "different number of rows"},
        KEY,
        id="fewer rows",
    ),
    pytest.param(
        lambda m: replace(m, gzip.decompress(BODY)),
        {"longer", "different SHA-256", "invalid content"},
        KEY,
        id="no longer gzip",
    ),
    pytest.param(lambda m: m.storage.delete(KEY), {"missing object"}, KEY, id="missing object"),
    pytest.param(lambda m: m.storage.delete(MANIFEST), {"missing manifest"}, MANIFEST, id="missing manifest"),
    pytest.param(
        lambda m: m.storage.delete(RUN_MANIFEST), {"missing run manifest"}, RUN_MANIFEST, id="missing run manifest"
    ),
    pytest.param(lambda m: m.storage.put(MANIFEST, b"{"), {"altered manifest"}, MANIFEST, id="manifest no JSON"),
    pytest.param(lambda m: m.storage.put(MANIFEST, b"{}"), {"altered manifest"}, MANIFEST, id="manifest emptied"),
    pytest.param(
        lambda m: m.edit(MANIFEST, "object", "sha256", value="0" * 64),
        {"altered manifest", "different SHA-256"},
        MANIFEST,
        id="digest altered",
    ),
    pytest.param(
        lambda m: m.edit(MANIFEST, "sanity", "verdict", value="suspect"),
        {"altered manifest"},
        MANIFEST,
        id="verdict altered",
    ),
    pytest.param(
        lambda m: m.edit(MANIFEST, "content", "rows", value=7),
        {"altered manifest", "different number of rows"},
        MANIFEST,
        id="rows altered",
    ),
    pytest.param(
        lambda m: m.edit(MANIFEST, "run_id", value=RUN), {"altered manifest"}, MANIFEST, id="manifest of another run"
    ),
    pytest.param(
        lambda m: m.put_json(RUN_MANIFEST, {**json.loads(m.storage.get(RUN_MANIFEST)), "exports": [{}]}),
        {"altered run manifest", "unexpected object"},
        RUN_MANIFEST,
        id="run manifest altered",
    ),
    pytest.param(
        lambda m: m.edit(RUN_MANIFEST, "counts", "rows", value=1),
        {"altered run manifest"},
        RUN_MANIFEST,
        id="counts altered",
    ),
    pytest.param(
        lambda m: m.storage.put(RUN_MANIFEST, b"x"), {"altered run manifest"}, RUN_MANIFEST, id="run manifest no JSON"
    ),
    pytest.param(
        extra(f"{USERS.folder(OLD)}more.json"),
        {"unexpected object"},
        f"{USERS.folder(OLD)}more.json",
        id="an extra beside an object",
    ),
    pytest.param(extra("archive/notes.txt"), {"unexpected object"}, "archive/notes.txt", id="an extra in no folder"),
    pytest.param(
        extra(USERS_CSV.object_key(OLD, gzip=True)),
        {"unexpected object", "missing manifest"},
        USERS_CSV.object_key(OLD, gzip=True),
        id="an export that no run lists",
    ),
]


def test_object_with_several_kinds_of_damage_counts_once(builder: ArchiveBuilder, meibo: Meibo) -> None:
    flip(builder)

    *findings, summary = meibo("verify").output.splitlines()

    keys = {finding.partition(" archive/")[2].partition(": ")[0] for finding in findings}
    assert len(findings) > len(keys)
    assert summary.endswith(f"read completely: {format_count(len(keys), 'damaged object')}")


def test_unchanged_archive_has_no_damage(meibo: Meibo) -> None:
    for arguments in ((), ("--quick",), ("acme",), ("--run", OLD), ("--run", "latest")):
        result = meibo("verify", *arguments)
        assert result.status == 0, result.output
        assert "no damage" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("unknown",), "contains no export that matches 'unknown'"),
        (("--run", "20250101T000000Z"), "contains no run 20250101T000000Z"),
        (("--run", "last"), "expected a run id such as 20261121T180000Z, latest or previous, found 'last'"),
        (("--run", "2026"), "expected a run id such as 20261121T180000Z, latest or previous, found '2026'"),
        (("--run", "previous"), "contains no finished run before the latest"),
    ],
)
def test_selection_without_exports_is_an_error(meibo: Meibo, arguments: tuple[str, ...], words: str) -> None:
    result = meibo("verify", *arguments)

    assert (result.status, result.output) == (2, "")
    assert words in result.errors


def test_run_in_progress_is_not_checked(meibo: Meibo, storage: Storage) -> None:
    run_id = run_id_of(datetime.now(UTC))
    storage.put(plan_key(run_id), b'{"exports": []}')

    result = meibo("verify", "--run", run_id)

    assert result.status == 2
    assert f"run {run_id} is in progress and was skipped" in result.output
    assert meibo("verify").status == 0


def test_exports_of_a_run_without_a_run_manifest_are_verified(builder: ArchiveBuilder, meibo: Meibo) -> None:
    builder.storage.delete(RUN_MANIFEST)

    result = meibo("verify", "--run", OLD)

    assert result.status == 1
    assert "missing run manifest" in result.output


@pytest.mark.parametrize(("damage", "expected", "key"), DAMAGES)
def test_every_damage_is_detected_and_named(
    builder: ArchiveBuilder, meibo: Meibo, damage: Damager, expected: set[str], key: str
) -> None:
    damage(builder)

    result = meibo("verify", "--json")

    assert result.status == 1, result.output
    findings = result.json()["damage"]
    assert {finding["damage"] for finding in findings} == expected
    assert key in {finding["key"] for finding in findings}


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda m: m.storage.delete(KEY), "missing object"),
        (lambda m: replace(m, BODY[:-9]), "truncated"),
        (lambda m: m.storage.delete(MANIFEST), "missing manifest"),
        (lambda m: m.edit(MANIFEST, "object", "sha256", value="0" * 64), "altered manifest"),
        (extra("archive/notes.txt"), "unexpected object"),
    ],
    ids=["missing", "truncated", "no manifest", "altered manifest", "extra"],
)
def test_quick_verification_detects_damage_without_reading_objects(
    builder: ArchiveBuilder, meibo: Meibo, damage: Damager, expected: str
) -> None:
    damage(builder)

    result = meibo("verify", "--quick")

    assert result.status == 1
    assert expected in result.output


@pytest.mark.parametrize("storage", ["s3"], indirect=True)
def test_quick_verification_compares_the_checksum_and_version_of_s3(
    builder: ArchiveBuilder, storage: BucketArchive
) -> None:
    stored = storage.client.put_object(Bucket=storage.name, Key=KEY, Body=BODY, ChecksumAlgorithm="CRC32")
    builder.edit(
        MANIFEST,
        "object",
        "checksum",
        value={"algorithm": "CRC32", "type": "FULL_OBJECT", "value": "AAAAAA=="},
    )

    (task,) = plan_everything(storage.reader(), selects=lambda folder: folder.address == USERS).tasks
    findings = Verifier(storage.reader(), reads=lambda _: False).verify(task)

    assert stored["ChecksumCRC32"] != "AAAAAA=="
    assert [finding.damage for finding in findings] == ["different version", "different checksum"]


@pytest.mark.parametrize("storage", ["s3"], indirect=True)
def test_overwritten_object_is_reported_although_the_original_version_exists(
    builder: ArchiveBuilder, meibo: Meibo
) -> None:
    builder.storage.put(KEY, BODY)

    result = meibo("verify", "--json")

    assert [finding["damage"] for finding in result.json()["damage"]] == ["different version"]


@pytest.mark.parametrize(
    "key",
    [
        "/etc/hostname",
        "../secret",
        f"{USERS.folder(OLD)}../../../../../../../../../secret",
        USERS.object_key(RUN, gzip=True),
        f"{USERS.folder(OLD)}\0",
        "",
    ],
)
def test_object_outside_the_folder_of_its_manifest_is_damage_and_not_read(
    builder: ArchiveBuilder, storage: Storage, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    # given: manifests that name an object outside the folder
    builder.edit(MANIFEST, "object", "key", value=key)
    builder.edit(RUN_MANIFEST, "exports", "0", "key", value=key)
    reader = storage.reader()
    keys: list[str] = []
    chunks = reader.chunks

    def recorded(key: str, version: str | None = None) -> Iterator[bytes]:
        keys.append(key)
        return chunks(key, version)

    monkeypatch.setattr(reader, "chunks", recorded)

    plan = plan_everything(reader)
    findings = [finding for task in plan.tasks for finding in Verifier(reader).verify(task)]

    detail = "contains the key of an object outside its folder"
    if key == "":
        detail = "object.key: expected a string that is not empty, found an empty string"
    assert ("altered manifest", MANIFEST, detail) in [
        (finding.damage, finding.key, finding.detail) for finding in findings
    ]
    assert keys == [STAFF_CSV.object_key(OLD, gzip=False)]


@pytest.mark.parametrize("storage", ["disk"], indirect=True)
@pytest.mark.parametrize(("key", "damage"), [(KEY, "missing object"), (MANIFEST, "missing manifest")])
def test_dangling_link_is_damage(
    builder: ArchiveBuilder, meibo: Meibo, storage: FolderArchive, key: str, damage: str
) -> None:
    (storage.path / key).unlink()
    (storage.path / key).symlink_to("nowhere")

    result = meibo("verify", "--json")

    assert damage in [finding["damage"] for finding in result.json()["damage"] if finding["key"] == key]


def test_damage_of_a_source_does_not_affect_another_source(builder: ArchiveBuilder, meibo: Meibo) -> None:
    flip(builder)

    assert meibo("verify", "example").status == 0
    assert meibo("verify", "acme").status == 1


def test_run_that_may_be_in_progress_is_left_out(builder: ArchiveBuilder, storage: Storage) -> None:
    storage.put(USERS.object_key(RUN, gzip=True), BODY)
    storage.put("runs/dt=2026-11-21/run=20261121T180000Z/_plan.json", json.dumps({"exports": []}).encode())

    young = plan_everything(storage.reader(), now=datetime(2026, 11, 21, 19, tzinfo=UTC))
    old = plan_everything(storage.reader(), now=datetime(2026, 11, 23, tzinfo=UTC))

    assert (young.running, young.findings) == ((RUN,), ())
    assert [finding.damage for finding in old.findings] == ["missing run manifest"]
    assert plan_runs(storage.reader(), [RUN], now=datetime(2026, 11, 21, 19, tzinfo=UTC)).running == (RUN,)


def test_export_that_only_the_plan_of_a_repair_names_is_verified(builder: ArchiveBuilder, storage: Storage) -> None:
    # given: an unfinished run whose repair archived an export that the first plan did not contain
    storage.put(USERS.object_key(RUN, gzip=True), BODY)
    export = {name: getattr(USERS, name) for name in ("provider", "source", "dataset", "format", "scope")}
    storage.put(plan_key(RUN), b'{"plan_version": 1, "exports": []}')
    storage.put(plan_key(RUN, 2), json.dumps({"plan_version": 1, "exports": [export]}).encode())

    plan = plan_runs(storage.reader(), [RUN], now=datetime(2026, 11, 23, tzinfo=UTC))

    assert [task.folder.address for task in plan.tasks] == [USERS]


def test_recent_run_with_a_report_page_has_ended(builder: ArchiveBuilder, storage: Storage) -> None:
    storage.put(USERS.object_key(RUN, gzip=True), BODY)
    storage.put(report_key(RUN, 1), b"<!doctype html>")

    plan = plan_everything(storage.reader(), now=datetime(2026, 11, 21, 19, tzinfo=UTC))

    assert [finding.damage for finding in plan.findings] == ["missing run manifest"]


def test_unreadable_object_is_unchecked_and_not_damaged(
    builder: ArchiveBuilder, meibo: Meibo, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(storage, BucketArchive):

        def refuse(*_: Any, **__: Any) -> Any:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetObject")

        monkeypatch.setattr(S3Reader, "chunks", refuse)
    else:

        def fail(*_: Any, **__: Any) -> Any:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr("meibo.archive.storage.FolderReader.chunks", fail)

    result = meibo("verify", "--json")

    assert result.status == 2
    assert len(result.json()["could_not_check"]) == 2
    assert result.json()["damage"] == []
