"""Check the CSV files of a cybozu.com domain before an administrator imports them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from meibo.archive.manifest import ArchivedExport
from meibo.archive.runs import Run, runs
from meibo.archive.storage import ArchiveReader
from meibo.formatting import format_count
from meibo_cli.download import download
from meibo_cli.encoding import open_decompressed, parse_json, readable_json, readable_text
from meibo_cli.restore.cybozu_csv import CsvFiles
from meibo_cli.rows import csv_records

# Columns of user.csv before the custom items: https://cybozu.dev/ja/common/docs/user-api/csv/csv-format/
USER_COLUMNS: Final = 25
PARENT_COLUMN: Final = 5
DELETED: Final = "deleted-organizations.txt"
_MAX_CODES_SHOWN: Final = 10
_NOUNS: Final = {"organizations": "organization", "titles": "title", "groups": "group", "users": "user"}


def check_files(
    archive: ArchiveReader, run: Run, source: str, written: CsvFiles, *, selected: bool = False
) -> Iterator[str]:
    """Yield notes for the administrator: what the domain must contain, and what the import deletes.

    With ``selected`` the files contain only some users, so organizations, titles and groups must exist in the domain.
    """
    paths = written.files
    if "users" in paths:
        yield from _custom_items(archive, run, source, paths["users"])
    if "organizations" in paths:
        yield _deletions(archive, run, source, paths["organizations"])
    for dataset, codes in _references(paths).items():
        defined = _first_cells(paths[dataset]) if dataset in paths else set()
        missing = sorted(codes - defined)
        if not missing:
            continue
        noun = format_count(len(missing), _NOUNS[dataset])
        if dataset in paths and not (selected and dataset == "users"):
            yield f"{noun} in the files but not in {paths[dataset].name}: {_shown(missing)}"
        else:
            yield f"the domain must already contain {noun}: {_shown(missing)}"


def _custom_items(archive: ArchiveReader, run: Run, source: str, path: Path) -> Iterator[str]:
    count = max(0, len(next(csv_records(path), [])) - USER_COLUMNS)
    if count:
        codes = _custom_item_codes(archive, run, source)
        names = f": {_shown(codes)}" if len(codes) == count else ""
        items = format_count(count, "custom item")
        yield f"{path.name} has {items}; the domain must have the same items in the same order{names}"


def _custom_item_codes(archive: ArchiveReader, run: Run, source: str) -> list[str]:
    """Return the codes of the custom items in the NDJSON of the users, if the run contains it."""
    export = _export(run, source, "users", "ndjson")
    if export is None:
        return []
    with tempfile.TemporaryDirectory(prefix="meibo-restore-") as name:
        path = Path(name) / "users"
        download(archive, export, path)
        with open_decompressed(path) as file:
            try:
                user = parse_json(readable_json(file.readline()).decode())
            except json.JSONDecodeError:
                user = None
    items = user.get("customItemValues") if isinstance(user, dict) else None
    return [str(item.get("code")) for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _deletions(archive: ArchiveReader, run: Run, source: str, path: Path) -> str:
    latest = next((other for other in runs(archive) if _export(other, source, "organizations", "csv")), run)
    export = _export(latest, source, "organizations", "csv")
    if export is None or latest.run_id == run.run_id:
        return (
            "which organizations the import deletes is not known, because no later run contains them; archive the"
            " domain first (`meibo run`), then repeat this command"
        )
    with tempfile.TemporaryDirectory(prefix="meibo-restore-") as name:
        later = Path(name) / "organizations"
        download(archive, export, later)
        deleted = sorted(_first_cells(later) - _first_cells(path))
    if not deleted:
        return f"{path.name} deletes no organization of run {latest.run_id}"
    path.with_name(DELETED).write_bytes("".join(f"{readable_text(code)}\n" for code in deleted).encode())
    return (
        f"{path.name} DELETES {format_count(len(deleted), 'organization')} of run {latest.run_id}, listed in"
        f" {DELETED}: {_shown(deleted)}"
    )


def _references(paths: Mapping[str, Path]) -> dict[str, set[str]]:
    """Return the codes that the files refer to, by the dataset that defines them."""
    references: dict[str, set[str]] = {dataset: set() for dataset in _NOUNS}
    for record in _records(paths, "organizations"):
        references["organizations"].update(record[PARENT_COLUMN : PARENT_COLUMN + 1])
    for record in _records(paths, "user_organizations"):
        references["users"].add(record[0])
        references["organizations"].update(record[1::2])
        references["titles"].update(record[2::2])
    for record in _records(paths, "user_groups"):
        references["users"].add(record[0])
        references["groups"].update(record[1:])
    for record in _records(paths, "user_services"):
        references["users"].add(record[0])
    return {dataset: codes - {"", "*"} for dataset, codes in references.items()}


def _records(paths: Mapping[str, Path], dataset: str) -> Iterator[list[str]]:
    if dataset in paths:
        yield from (record for record in csv_records(paths[dataset]) if record)


def _first_cells(path: Path) -> set[str]:
    return {record[0] for record in csv_records(path) if record}


def _export(run: Run, source: str, dataset: str, format: str) -> ArchivedExport | None:  # noqa: A002  # the term of the configuration
    for export in run.exports:
        address = export.folder.address
        if (address.provider, address.source, address.dataset, address.format) == ("cybozu", source, dataset, format):
            return export
    return None


def _shown(codes: Iterable[str]) -> str:
    names = [readable_text(code) for code in codes]
    return ", ".join(names[:_MAX_CODES_SHOWN]) + (", …" if len(names) > _MAX_CODES_SHOWN else "")
