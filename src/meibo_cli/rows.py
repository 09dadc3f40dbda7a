"""An archived export as a file of rows that DuckDB reads: JSON objects, one a line, or Auth0's CSV as it is."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from meibo.archive.catalog import ArchivedExport
from meibo.archive.reader import ArchiveReader, read_document
from meibo.errors import ConfigurationError, WrongFormatError
from meibo.providers import column_names, find_dataset
from meibo.providers.datasets import Dataset
from meibo_cli.download import download
from meibo_cli.encoding import opened, parse_exact_json, readable_copy, readable_json

Form = Literal["json", "csv"]


@dataclass(frozen=True)
class RowFile:
    """A file of rows on this machine, gzip or not, and what its rows are known by.

    ``key`` names values, with dots between the levels. ``expected`` is how many rows its manifest counts.
    """

    path: Path
    key: tuple[str, ...]
    columns: tuple[str, ...]
    dataset: Dataset
    form: Form = "json"
    expected: int | None = None

    def readable(self) -> RowFile:
        """Return the same rows in a file that DuckDB reads whatever their text is, written beside this one."""
        if self.form == "csv":
            return self.as_json()
        target = self.path.with_suffix(".readable.ndjson")
        readable_copy(self.path, target)
        return replace(self, path=target)

    def as_json(self) -> RowFile:
        """Return the same rows as a file of JSON objects, written beside this one."""
        target = self.path.with_suffix(".rows.ndjson")
        columns = _from_csv(self.path, target, self.dataset)
        return replace(self, path=target, columns=columns, form="json")

    def values(self, text: str) -> Mapping[str, Any]:
        """Return one row's values by name; ``text`` is JSON, for a CSV with values named ``c0``, ``c1`` and so on."""
        row: dict[str, Any] = parse_exact_json(text)
        if self.form == "json":
            return row
        return {name: _bare(row[f"c{place}"] or "") for place, name in enumerate(self.columns)}


def fetch_rows(archive: ArchiveReader, export: ArchivedExport, folder: Path, *, key: Sequence[str] = ()) -> RowFile:
    """Bring an export here with its digest checked; cybozu.com's CSV, whose rows differ in length, as JSON objects."""
    address = export.folder.address
    target = folder / f"{export.folder.run_id}.{address.format}"
    download(archive, export, target)
    manifest = read_document(archive, export.manifest_key) or {}
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
        told = manifest.get("content", {}).get("columns")
        columns = tuple(told) if isinstance(told, list) else ()
    absent = [name for name in key if columns and name.partition(".")[0] not in columns]
    if absent:
        raise ConfigurationError(
            f"{export.export_id} has no column {', '.join(absent)}; its columns are {', '.join(columns[:40])}"
        )
    return RowFile(path, tuple(key) or _key(export, dataset, manifest, columns), columns, dataset, form, export.rows)


def _key(
    export: ArchivedExport, dataset: Dataset, manifest: Mapping[str, Any], columns: Sequence[str]
) -> tuple[str, ...]:
    exported = column_names(export.folder.address.provider, manifest)
    for names in dataset.keys:
        found = tuple(exported.get(name, name) for name in names)
        if not columns or any(name.partition(".")[0] in columns for name in found):
            return found
    raise ConfigurationError(
        f"{export.export_id} has no column that tells its rows apart; name one with --key: {', '.join(columns[:40])}"
    )


def csv_records(path: Path) -> Iterator[list[str]]:
    """Yield the records of a CSV in UTF-8, gzip or not, of any length; invalid bytes are ``surrogateescape``."""
    csv.field_size_limit(sys.maxsize)
    with io.TextIOWrapper(opened(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            yield from csv.reader(file)
        except csv.Error as error:
            raise WrongFormatError(f"the CSV cannot be read: {error}") from None


def csv_rows(path: Path, dataset: Dataset) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Yield the columns and the values of each record, without the apostrophes that the provider adds."""
    records = csv_records(path)
    if not dataset.csv_columns:
        bare = _bare if dataset.csv_apostrophe else str
        columns = tuple(bare(name) for name in next(records, []))
        for record in records:
            yield columns, [bare(value) for value in record]
        return
    known = dataset.csv_columns
    for record in records:
        more = tuple(f"column_{number}" for number in range(len(known) + 1, len(record) + 1))
        yield (*known[: len(record)], *more), record


def _bare(value: str) -> str:
    # Auth0 writes an apostrophe before every string, against spreadsheets that run formulas. Exactly one is its own.
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
