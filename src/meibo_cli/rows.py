"""An archived export as a local file of rows: JSON lines, or Auth0's CSV unchanged."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from meibo.archive.manifest import ArchivedExport, ExportManifest
from meibo.archive.storage import ArchiveReader
from meibo.errors import ConfigurationError, WrongFormatError
from meibo.providers import column_names, find_dataset
from meibo.providers.datasets import Dataset
from meibo_cli.download import download
from meibo_cli.encoding import open_decompressed, parse_exact_json, readable_json, readable_text

Form = Literal["json", "csv"]


@dataclass(frozen=True)
class RowFile:
    """A local file of rows, which may be gzip.

    ``key`` contains the names of the values that identify a row; in JSON, dots separate levels. ``columns`` may be
    empty for JSON.
    """

    path: Path
    key: tuple[str, ...]
    columns: tuple[str, ...] = ()
    form: Form = "json"

    def values(self, record: bytes) -> Mapping[str, Any]:
        """Return the values of a record by name.

        Raises WrongFormatError if it is not a record of this form, and RecursionError if its JSON is nested too deeply.
        """
        if self.form == "csv":
            cells = next(csv.reader(io.StringIO(record.decode("utf-8", "surrogateescape"), newline="")), [])
            return {
                name: _without_apostrophe(readable_text(cell)) for name, cell in zip(self.columns, cells, strict=False)
            }
        # Not parse_row: a caller handles the RecursionError of a record that is nested too deeply.
        try:
            row = parse_exact_json(readable_json(record).decode())
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise WrongFormatError("expected one JSON object per line; run `meibo verify`")
        return row


def fetch_rows(archive: ArchiveReader, export: ArchivedExport, folder: Path, *, key: Sequence[str] = ()) -> RowFile:
    """Download an export and verify its digest. A CSV file without a header row is converted to JSON lines.

    Raises ConfigurationError if the export does not have the columns of the key.
    """
    address = export.folder.address
    target = folder / f"{export.folder.run_id}.{address.format}"
    download(archive, export, target)
    manifest = ExportManifest.read(archive, export.manifest_key)
    path = target
    form: Form = "json"
    dataset = find_dataset(address.provider, address.dataset)
    if address.format == "csv" and not dataset.csv_columns:
        form, columns = "csv", next((columns for columns, _ in csv_rows(target, dataset)), ())
    elif address.format == "csv":
        path = folder / f"{export.folder.run_id}.rows.ndjson"
        columns = _from_csv(target, path, dataset)
        target.unlink()
    else:
        recorded = manifest.content.columns if manifest else None
        columns = recorded if isinstance(recorded, tuple) else ()
    missing = [name for name in key if columns and name.partition(".")[0] not in columns]
    if missing:
        raise ConfigurationError(
            f"--key: {export.export_id} has no column {', '.join(missing)}; its columns are {', '.join(columns[:40])}"
        )
    return RowFile(path, tuple(key) or _key(export, dataset, manifest, columns), columns, form)


def _key(
    export: ArchivedExport, dataset: Dataset, manifest: ExportManifest | None, columns: Sequence[str]
) -> tuple[str, ...]:
    address = export.folder.address
    request = manifest.request if manifest else {}
    exported = column_names(address.provider, address.dataset, address.format, request)
    for names in dataset.keys:
        key = tuple(exported.get(name, name) for name in names)
        if not columns or any(name.partition(".")[0] in columns for name in key):
            return key
    raise ConfigurationError(
        f"{export.export_id} has no column with ids; choose a column with --key: {', '.join(columns[:40])}"
    )


def nested_value(values: Any, path: Sequence[str]) -> Any:
    """Return the value at a path of names in a JSON object, or None if it does not exist."""
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values


def csv_records(path: Path) -> Iterator[list[str]]:
    """Yield the records of a UTF-8 CSV file, which may be gzip. Invalid bytes are decoded with ``surrogateescape``."""
    csv.field_size_limit(sys.maxsize)
    with io.TextIOWrapper(open_decompressed(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            yield from csv.reader(file)
        except csv.Error as error:
            raise WrongFormatError(f"expected CSV: {error}") from None


def csv_rows(path: Path, dataset: Dataset) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Yield the column names and the values of each record, without the apostrophes that the provider adds."""
    records = csv_records(path)
    if not dataset.csv_columns:
        bare = _without_apostrophe if dataset.csv_apostrophe else str
        columns = tuple(bare(name) for name in next(records, []))
        for record in records:
            yield columns, [bare(value) for value in record]
        return
    known = dataset.csv_columns
    for record in records:
        more = tuple(f"column_{number}" for number in range(len(known) + 1, len(record) + 1))
        yield (*known[: len(record)], *more), record


def _without_apostrophe(value: str) -> str:
    # Auth0 adds exactly one apostrophe to every string, so that spreadsheets do not run it as a formula.
    return value[1:] if value.startswith("'") else value


def _from_csv(source: Path, target: Path, dataset: Dataset) -> tuple[str, ...]:
    columns: tuple[str, ...] = ()
    with target.open("xb") as out:
        for names, values in csv_rows(source, dataset):
            columns = names if len(names) > len(columns) else columns
            row = json.dumps(dict(zip(names, values, strict=False)), ensure_ascii=False)
            try:
                out.write(row.encode() + b"\n")
            except UnicodeEncodeError:
                out.write(readable_json(row.encode("utf-8", "surrogateescape")) + b"\n")
    return columns
