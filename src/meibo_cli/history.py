"""Find the rows of a user in all runs of an archive, and their changes from run to run.

Exports are decompressed in blocks, and only lines that contain an identifier of the user are parsed. A CSV file is
parsed completely if one of its lines contains an identifier.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, Literal

from meibo.archive.keys import ExportAddress
from meibo.archive.manifest import ArchivedExport, ExportManifest
from meibo.archive.runs import Run
from meibo.archive.storage import ArchiveReader
from meibo.providers import column_names, find_dataset
from meibo.providers.datasets import Dataset
from meibo_cli.comparison import field_changes
from meibo_cli.download import download
from meibo_cli.encoding import open_decompressed, parse_row
from meibo_cli.rows import csv_rows, nested_value
from meibo_cli.selection import matching, reading_pool

_BLOCK_BYTES: Final = 1024 * 1024
_READERS: Final = 4

Row = Mapping[str, Any]
Change = Literal["present", "added", "changed", "removed"]
Source = tuple[str, str]


@dataclass(frozen=True)
class HistoryEvent:
    """A change to a row between two consecutive runs that contain its export, or a row in the earliest of these runs.

    ``present`` means that the row is in the first run that contains the export. ``row`` identifies the row among the
    user's rows, for example by the organization. ``fields`` maps the name of each changed field to its old and new
    value. ``suspect`` is true if the verdict of the export is suspect.
    """

    run_id: str
    export_id: str
    change: Change
    row: str = ""
    fields: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    suspect: bool = False


@dataclass
class UserHistory:
    """The history of one user of a source.

    ``gaps`` maps the id of an export to the number of runs that do not contain it, although an earlier run does.
    """

    provider: str
    source: str
    ids: tuple[str, ...]
    events: list[HistoryEvent]
    gaps: dict[str, int]


@dataclass(frozen=True)
class _ExportRows:
    """The rows of an export that belong to the users who are searched for."""

    run_id: str
    export: ArchivedExport
    dataset: Dataset
    names: Mapping[str, str]
    rows: tuple[Row, ...]

    @property
    def source(self) -> Source:
        return _source(self.export)

    def values(self, row: Row, columns: Sequence[str]) -> list[str]:
        """Return the values of the columns in a row as strings, without empty values."""
        values = (nested_value(row, self.names.get(column, column).split(".")) for column in columns)
        return [str(value) for value in values if value not in (None, "")]

    def ids(self, row: Row) -> list[str]:
        """Return the ids of the user in a row, or the names of the user if the row does not contain an id."""
        return self.values(row, self.dataset.user_ids) or self.values(row, self.dataset.user_names)


def user_histories(
    archive: ArchiveReader, runs: Sequence[Run], identifier: str, pattern: str = ""
) -> list[UserHistory]:
    """Return the history of each user who has the identifier in one of the runs, sorted by source.

    The identifier is an id, login name, e-mail address or phone number. ``runs`` are in chronological order. Other rows
    of a user are found by the ids in the rows that contain the identifier.
    """
    exports = [
        (run.run_id, export) for run in runs for export in matching(run.exports, pattern) if _dataset(export).user_ids
    ]
    results = list(_search(archive, exports, {identifier}, by_name=True))
    users: dict[Source, list[set[str]]] = {}
    for result in results:
        for row in result.rows:
            _add_ids(users.setdefault(result.source, []), set(result.ids(row)))
    ids = {user_id for groups in users.values() for group in groups for user_id in group}
    if not ids <= {identifier}:
        in_sources = [(run_id, export) for run_id, export in exports if _source(export) in users]
        results = list(_search(archive, in_sources, ids, by_name=False))
    run_ids = [run.run_id for run in runs]
    histories = [_history(source, group, results, run_ids) for source, groups in users.items() for group in groups]
    return sorted(histories, key=lambda history: (history.provider, history.source, history.ids))


def _add_ids(groups: list[set[str]], ids: set[str]) -> None:
    """Add the ids of a row, and merge the groups that contain one of them. A user can have several ids."""
    same = [group for group in groups if group & ids]
    for group in same:
        groups.remove(group)
    groups.append(ids.union(*same))


def _history(
    source: Source, ids: Collection[str], results: Sequence[_ExportRows], run_ids: Sequence[str]
) -> UserHistory:
    by_export: dict[str, list[_ExportRows]] = {}
    for result in results:
        if result.source == source:
            by_export.setdefault(result.export.export_id, []).append(result)
    history = UserHistory(*source, tuple(sorted(ids)), [], {})
    for export_id, exports in sorted(by_export.items()):
        events = list(_events(exports, ids))
        gap = len(run_ids) - run_ids.index(exports[0].run_id) - len(exports)
        history.events += events
        if events and gap:
            history.gaps[export_id] = gap
    return history


def _events(exports: Sequence[_ExportRows], ids: Collection[str]) -> Iterator[HistoryEvent]:
    before: dict[str, Row] = {}
    for number, rows in enumerate(exports):
        after = {_row_name(rows, row): row for row in rows.rows if not set(ids).isdisjoint(rows.ids(row))}
        event = partial(HistoryEvent, rows.run_id, rows.export.export_id, suspect=rows.export.verdict == "suspect")
        for name in sorted({**before, **after}):
            if name not in after:
                yield event("removed", name)
            elif name not in before:
                yield event("added" if number else "present", name)
            else:
                changes = field_changes(before[name], after[name], blank_is_null=rows.dataset.blank_is_null)
                fields = {field_name: (old, new) for field_name, old, new in changes}
                if fields:
                    yield event("changed", name, fields)
        before = after


def _row_name(rows: _ExportRows, row: Row) -> str:
    """Return the columns and values that identify a row among the rows of its user, such as ``role_id=rol_1``.

    The result is empty if the dataset has alternative keys.
    """
    if len(rows.dataset.keys) > 1:
        return ""
    columns = [name for name in rows.dataset.keys[0] if name not in rows.dataset.user_ids]
    return " ".join(f"{name}={value}" for name in columns for value in rows.values(row, [name]))


def _search(
    archive: ArchiveReader, exports: Sequence[tuple[str, ArchivedExport]], identifiers: set[str], *, by_name: bool
) -> Iterator[_ExportRows]:
    with reading_pool(_READERS) as pool:
        yield from pool.map(lambda item: _rows_in(archive, item[0], item[1], identifiers, by_name=by_name), exports)


def _rows_in(
    archive: ArchiveReader, run_id: str, export: ArchivedExport, identifiers: set[str], *, by_name: bool
) -> _ExportRows:
    address, dataset = export.folder.address, _dataset(export)
    manifest = ExportManifest.read(archive, export.manifest_key)
    names = column_names(address.provider, address.dataset, address.format, manifest.request if manifest else {})
    empty = _ExportRows(run_id, export, dataset, names, ())
    columns = (*dataset.user_ids, *dataset.user_names)
    folded = {identifier.casefold() for identifier in identifiers}

    def is_match(row: Row) -> bool:
        if by_name:
            return not folded.isdisjoint(value.casefold() for value in empty.values(row, columns))
        return not identifiers.isdisjoint(empty.ids(row))

    with tempfile.TemporaryDirectory(prefix="meibo-history-") as folder:
        path = Path(folder) / "export"
        download(archive, export, path)
        rows = tuple(row for row in _candidates(path, address, dataset, _needles(identifiers)) if is_match(row))
    return _ExportRows(run_id, export, dataset, names, rows)


def _candidates(path: Path, address: ExportAddress, dataset: Dataset, needles: Collection[bytes]) -> Iterator[Row]:
    """Yield the rows that may match.

    These are the rows of an NDJSON file whose lines contain one of the byte strings, or all rows of a CSV file that
    contains one of them.
    """
    with open_decompressed(path) as file:
        lines = _lines_with(file, needles)
        if address.format != "csv":
            yield from filter(None, map(parse_row, lines))
            return
        has_line = next(lines, None) is not None
    if has_line:
        # A record of a CSV file can have several lines.
        for columns, values in csv_rows(path, dataset):
            yield dict(zip(columns, values, strict=False))


def _lines_with(file: IO[bytes], needles: Collection[bytes]) -> Iterator[bytes]:
    """Yield the lines that contain one of the lowercase byte strings. The case of ASCII characters is ignored."""

    def contains(text: bytes) -> bool:
        text = text.lower()
        return any(needle in text for needle in needles)

    rest = b""
    while block := file.read(_BLOCK_BYTES):
        lines, newline, rest = (rest + block).rpartition(b"\n")
        if newline and contains(lines):
            yield from filter(contains, lines.split(b"\n"))
    if contains(rest):
        yield rest


def _needles(identifiers: Collection[str]) -> set[bytes]:
    """Return the possible encodings of the identifiers in JSON and CSV files, as lowercase byte strings."""
    texts: set[str] = set()
    for identifier in identifiers:
        texts |= {identifier, identifier.replace('"', '""')}
        for ascii_only in (True, False):
            text = json.dumps(identifier, ensure_ascii=ascii_only)[1:-1]
            texts |= {text, text.replace("/", "\\/")}
    return {text.encode("utf-8", "surrogatepass").lower() for text in texts}


def _dataset(export: ArchivedExport) -> Dataset:
    return find_dataset(export.folder.address.provider, export.folder.address.dataset)


def _source(export: ArchivedExport) -> Source:
    return export.folder.address.provider, export.folder.address.source
