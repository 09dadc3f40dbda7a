"""New files and folders, which are readable by their owner only and never replace existing ones."""

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


def _exists(path: Path) -> ConfigurationError:
    return ConfigurationError(f"{path} already exists and is not overwritten; choose another name")
