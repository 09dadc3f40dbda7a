"""An archive from before version 0.1.0, whose manifests were not yet typed: two runs of simulated directories."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Meibo
from tests.support.archives import FolderArchive, Storage

RUNS = ("20261128T135219Z", "20261128T135256Z")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    folder = tmp_path / "archive"
    with tarfile.open(Path(__file__).with_name("archive_before_0.1.0.tar.gz")) as file:
        file.extractall(folder, filter="data")
    return FolderArchive(folder)


def test_all_exports_are_listed(meibo: Meibo) -> None:
    exports = meibo("ls", "--json").json()

    assert [sum(export["run_id"] == run_id for export in exports) for run_id in RUNS] == [16, 16]
    assert {export["verdict"] for export in exports} == {"ok"}
    assert sum(export["rows"] for export in exports if export["run_id"] == RUNS[0]) == 1474


def test_all_objects_have_the_content_of_their_manifests(meibo: Meibo) -> None:
    result = meibo("verify", "--json")

    assert result.status == 0
    assert (result.json()["exports"], result.json()["damage"]) == (32, [])


def test_users_that_were_added_are_found(meibo: Meibo) -> None:
    result = meibo("diff", *RUNS, "--json")

    added = {export["export_id"]: export["added"] for export in result.json()["exports"]}
    assert added["acme/users/csv/all"] == 2


def test_users_are_restored(meibo: Meibo, tmp_path: Path) -> None:
    result = meibo("restore", "acme/users/ndjson/con_0000000000000001", "--output", str(tmp_path / "files"))

    assert result.status == 0
    (file,) = (tmp_path / "files").glob("users*.json")
    assert len(json.loads(file.read_text())) == 7


def test_report_shows_both_runs_and_the_changes(meibo: Meibo, tmp_path: Path) -> None:
    assert meibo("report", "--output", str(tmp_path / "index.html")).status == 0

    page = (tmp_path / "index.html").read_text()
    assert "The latest run is complete: 16 exports" in page
    assert "over 2 runs" in page
