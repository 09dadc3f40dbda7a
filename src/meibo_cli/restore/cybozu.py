"""Write the CSV files of a cybozu.com domain in the order in which an administrator must import them."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import typer

from meibo.archive.manifest import ArchivedExport
from meibo.archive.runs import Run, runs
from meibo.archive.storage import ArchiveReader
from meibo.errors import ConfigurationError
from meibo.formatting import format_count
from meibo_cli.download import download
from meibo_cli.encoding import open_decompressed, parse_row, readable_text
from meibo_cli.files import new_folder
from meibo_cli.restore.console import report_not_found, warn_if_suspect
from meibo_cli.rows import csv_records
from meibo_cli.terminal import escape_control_characters

# The names of the files in the order of the import: a file refers only to itself and to earlier files.
ORDER: Final = {
    "titles": "title",
    "organizations": "organization",
    "users": "user",
    "user_organizations": "userOrganizations",
    "groups": "group",
    "user_groups": "userGroups",
    "user_services": "userServices",
}
OF_USERS: Final = frozenset({"users", "user_organizations", "user_groups", "user_services"})

# The number of columns of user.csv before the custom items: https://cybozu.dev/ja/common/docs/user-api/csv/csv-format/
USER_COLUMNS: Final = 25
PARENT_COLUMN: Final = 5
DELETED: Final = "deleted-organizations.txt"
_MAX_CODES_SHOWN: Final = 10
_NOUNS: Final = {"organizations": "organization", "titles": "title", "groups": "group", "users": "user"}

INSTRUCTIONS: Final = """\
Import the files in the order of their numbers, one at a time, in cybozu.com Administration or with
POST /v1/csv/….json.
  - The files have no header row: the first row is data.
  - The encoding is UTF-8.
  - A blank cell removes the value. A cell with * leaves it unchanged.
  - Do not save the files with Excel: it removes leading zeros, changes dates and long numbers, and may change the
    encoding. Use a text editor.
"""
DANGER: Final = """\
DANGER: the organization file replaces all organizations.
  The import DELETES every organization that the file does not contain, and its child organizations. The other files
  add and change rows, but replace all memberships and services of each user that they contain.
"""
NOT_RESTORABLE: Final = """\
Meibo cannot restore the following in cybozu.com:
  - passwords: the column contains *, which does not change the password of an existing user; set one for each new user
  - ids: a deleted user gets a new id, and data that refers to the old id is not connected to the new user
  - members of dynamic groups, and the built-in Administrator: the CSV files do not contain them
"""


@dataclass(frozen=True)
class CybozuRestore:
    """A restore of the exports of one source into CSV files in ``output``, a new folder.

    With ``logins``, only the rows of these users are written.
    """

    reader: ArchiveReader
    run: Run
    exports: Sequence[ArchivedExport]
    output: Path
    logins: tuple[str, ...]


def restore_cybozu(restore: CybozuRestore) -> None:
    """Write and check the CSV files, and print their names and notes for the administrator."""
    sources = {export.folder.address.source for export in restore.exports}
    if len(sources) != 1:
        raise ConfigurationError(f"expected the name of one of the sources {', '.join(sorted(sources))}")
    by_dataset = {
        export.folder.address.dataset: export
        for export in restore.exports
        if export.folder.address.format == "csv" and export.folder.address.scope == "all"
    }
    typer.echo(NOT_RESTORABLE, err=True)
    for export in by_dataset.values():
        warn_if_suspect(restore.reader, export)
    written = write_csv(restore.reader, by_dataset, restore.output, selected=restore.logins)
    notes = list(check_files(restore.reader, restore.run, sources.pop(), written, selected=bool(restore.logins)))
    write_instructions(written, notes)
    for path in written.files.values():
        typer.echo(escape_control_characters(str(path)))
    if "organizations" in written.files:
        typer.echo("\n" + DANGER, err=True)
    for note in notes:
        typer.echo(f"note: {escape_control_characters(note)}", err=True)
    if written.missing:
        typer.echo(f"not in this run: {', '.join(written.missing)}", err=True)
    report_not_found(len(written.not_found))


# -- files


@dataclass
class CsvFiles:
    """The files that were written, by dataset, the files that the run does not contain, and the logins without rows."""

    folder: Path
    files: dict[str, Path] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    not_found: set[str] = field(default_factory=set)


def write_csv(
    archive: ArchiveReader, exports: Mapping[str, ArchivedExport], folder: Path, *, selected: Collection[str] = ()
) -> CsvFiles:
    """Write the CSV files of a source, numbered and unchanged, into a new folder.

    With ``selected`` login names, write only the files about users, with the rows of these users. Raises
    ConfigurationError if the run contains none of the files.
    """
    wanted = [dataset for dataset in ORDER if not selected or dataset in OF_USERS]
    if not any(dataset in exports for dataset in wanted):
        raise ConfigurationError(
            "expected CSV exports of this domain in the run, found none; cybozu.com does not import NDJSON. Domains of"
            " kintone.com have no CSV API: download the NDJSON with `meibo get`, and create users with the User API"
        )
    written = CsvFiles(new_folder(folder), not_found=set(selected))
    for number, dataset in enumerate(ORDER, 1):
        if dataset not in wanted:
            continue
        if dataset not in exports:
            written.missing.append(ORDER[dataset])
            continue
        path = folder / f"{number}-{ORDER[dataset]}.csv"
        download(archive, exports[dataset], path)
        if selected:
            written.not_found -= _filter(path, frozenset(selected))
        written.files[dataset] = path
    return written


def write_instructions(written: CsvFiles, notes: Sequence[str]) -> None:
    """Write READ-ME-FIRST.txt, which contains the notes."""
    paragraphs = [INSTRUCTIONS, *([DANGER] if "organizations" in written.files else []), NOT_RESTORABLE]
    if notes:
        paragraphs.insert(1, "Checks of these files:\n" + "".join(f"  - {note}\n" for note in notes))
    text = "\n".join(paragraphs)
    (written.folder / "READ-ME-FIRST.txt").write_bytes(text.encode("utf-8", "backslashreplace"))


def _filter(path: Path, logins: frozenset[str]) -> set[str]:
    """Remove the rows of other users from a file, and return the login names that have a row."""
    rows = [row for row in csv_records(path) if row and row[0] in logins]
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(rows)
    path.write_bytes(out.getvalue().encode("utf-8", "surrogateescape"))
    return {row[0] for row in rows}


# -- checks


def check_files(
    archive: ArchiveReader, run: Run, source: str, written: CsvFiles, *, selected: bool = False
) -> Iterator[str]:
    """Yield notes about objects that the domain must contain, and about organizations that the import deletes.

    With ``selected``, the files contain only some users, so the domain must contain all other objects.
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
    """Return the codes of the custom items if the run contains an NDJSON export of the users."""
    export = _export(run, source, "users", "ndjson")
    if export is None:
        return []
    with tempfile.TemporaryDirectory(prefix="meibo-restore-") as name:
        path = Path(name) / "users"
        download(archive, export, path)
        with open_decompressed(path) as file:
            user = parse_row(file.readline())
    items = user.get("customItemValues") if user is not None else None
    return [str(item.get("code")) for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _deletions(archive: ArchiveReader, run: Run, source: str, path: Path) -> str:
    latest = next((other for other in runs(archive) if _export(other, source, "organizations", "csv")), run)
    export = _export(latest, source, "organizations", "csv")
    if export is None or latest.run_id == run.run_id:
        return (
            "the organizations that the import deletes are unknown, because no later run contains organizations;"
            " archive the domain with `meibo run`, then repeat this command"
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
    """Return the codes to which the files refer, by the dataset that defines them."""
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
