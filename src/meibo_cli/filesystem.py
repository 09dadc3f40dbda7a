"""Let DuckDB read an archive. An object of a bucket is fetched to a temporary folder when a query opens it.

DuckDB's own S3 reader is an extension that it downloads on first use, with credentials of its own; this needs neither.
A query that names its partitions opens, and so fetches, only the files of these.
"""

from __future__ import annotations

import threading
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from fsspec import AbstractFileSystem

from meibo.archive.reader import ArchiveReader, DiskReader
from meibo_cli.encoding import readable_copy

PROTOCOL: Final = "meibo"


class ArchiveFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The archive as a read-only file system.

    With ``readable``, text that DuckDB refuses is replaced in the files that it opens. ``failure`` is the exception of
    the last file that could not be opened; DuckDB reports it as text only.
    """

    protocol = PROTOCOL
    # One of each archive and folder, not one of the class.
    cachable = False

    def __init__(self, archive: ArchiveReader, folder: Path, *, readable: bool = False) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self._archive = archive
        self._readable = readable
        self._folder = folder / "fetched"
        self._folder.mkdir(exist_ok=True)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:  # fsspec's signature
        """Return what lies below a path."""
        prefix = self._strip_protocol(path)
        found = [
            {"name": one.key, "size": one.bytes, "type": "file"}
            for one in self._archive.list(f"{prefix}/" if prefix else "")
        ]
        return found if detail else [one["name"] for one in found]

    def find(self, path: str, maxdepth: Any = None, withdirs: bool = False, detail: bool = False, **_: Any) -> Any:  # noqa: ARG002  # fsspec's signature
        """Return all files below a path."""
        found = {one["name"]: one for one in self.ls(path)}
        return found if detail else list(found)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return the size of a file."""
        key = self._strip_protocol(path)
        stat = self._archive.stat(key)
        if stat is None:
            raise FileNotFoundError(key)
        return {"name": key, "size": stat.bytes, "type": "file"}

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:  # fsspec's signature
        if mode != "rb":
            raise PermissionError(f"the archive is read only, and {path} was opened with mode {mode}")
        try:
            return self._local(self._strip_protocol(path)).open("rb")
        except Exception as error:
            self.failure = error
            raise

    def _local(self, key: str) -> Path:
        local = self._archive.path(key) if isinstance(self._archive, DiskReader) else self._fetched(key)
        if not self._readable:
            return local
        readable = self._folder / f"{sha256(key.encode()).hexdigest()}.readable"
        if not readable.exists():
            part = self._part(readable)
            readable_copy(local, part)
            part.rename(readable)
        return readable

    def _fetched(self, key: str) -> Path:
        local = self._folder / sha256(key.encode()).hexdigest()
        if not local.exists():
            part = self._part(local)
            with part.open("xb") as file:
                for chunk in self._archive.chunks(key):
                    file.write(chunk)
            part.rename(local)
        return local

    def _part(self, path: Path) -> Path:
        # A query may open a file in several threads at once.
        return path.with_name(f"{path.name}.{threading.get_ident()}.part")

    def modified(self, path: str) -> Any:  # noqa: ARG002  # fsspec's signature
        """Archived objects never change."""
        return 0
