"""A file system through which DuckDB reads an archive. Objects of a bucket are downloaded when a query opens them.

DuckDB's own S3 reader is not used, because DuckDB downloads it on first use and because it has its own configuration of
credentials. A query that filters by partitions downloads only the files of these partitions.
"""

from __future__ import annotations

import threading
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from fsspec import AbstractFileSystem

from meibo.archive.storage import ArchiveReader, FolderReader
from meibo_cli.encoding import readable_copy

PROTOCOL: Final = "meibo"


class ArchiveFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A read-only file system of an archive.

    If ``readable`` is true, the files contain visible text instead of characters that DuckDB rejects. ``failure`` is
    the exception of the last file that could not be opened, because DuckDB reports only its message.
    """

    protocol = PROTOCOL
    # fsspec would otherwise cache instances.
    cachable = False

    def __init__(self, archive: ArchiveReader, folder: Path, *, readable: bool = False) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self._archive = archive
        self._readable = readable
        self._folder = folder / "objects"
        self._folder.mkdir(exist_ok=True)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:  # fsspec's signature
        """Return all files below a path."""
        prefix = self._strip_protocol(path)
        entries = [
            {"name": listed.key, "size": listed.bytes, "type": "file"}
            for listed in self._archive.list(f"{prefix}/" if prefix else "")
        ]
        return entries if detail else [entry["name"] for entry in entries]

    def find(self, path: str, maxdepth: Any = None, withdirs: bool = False, detail: bool = False, **_: Any) -> Any:  # noqa: ARG002  # fsspec's signature
        """Return all files below a path."""
        entries = {entry["name"]: entry for entry in self.ls(path)}
        return entries if detail else list(entries)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return the size of a file."""
        key = self._strip_protocol(path)
        stat = self._archive.stat(key)
        if stat is None:
            raise FileNotFoundError(key)
        return {"name": key, "size": stat.bytes, "type": "file"}

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:  # fsspec's signature
        if mode != "rb":
            raise PermissionError(f"{path}: expected mode rb, found {mode}; the archive is read-only")
        try:
            return self._local(self._strip_protocol(path)).open("rb")
        except Exception as error:
            self.failure = error
            raise

    def _local(self, key: str) -> Path:
        local = self._archive.path(key) if isinstance(self._archive, FolderReader) else self._downloaded(key)
        if not self._readable:
            return local
        readable = self._folder / f"{sha256(key.encode()).hexdigest()}.readable"
        if not readable.exists():
            part = self._part(readable)
            readable_copy(local, part)
            part.rename(readable)
        return readable

    def _downloaded(self, key: str) -> Path:
        local = self._folder / sha256(key.encode()).hexdigest()
        if not local.exists():
            part = self._part(local)
            with part.open("xb") as file:
                for chunk in self._archive.chunks(key):
                    file.write(chunk)
            part.rename(local)
        return local

    def _part(self, path: Path) -> Path:
        # Several threads of a query may open the same file.
        return path.with_name(f"{path.name}.{threading.get_ident()}.part")

    def modified(self, path: str) -> Any:  # noqa: ARG002  # fsspec's signature
        """Return a constant, because archived objects never change."""
        return 0
