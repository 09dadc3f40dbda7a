"""The rows of the datasets of a source in a run: of an archive, or of the temporary archive of a tenant."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meibo.archive.manifest import ArchivedExport
from meibo.archive.runs import Run
from meibo.archive.storage import ArchiveReader
from meibo.errors import WrongFormatError
from meibo_cli.download import download
from meibo_cli.encoding import open_decompressed, parse_exact_json, readable_json
from meibo_cli.restore.archived_users import archived_users
from meibo_cli.restore.import_schema import primary_connection


@dataclass(frozen=True)
class ExportedUser:
    """The values that identify a user: the id, and the connection and the address in lower case, if known."""

    user_id: str = field(repr=False)
    connection: str | None = field(repr=False)
    email: str | None = field(repr=False)


@dataclass(frozen=True)
class DatasetRows:
    """The datasets of a source in a run."""

    reader: ArchiveReader
    run: Run
    source: str

    def exports(self, dataset: str) -> list[ArchivedExport]:
        """Return the exports of a dataset, complete ones first."""
        exports = [
            export
            for export in self.run.exports
            if (export.folder.address.source, export.folder.address.dataset) == (self.source, dataset)
        ]
        return sorted(exports, key=lambda export: (export.folder.address.scope != "all", export.export_id))

    def rows(self, dataset: str) -> Iterator[Mapping[str, Any]]:
        """Yield the rows of a dataset that is exported as NDJSON in one export. Numbers are as exact as possible."""
        for export in self.exports(dataset):
            with tempfile.TemporaryDirectory(prefix="meibo-restore-") as folder:
                path = Path(folder) / "export"
                download(self.reader, export, path)
                with open_decompressed(path) as file:
                    for line in file:
                        if line.strip():
                            yield _row(line, export)

    def users(self) -> Iterator[ExportedUser]:
        """Yield the users of all users exports; a user may be in several of them."""
        for export in self.exports("users"):
            with archived_users(self.reader, export) as archived:
                for row in archived.rows:
                    if isinstance(row, Mapping):
                        fields = {name: row.get(column) for name, column in archived.names.items()}
                        user_id, email = fields.get("user_id"), fields.get("email")
                        if isinstance(user_id, str) and user_id:
                            address = email.lower() if isinstance(email, str) and email else None
                            yield ExportedUser(user_id, primary_connection(user_id, fields), address)


def _row(line: bytes, export: ArchivedExport) -> Mapping[str, Any]:
    try:
        row = parse_exact_json(readable_json(line).decode())
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise WrongFormatError(f"{export.export_id}: expected one JSON object per line; run `meibo verify`")
    return row
