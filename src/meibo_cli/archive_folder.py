"""The folder of a real archive or of a demonstration. Only one process at a time can write to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from meibo.errors import ConfigurationError
from meibo_cli.files import locked_folder, new_file

MARKER: Final = ".meibo"
"""A JSON file with the kind of the archive, written when the folder is first used."""
MARKER_VERSION: Final = 1
PAGE: Final = "index.html"
"""The report of all runs, which each run replaces."""
PARTS_DAYS: Final = 7
"""Age at which the parts of an incomplete run are removed. In the bucket of a stack, a lifecycle rule removes them."""

Kind = Literal["archive", "demonstration"]
_DESCRIPTIONS: Final[dict[Kind, str]] = {
    "archive": "an archive of real directories, which `meibo run` writes",
    "demonstration": "a demonstration with simulated directories, which `make run` writes",
}


@contextmanager
def locked_archive(folder: Path, kind: Kind) -> Iterator[None]:
    """Create the folder if necessary, and lock it for this process.

    Raises ConfigurationError if another process holds the lock, or if the folder contains an archive of another kind.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked_folder(folder):
        _check_kind(folder, kind)
        yield


def _check_kind(folder: Path, kind: Kind) -> None:
    marker, document = folder / MARKER, {"kind": kind, "version": MARKER_VERSION}
    if not marker.exists():
        # Hidden files, such as the lock, are not part of an archive.
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise ConfigurationError(
                f"{folder}/ contains files but no {MARKER}, so its kind is unknown; choose another folder or,"
                f" if it is {_DESCRIPTIONS[kind]}, create {marker} with {json.dumps(document)}"
            )
        with new_file(marker) as file:
            file.write(f"{json.dumps(document)}\n".encode())
        return
    try:
        content = json.loads(marker.read_bytes())
        existing_kind, version = content["kind"], content["version"]
    except (ValueError, TypeError, KeyError):
        existing_kind, version = None, None
    if existing_kind not in _DESCRIPTIONS or version != MARKER_VERSION:
        raise ConfigurationError(
            f"{marker}: expected {json.dumps(document)}; another version of Meibo or another program wrote it"
        )
    if existing_kind != kind:
        raise ConfigurationError(
            f"{folder}/ is {_DESCRIPTIONS[existing_kind]}; choose another folder, because real archives and"
            " demonstrations are never mixed"
        )


def remove_parts(folder: Path, now: datetime, complete_run_id: str | None) -> None:
    """Remove the parts of a complete run, which are no longer required, and the parts of old runs."""
    oldest = f"dt={now - timedelta(days=PARTS_DAYS):%Y-%m-%d}"
    for path in folder.glob("parts/dt=*/run=*"):
        if path.name == f"run={complete_run_id}" or path.parent.name < oldest:
            shutil.rmtree(path)
