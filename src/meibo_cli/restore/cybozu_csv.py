"""cybozu.com's CSV files in the order that their import needs. They are written, never sent."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from meibo.archive.catalog import ArchivedExport
from meibo.archive.reader import ArchiveReader
from meibo.errors import ConfigurationError
from meibo_cli.download import download
from meibo_cli.rows import csv_records

# What is named must exist: titles and organizations before who holds them, users before their memberships.
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

DANGER: Final = """\
DANGER: the organization file is a full replace.
  Importing it DELETES every organization that is not in it, and their children with them. The others are added
  to what is there, but a listed user's memberships and services are replaced as a whole.
"""
CANNOT_COME_BACK: Final = """\
What cannot come back to cybozu.com:
  - passwords: the column holds *, which leaves an existing user's alone; a new user needs one set by an administrator
  - ids: whoever was deleted gets a new one, and data that refers to the old one does not find it
  - members of dynamic groups, and the built-in Administrator, who is in no CSV
"""


@dataclass
class CsvFiles:
    """What was written."""

    folder: Path
    files: list[Path] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    not_found: set[str] = field(default_factory=set)


def write_csv(
    archive: ArchiveReader, exports: Mapping[str, ArchivedExport], folder: Path, *, selected: Collection[str] = ()
) -> CsvFiles:
    """Write a source's CSV files (by dataset) into a new folder, numbered in their order; as delivered, byte for byte.

    With logins ``selected``, only rows of these users are written, and no file that is not about users.
    """
    wanted = [dataset for dataset in ORDER if not selected or dataset in OF_USERS]
    if not any(dataset in exports for dataset in wanted):
        raise ConfigurationError("the run holds no CSV exports of this domain; its NDJSON cannot be imported")
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ConfigurationError(
            f"{folder} is there already and is not overwritten; name another with --output"
        ) from None
    written = CsvFiles(folder, not_found=set(selected))
    for number, dataset in enumerate(ORDER, 1):
        if dataset not in wanted:
            continue
        if dataset not in exports:
            written.absent.append(ORDER[dataset])
            continue
        path = folder / f"{number}-{ORDER[dataset]}.csv"
        download(archive, exports[dataset], path)
        if selected:
            found = _only(path, frozenset(selected))
            written.not_found -= found
        written.files.append(path)
    (folder / "READ-ME-FIRST.txt").write_text(
        "Import in the order of the numbers (cybozu.com Administration, or POST /v1/csv/….json), one at a time.\n\n"
        + (DANGER + "\n" if any(path.name.endswith("-organization.csv") for path in written.files) else "")
        + CANNOT_COME_BACK,
        encoding="utf-8",
    )
    return written


def _only(path: Path, logins: frozenset[str]) -> set[str]:
    rows = [row for row in csv_records(path) if row and row[0] in logins]
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(rows)
    path.write_bytes(out.getvalue().encode("utf-8", "surrogateescape"))
    return {row[0] for row in rows}
