"""Write an archive into a folder: by one process at a time, and complete or absent.

Files are received into ``.incoming/``. When it is complete, that folder is renamed to ``.received/``, which
commits them, and each file moves to its key: objects first, then their manifests, then the run manifests. A process
that ends before the commit leaves only ``.incoming/``, which the next one removes. The next one also completes the
moves of a process that ended after the commit.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from meibo.archive.keys import ARCHIVE, MANIFEST_NAME, REPORTS, RUNS, is_archive_key
from meibo.errors import ConfigurationError
from meibo_cli.archive_folder import locked_folder

_INCOMING: Final = ".incoming"
_RECEIVED: Final = ".received"

# Manifests move after the files that they describe; a run's page moves last, because it shows that the run has ended.
_ORDER: Final = (
    re.compile(rf"{ARCHIVE}.*/{re.escape(MANIFEST_NAME)}"),
    re.compile(rf"{RUNS}.*/_manifest(-[0-9]+)?\.json"),
    re.compile(rf"{REPORTS}.*"),
)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder of a demonstration, and complete or remove the files of an earlier process.

    Raises ConfigurationError if another process has the lock, or if the folder contains an archive of another kind.
    """
    with locked_folder(folder, "demonstration"):
        shutil.rmtree(folder / _INCOMING, ignore_errors=True)
        _move(folder)
        yield


def receive(folder: Path, keys: Iterable[str], fetch: Callable[[str, IO[bytes]], None]) -> None:
    """Write objects to the folder under their keys: all of them, or none if ``fetch`` raises an exception.

    ``fetch`` writes the object of a key to a file. Existing files are not changed.
    """
    incoming = folder / _INCOMING
    try:
        for key in keys:
            path = _path(incoming, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                fetch(key, file)
                file.flush()
                os.fsync(file.fileno())
        if incoming.exists():
            incoming.rename(folder / _RECEIVED)
    except BaseException:
        shutil.rmtree(incoming, ignore_errors=True)
        raise
    _move(folder)


def _path(folder: Path, key: str) -> Path:
    if not is_archive_key(key):
        raise ConfigurationError(f"expected a key that is a relative path, got {key!r}")
    return folder / key


def _move(folder: Path) -> None:
    received = folder / _RECEIVED
    if not received.exists():
        return
    keys = [path.relative_to(received).as_posix() for path in received.rglob("*") if path.is_file()]
    for key in sorted(keys, key=lambda key: (_rank(key), key)):
        target = folder / key
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            (received / key).rename(target)
    shutil.rmtree(received)


def _rank(key: str) -> int:
    return next((place for place, pattern in enumerate(_ORDER, 1) if pattern.fullmatch(key)), 0)
