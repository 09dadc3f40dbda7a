"""Read an archive where it is: in S3 (``s3://bucket``) or in a folder on disk (``./archive``). Nothing here writes.

Both pass one test suite. A folder knows neither versions nor checksums, so there ``stat`` tells the size only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import ClientError

from meibo.errors import ArchiveConflictError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CHUNK_BYTES = 1024 * 1024
_MISSING = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchVersion"})
# A HEAD answers 400 to a version id that this bucket could never have given, and has no body to say so.
_NO_SUCH_VERSION = _MISSING | {"400", "405", "InvalidArgument"}
_CHECKSUMS = ("CRC64NVME", "CRC32", "CRC32C", "SHA256", "SHA1")


@dataclass(frozen=True)
class Listed:
    """One object as a listing tells it."""

    key: str
    bytes: int


@dataclass(frozen=True)
class Stat:
    """What the storage knows of an object without reading it; None is what it does not know.

    ``storage_class`` is None for S3 Standard and for files. For an object in an archive tier of S3 Intelligent-Tiering
    it is the name of the tier.
    """

    bytes: int
    version_id: str | None = None
    checksum_algorithm: str | None = None
    checksum_type: str | None = None
    checksum: str | None = None
    storage_class: str | None = None


class ArchiveReader(Protocol):
    """An archive that can be read."""

    @property
    def name(self) -> str:
        """How people name the archive."""
        ...

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """Yield the objects below a prefix in the order of their keys, those greater than ``after`` only."""
        ...

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the prefixes one level below a prefix that ends with a slash, each with its slash, in order."""
        ...

    def read(self, key: str) -> bytes | None:
        """Return the bytes of a small object, or None where there is none."""
        ...

    def stat(self, key: str, version_id: str | None = None) -> Stat | None:
        """Return what the storage knows of an object (of one version of it), or None where there is none."""
        ...

    def chunks(self, key: str, version_id: str | None = None) -> Iterator[bytes]:
        """Yield the bytes of an object (of one version of it), raising ArchiveConflictError where there is none."""
        ...


class S3Reader:
    """An archive bucket."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    @property
    def name(self) -> str:
        """How people name the archive."""
        return f"s3://{self._bucket}"

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """Yield the objects below a prefix in the order of their keys, those greater than ``after`` only."""
        paginator = self._client.get_paginator("list_objects_v2")
        for page in paginator.paginate(Bucket=self._bucket, Prefix=prefix, StartAfter=after):
            for entry in page.get("Contents", []):
                yield Listed(entry["Key"], entry["Size"])

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the prefixes one level below a prefix that ends with a slash, each with its slash, in order."""
        paginator = self._client.get_paginator("list_objects_v2")
        for page in paginator.paginate(Bucket=self._bucket, Prefix=prefix, Delimiter="/"):
            for entry in page.get("CommonPrefixes", []):
                yield entry["Prefix"]

    def read(self, key: str) -> bytes | None:
        """Return the bytes of a small object, or None where there is none."""
        try:
            return self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                return None
            raise

    def stat(self, key: str, version_id: str | None = None) -> Stat | None:
        """Return what S3 knows of an object (of one version of it), or None where there is none."""
        try:
            answer: Any = self._client.head_object(
                Bucket=self._bucket, Key=key, ChecksumMode="ENABLED", **_version(version_id)
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in (_NO_SUCH_VERSION if version_id else _MISSING):
                return None
            raise
        algorithm = next((name for name in _CHECKSUMS if answer.get(f"Checksum{name}")), None)
        storage_class = answer.get("ArchiveStatus") or answer.get("StorageClass")
        return Stat(
            bytes=answer["ContentLength"],
            version_id=answer.get("VersionId"),
            checksum_algorithm=algorithm,
            checksum_type=answer.get("ChecksumType"),
            checksum=answer[f"Checksum{algorithm}"] if algorithm else None,
            # S3 itself omits the header for S3 Standard; other services send it:
            # https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html
            storage_class=None if storage_class == "STANDARD" else storage_class,
        )

    def chunks(self, key: str, version_id: str | None = None) -> Iterator[bytes]:
        """Yield the bytes of an object (of one version of it), raising ArchiveConflictError where there is none."""
        try:
            body = self._client.get_object(Bucket=self._bucket, Key=key, **_version(version_id))["Body"]
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                raise _gone(key) from None
            raise
        yield from body.iter_chunks(_CHUNK_BYTES)


def is_archive_key(key: str) -> bool:
    """Return whether a key can name an object of an archive.

    Keys are read from manifests, which may have been altered. An absolute key, or one with an empty, ``.`` or ``..``
    segment, would lead out of an archive in a folder.
    """
    return "\0" not in key and not {"", ".", ".."} & set(key.split("/"))


def path_below(folder: Path, key: str) -> Path | None:
    """Return the path of a key below a folder, or None if the key would lead out of it."""
    return folder / key if is_archive_key(key) else None


class DiskReader:
    """An archive in a folder, with the bucket's keys as paths. A key that leads out of the folder does not exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        """How people name the archive."""
        return str(self._folder)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """Yield the objects below a prefix in the order of their keys, those greater than ``after`` only."""
        yield from (one for one in self._walk(prefix.rpartition("/")[0], prefix) if one.key > after)

    def _walk(self, folder: str, prefix: str) -> Iterator[Listed]:
        path = self._folder / folder
        if not path.is_dir():
            return
        # Folders compare with their slash, as keys do.
        names = sorted(entry.name + ("/" if Path(entry).is_dir() else "") for entry in os.scandir(path))
        for name in names:
            key = f"{folder}/{name}".strip("/")
            if name.endswith("/"):
                if f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/"):
                    yield from self._walk(key, prefix)
            elif key.startswith(prefix):
                # A dangling link is listed, so that `meibo verify` reports it; it has no bytes and no Stat.
                stat = self.stat(key)
                yield Listed(key, stat.bytes if stat else 0)

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the prefixes one level below a prefix that ends with a slash, each with its slash, in order."""
        path = self._folder / prefix
        if path.is_dir():
            yield from sorted(f"{prefix}{entry.name}/" for entry in os.scandir(path) if Path(entry).is_dir())

    def read(self, key: str) -> bytes | None:
        """Return the bytes of a small object, or None where there is none."""
        path = self._file(key)
        return None if path is None else path.read_bytes()

    def stat(self, key: str, version_id: str | None = None) -> Stat | None:  # noqa: ARG002  # a folder has no versions
        """Return the size of a file, or None where there is none."""
        path = self._file(key)
        return None if path is None else Stat(path.stat().st_size)

    def chunks(self, key: str, version_id: str | None = None) -> Iterator[bytes]:  # noqa: ARG002  # as above
        """Yield the bytes of a file, raising ArchiveConflictError where there is none."""
        with self.path(key).open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def path(self, key: str) -> Path:
        """Return the path of a file, raising ArchiveConflictError where there is none."""
        path = self._file(key)
        if path is None:
            raise _gone(key)
        return path

    def _file(self, key: str) -> Path | None:
        path = path_below(self._folder, key)
        return path if path is not None and path.is_file() else None


def read_document(archive: ArchiveReader, key: str) -> dict[str, Any] | None:
    """Return a JSON object of the archive, or None where there is none or it holds something else."""
    body = archive.read(key)
    if body is None:
        return None
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _version(version_id: str | None) -> dict[str, Any]:
    return {"VersionId": version_id} if version_id else {}


def _gone(key: str) -> ArchiveConflictError:
    return ArchiveConflictError(f"{key} is not there")
