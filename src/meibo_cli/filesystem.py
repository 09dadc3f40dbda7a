"""Let DuckDB read objects of a bucket: each is fetched once to a temporary folder, when a query opens it.

DuckDB's own S3 reader is an extension that it downloads on first use, with credentials of its own; this needs neither.
A query that names its partitions opens, and so fetches, only the files of these.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from fsspec import AbstractFileSystem

from meibo.archive.reader import ArchiveReader

PROTOCOL: Final = "meibo"


class ArchiveFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The archive as a read-only file system."""

    protocol = PROTOCOL
    # One of each archive and folder, not one of the class.
    cachable = False

    def __init__(self, archive: ArchiveReader, folder: Path) -> None:
        super().__init__()
        self._archive = archive
        self._folder = folder / "fetched"
        self._folder.mkdir()

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

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:  # noqa: ARG002  # fsspec's signature
        key = self._strip_protocol(path)
        local = self._folder / sha256(key.encode()).hexdigest()
        if not local.exists():
            part = local.with_suffix(".part")
            with part.open("wb") as file:
                for chunk in self._archive.chunks(key):
                    file.write(chunk)
            part.rename(local)
        return local.open("rb")

    def modified(self, path: str) -> Any:  # noqa: ARG002  # fsspec's signature
        """Archived objects never change."""
        return 0
