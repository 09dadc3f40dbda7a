"""``meibo ls`` and ``meibo get``."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Meibo
from tests.support.archives import (
    EARLIER,
    RUN,
    STAFF,
    USERS,
    ArchiveBuilder,
    BucketArchive,
    FolderArchive,
    Storage,
    ndjson,
)

BODY = ndjson([{"user_id": f"auth0|{n}"} for n in range(3)])


@pytest.fixture(autouse=True)
def _runs(builder: ArchiveBuilder) -> None:
    builder.run({USERS: BODY, STAFF: ndjson([{"id": "1"}])}, EARLIER)
    builder.run(
        {USERS: BODY},
        suspect={USERS: "70 % fewer users than in the last export: 10 → 3"},
        missing=[{"export_id": STAFF.export_id, "error": "ScopeMissingError", "reason": "grant it"}],
    )


def test_runs_are_listed_from_the_latest_with_rows_and_verdict(meibo: Meibo) -> None:
    lines = meibo("ls", "--json").json()

    assert [(line["run_id"], line["source"], line["verdict"], line["rows"]) for line in lines] == [
        (RUN, "acme", "suspect", 3),
        (RUN, "example", "missing", None),
        (EARLIER, "acme", "ok", 3),
        (EARLIER, "example", "ok", 1),
    ]
    assert lines[0]["sha256"] == sha256(BODY).hexdigest()
    assert lines[0]["reason"] == "70 % fewer users than in the last export: 10 → 3"
    assert lines[1]["reason"] == "ScopeMissingError: grant it"
    assert all(line["age_seconds"] is not None for line in lines)


def test_exports_are_printed_as_a_table(meibo: Meibo) -> None:
    result = meibo("ls")

    assert result.status == 0
    assert RUN in result.output
    assert "acme/users/ndjson/all" in result.output
    assert "suspect acme/users/ndjson/all of 20261121T180000Z: 70 % fewer users" in result.output
    assert "missing example/users/ndjson/all of 20261121T180000Z: ScopeMissingError: grant it" in result.output


def test_runs_and_exports_can_be_selected(meibo: Meibo) -> None:
    lines = meibo("ls", "example", "--runs", "1", "--json").json()

    assert [(line["run_id"], line["verdict"]) for line in lines] == [(RUN, "missing")]


def test_export_is_downloaded_and_its_digest_printed(meibo: Meibo) -> None:
    result = meibo("get", "acme")

    assert result.status == 0, result.errors
    assert result.output == f"{sha256(BODY).hexdigest()}  users.ndjson.gz\n"
    assert Path("users.ndjson.gz").read_bytes() == BODY


def test_existing_file_is_not_overwritten(meibo: Meibo) -> None:
    Path("users.ndjson.gz").write_text("mine", encoding="utf-8")

    result = meibo("get", "acme")

    assert result.status == 2
    assert "is not overwritten" in result.errors
    assert Path("users.ndjson.gz").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("storage", ["s3"], indirect=True)
def test_copy_in_another_bucket_is_read_despite_its_other_versions(meibo: Meibo, storage: BucketArchive) -> None:
    ArchiveBuilder(storage).edit(
        USERS.manifest_key(RUN), "object", "version_id", value="3sL4kqtJlcpXroDTDmJrmSpXd3dIbrHY"
    )

    assert meibo("get", "acme").status == 0
    assert Path("users.ndjson.gz").read_bytes() == BODY
    storage.put(USERS.object_key(RUN, gzip=True), BODY[:20] + bytes([BODY[20] ^ 1]) + BODY[21:])
    assert (
        "expected the SHA-256 in its manifest, found a different SHA-256" in meibo("get", "acme", "-o", "other").errors
    )


def test_object_with_a_flipped_bit_is_not_downloaded(meibo: Meibo, storage: Storage) -> None:
    key = USERS.object_key(RUN, gzip=True)
    version = storage.put(key, BODY[:20] + bytes([BODY[20] ^ 1]) + BODY[21:])
    if isinstance(storage, BucketArchive):
        # The version in the manifest is read, so this version must be damaged.
        builder = ArchiveBuilder(storage)
        builder.edit(USERS.manifest_key(RUN), "object", "version_id", value=version)

    result = meibo("get", "acme")

    assert result.status == 2
    assert "SHA-256" in result.errors
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("storage", ["disk"], indirect=True)
@pytest.mark.parametrize("key", ["{outside}/secret", "archive/../../secret"])
def test_object_outside_the_archive_is_not_downloaded(meibo: Meibo, storage: FolderArchive, key: str) -> None:
    outside = storage.path.parent
    (outside / "secret").write_bytes(BODY)
    ArchiveBuilder(storage).edit(
        f"runs/dt=2026-11-21/run={RUN}/_manifest.json", "exports", "0", "key", value=key.format(outside=outside)
    )

    result = meibo("get", "acme", "--output", "copy")

    assert result.status == 2
    assert "secret does not exist" in result.errors
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("storage", ["disk"], indirect=True)
def test_dangling_link_in_place_of_an_object_is_reported(meibo: Meibo, storage: FolderArchive) -> None:
    path = storage.path / USERS.object_key(RUN, gzip=True)
    path.unlink()
    path.symlink_to("nowhere")

    result = meibo("get", "acme")

    assert result.status == 2
    assert f"{USERS.object_key(RUN, gzip=True)} does not exist\n" in result.errors
    assert list(Path().iterdir()) == []


def test_earlier_run_is_selected_by_id_or_keyword(meibo: Meibo) -> None:
    assert meibo("get", "example", "--run", EARLIER).status == 0
    assert meibo("get", "acme", "--run", "previous", "--output", "b.gz").status == 0


def test_missing_source_is_reported_in_one_line(meibo: Meibo) -> None:
    for arguments, words in (
        (("get", "unknown"), "matches no export"),
        (("get", "acme", "--run", "20200101T000000Z"), "contains no run 20200101T000000Z"),
        (
            ("get", "acme", "--run", "yesterday"),
            "expected a run id such as 20261121T180000Z, latest or previous, found 'yesterday'",
        ),
        (("get", "acme", "--output", "no/such/file"), "--output: the folder no/such does not exist"),
        (("ls", "unknown"), "matches 'unknown'"),
        (("ls", "--archive", "./nowhere"), "the folder ./nowhere does not exist"),
        (
            ("ls", "--archive", "s3://Not_A_Bucket"),
            "expected s3:// and the name of a bucket in lower case, without a prefix, found 's3://Not_A_Bucket'",
        ),
        (("ls", "--archive", "s3://missing-bucket"), "NoSuchBucket"),
    ):
        result = meibo(*arguments)
        assert result.status == 2
        assert words in result.errors
        assert result.errors.count("\n") == 1
