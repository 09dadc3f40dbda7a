"""Write cybozu.com's CSV files in the order in which they must be imported. Meibo never sends them."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from meibo.archive.manifest import ArchivedExport
from meibo.archive.storage import ArchiveReader
from meibo.errors import ConfigurationError
from meibo_cli.download import download
from meibo_cli.files import new_folder
from meibo_cli.rows import csv_records

# A file that is referenced comes before the files that reference it.
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
DANGER: the organization file is a full replace.
  Importing it DELETES every organization that it does not contain, with its children. The other files add and
  change rows, but they replace all memberships and services of each user that they list.
"""
NOT_RESTORABLE: Final = """\
Meibo cannot restore at cybozu.com:
  - passwords: the column contains *, which does not change the password of an existing user; a new user needs one
  - ids: a deleted user gets a new id, and data that refers to the old id does not find the user
  - members of dynamic groups, and the built-in Administrator, which no CSV contains
"""


@dataclass
class CsvFiles:
    """The files that were written, by dataset, the files that are not in the run, and the logins without a row."""

    folder: Path
    files: dict[str, Path] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    not_found: set[str] = field(default_factory=set)


def write_csv(
    archive: ArchiveReader, exports: Mapping[str, ArchivedExport], folder: Path, *, selected: Collection[str] = ()
) -> CsvFiles:
    """Write the CSV files of a source into a new folder, numbered, and byte for byte as they were delivered.

    With logins ``selected``, write only the rows of these users, and only the files about users.
    """
    wanted = [dataset for dataset in ORDER if not selected or dataset in OF_USERS]
    if not any(dataset in exports for dataset in wanted):
        raise ConfigurationError(
            "expected CSV exports of this domain in the run, found none; NDJSON cannot be imported. Domains of"
            " kintone.com have no CSV API: download their NDJSON with `meibo get`, and restore users with the User API"
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
    """Write READ-ME-FIRST.txt, with the notes of the checks."""
    paragraphs = [INSTRUCTIONS, *([DANGER] if "organizations" in written.files else []), NOT_RESTORABLE]
    if notes:
        paragraphs.insert(1, "Checks of these files:\n" + "".join(f"  - {note}\n" for note in notes))
    text = "\n".join(paragraphs)
    (written.folder / "READ-ME-FIRST.txt").write_bytes(text.encode("utf-8", "backslashreplace"))


def _filter(path: Path, logins: frozenset[str]) -> set[str]:
    """Remove the rows of other users from a file, and return the logins that have a row."""
    rows = [row for row in csv_records(path) if row and row[0] in logins]
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(rows)
    path.write_bytes(out.getvalue().encode("utf-8", "surrogateescape"))
    return {row[0] for row in rows}
