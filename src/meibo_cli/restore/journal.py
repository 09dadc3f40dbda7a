"""The journal of an import: the files, the tenant, and each request with its result.

The journal is written before each request and after its response. A request without a response may have been executed,
so its file is compared with the tenant before it is sent again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from meibo.errors import ConfigurationError
from meibo.validation import model_faults, parse_json
from meibo_cli.encoding import json_bytes
from meibo_cli.files import locked_folder, replace_file

NAME: Final = "journal.json"
VERSION: Final = 1
# The fields of users in a report of failed users.
_REPORTED: Final = ("user_id", "email", "username", "errors")

State = Literal["waiting", "uncertain", "sent", "done", "failed"]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, validate_assignment=True)


class FileImport(_Document):
    """The import of a file.

    ``state`` is ``waiting`` before the request, ``uncertain`` during the request or if its result is unknown, ``sent``
    when the response contains a ``job_id``, and ``done`` or ``failed`` when the job has ended. A file whose request
    failed before a job was created is ``failed`` without a ``job_id``. ``requested_at`` is in seconds since 1970.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")
    sha256: str
    users: int
    state: State = "waiting"
    requested_at: float = 0.0
    job_id: str = ""
    inserted: int = 0
    updated: int = 0
    failed: int = 0
    codes: dict[str, int] = Field(default_factory=dict)
    reason: str | None = None

    @property
    def succeeded(self) -> bool:
        """True if every user of the file was imported."""
        return self.state == "done" and not self.failed and not self.codes


class Journal(_Document):
    """The journal of an import of ``export_id`` of ``run_id`` into a connection."""

    version: Literal[1] = VERSION
    export_id: str
    run_id: str
    source: str
    domain: str
    audience: str | None = None
    connection_id: str
    connection: str
    upsert: bool
    files: list[FileImport]
    _folder: Path = Path()

    @field_validator("files")
    @classmethod
    def _unique_names(cls, files: list[FileImport]) -> list[FileImport]:
        if len({file.name for file in files}) < len(files):
            raise ValueError("expected unique names of files")
        return files

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the journal in a folder. Raises ConfigurationError if there is none, or if it is invalid."""
        path = folder / NAME
        try:
            document, faults = parse_json(path.read_text(encoding="utf-8"))
            journal = None if faults else cls.model_validate(document)
        except FileNotFoundError:
            raise _missing(path) from None
        except ValidationError as error:
            faults, journal = model_faults(error, document), None
        except ValueError:
            faults, journal = [], None
        if journal is None:
            problem = "; ".join(map(str, faults[:10])) or "expected JSON"
            raise ConfigurationError(f"--resume: {path} is not a valid journal of this version of Meibo: {problem}")
        journal._folder = folder
        return journal

    @classmethod
    def create(cls, folder: Path, paths: Sequence[tuple[Path, int]], **target: object) -> Self:
        """Write and return the journal of new files, each with its number of users, in a folder."""
        files = [FileImport(name=path.name, sha256=digest(path.read_bytes()), users=users) for path, users in paths]
        journal = cls.model_validate({**target, "files": [file.model_dump() for file in files]})
        journal._folder = folder
        journal.write()
        return journal

    @property
    def folder(self) -> Path:
        """The folder with the journal and its files."""
        return self._folder

    def content(self, file: FileImport) -> bytes:
        """Return a file's content. Raises ConfigurationError if it is missing or was changed."""
        path = self._folder / file.name
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise ConfigurationError(f"{path} does not exist; repeat the restore with a new folder") from None
        if digest(content) != file.sha256:
            raise ConfigurationError(
                f"{path}: expected the SHA-256 in {NAME}, found a different SHA-256; repeat the restore with a new"
                " folder"
            )
        return content

    def write(self) -> None:
        """Write the journal to its folder."""
        replace_file(self._folder / NAME, self.model_dump_json(indent=1).encode() + b"\n")

    def write_failed(self, file: FileImport, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a report with the users of a file who were not imported, and with the errors of each user."""
        if rows:
            path = self._folder / f"failed-{file.name.removesuffix('.json')}.ndjson"
            lines = ({name: row[name] for name in _REPORTED if name in row} for row in rows)
            replace_file(path, b"".join(json_bytes(line) + b"\n" for line in lines))


def digest(content: bytes) -> str:
    """Return the SHA-256 of a file's content."""
    return sha256(content).hexdigest()


@contextmanager
def locked_journal(folder: Path) -> Iterator[Journal]:
    """Lock a folder for this process and read its journal.

    Raises ConfigurationError if another process holds the lock, or if there is no valid journal.
    """
    if not folder.is_dir():
        raise _missing(folder / NAME)
    with locked_folder(folder):
        yield Journal.read(folder)


def _missing(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"--resume: {path} does not exist; specify the folder of a restore with --preview, --apply or --datasets"
    )
