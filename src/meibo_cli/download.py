"""Bring an archived object to this machine: whole and with the digest of its manifest, or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from meibo.archive.catalog import ArchivedExport
from meibo.archive.reader import ArchiveReader, read_document
from meibo.errors import ArchiveConflictError, ConfigurationError, CorruptFileError


def checked_chunks(archive: ArchiveReader, export: ArchivedExport) -> Iterator[bytes]:
    """Yield an export's bytes, of the version that its manifest names; raise CorruptFileError at a wrong end."""
    version = _version(archive, export)
    if version is not None and archive.stat(export.key, version) is None:
        # A copy of the archive in another bucket has other versions; the digest tells whether it is the file.
        version = None
    digest, count = hashlib.sha256(), 0
    for chunk in archive.chunks(export.key, version):
        digest.update(chunk)
        count += len(chunk)
        yield chunk
    if count != export.bytes:
        raise CorruptFileError(f"{export.key} has {count:,} bytes, its manifest says {export.bytes:,}")
    if digest.hexdigest() != export.sha256:
        raise CorruptFileError(f"{export.key} does not have the SHA-256 of its manifest; run `meibo verify`")


def download(
    archive: ArchiveReader, export: ArchivedExport, target: Path, *, advance: Callable[[int], None] | None = None
) -> None:
    """Write an export to a file that is not there yet; a file that appears is whole and has the right digest."""
    if target.exists():
        raise ConfigurationError(f"{target} is there already and is not overwritten; name another file with --output")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            for chunk in checked_chunks(archive, export):
                file.write(chunk)
                if advance:
                    advance(len(chunk))
        # A link refuses an existing name, a rename would replace it.
        try:
            os.link(part, target)
        except FileExistsError:
            raise ConfigurationError(f"{target} appeared meanwhile and is not overwritten") from None
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def _version(archive: ArchiveReader, export: ArchivedExport) -> str | None:
    manifest = read_document(archive, export.manifest_key)
    if manifest is None:
        raise ArchiveConflictError(f"{export.manifest_key} is missing or no manifest; run `meibo verify`")
    told = manifest.get("object")
    version = told.get("version_id") if isinstance(told, dict) else None
    return version if isinstance(version, str) else None
