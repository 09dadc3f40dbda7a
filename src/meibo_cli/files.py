"""Create files and folders that only their owner can read, replace files atomically, and lock folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from meibo.errors import ConfigurationError

STDOUT: Final = Path("-")
"""The name of stdout in the options for files."""
LOCK: Final = ".lock"


def write_stdout(content: bytes) -> None:
    """Write bytes to stdout. Raises OSError with the file name stdout if they cannot be written."""
    try:
        sys.stdout.buffer.write(content)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "stdout") from None


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file for writing. It appears at ``path`` when the context ends without an exception.

    Raises ConfigurationError if the file exists.
    """
    if path.exists():
        raise _exists(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        try:
            # Unlike a rename, a link fails if the name exists.
            os.link(part, path)
        except FileExistsError:
            raise _exists(path) from None
    finally:
        part.unlink(missing_ok=True)


def new_folder(path: Path) -> Path:
    """Create a folder and return it. Raises ConfigurationError if it exists."""
    try:
        path.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise _exists(path) from None
    return path


def replace_file(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read. After a crash, it contains either the old or the new content."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock a folder for this process. The kernel releases the lock when the process ends.

    Raises ConfigurationError if another process holds the lock.
    """
    import fcntl  # noqa: PLC0415  # does not exist on Windows, where the other commands work

    with os.fdopen(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"another process ({file.read(20).strip() or 'unknown'}) is writing to {folder}/; wait until it has"
                " ended, or choose another folder"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _exists(path: Path) -> ConfigurationError:
    return ConfigurationError(f"{path} already exists and is not overwritten; choose another name")
