"""Download archived objects, and compare their length and digest with their manifests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from meibo.archive.manifest import ArchivedExport, ExportManifest
from meibo.archive.storage import ArchiveReader
from meibo.errors import ArchiveConflictError, CorruptFileError
from meibo_cli.files import new_file


def checked_chunks(archive: ArchiveReader, export: ArchivedExport) -> Iterator[bytes]:
    """Yield the bytes of an export, from the object version in its manifest if this version exists.

    Raises CorruptFileError after the last chunk if the length or the digest differs from the manifest.
    """
    version = _version(archive, export)
    if version is not None and archive.stat(export.key, version) is None:
        # A copy of the archive in another bucket has other version ids. The digest proves that the content is the same.
        version = None
    digest, count = hashlib.sha256(), 0
    for chunk in archive.chunks(export.key, version):
        digest.update(chunk)
        count += len(chunk)
        yield chunk
    if count != export.bytes:
        raise CorruptFileError(f"{export.key}: expected {export.bytes:,} bytes as in its manifest, found {count:,}")
    if digest.hexdigest() != export.sha256:
        raise CorruptFileError(
            f"{export.key}: expected the SHA-256 in its manifest, found a different SHA-256; run `meibo verify`"
        )


def download(
    archive: ArchiveReader, export: ArchivedExport, target: Path, *, advance: Callable[[int], None] | None = None
) -> None:
    """Write an export to a new file, which appears only if it is complete and has the digest in its manifest.

    Raises ConfigurationError if the file exists.
    """
    with new_file(target) as file:
        for chunk in checked_chunks(archive, export):
            file.write(chunk)
            if advance:
                advance(len(chunk))


def _version(archive: ArchiveReader, export: ArchivedExport) -> str | None:
    manifest = ExportManifest.read(archive, export.manifest_key)
    if manifest is None:
        raise ArchiveConflictError(f"{export.manifest_key} does not exist; run `meibo verify`")
    return manifest.object.version_id
