"""Read and write the archive in a bucket or in a folder.

Every write is conditional, so no object is overwritten. All implementations, including the in-memory storage of the
tests, pass the same test suite.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from botocore.exceptions import ClientError

from meibo.archive.keys import is_archive_key
from meibo.aws import put_if_absent
from meibo.documents import Document
from meibo.errors import ArchiveConflictError, ConfigurationError, UnexpectedError
from meibo.settings import NO_OBJECT_LOCK, ObjectLock

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CHUNK_BYTES = 1024 * 1024
# Files and folders whose names have this prefix are not part of the archive, for example incomplete files.
TEMPORARY_PREFIX = ".meibo-"
_NOT_FOUND = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchVersion"})
# HeadObject responds with 400 and without a body if a version id is malformed.
_VERSION_NOT_FOUND = _NOT_FOUND | {"400", "405", "InvalidArgument"}
_CHECKSUMS = ("CRC64NVME", "CRC32", "CRC32C", "SHA256", "SHA1")


@dataclass(frozen=True)
class StoredObject:
    """An object in a listing: its key and its size in bytes."""

    key: str
    bytes: int


@dataclass(frozen=True)
class ObjectStat:
    """The properties of an object, which are returned without reading it. A property is None if it is not stored.

    ``storage_class`` is None for S3 Standard and for files. For an object in an archive tier of S3 Intelligent-Tiering,
    it is the name of the tier.
    """

    bytes: int
    version_id: str | None = None
    checksum_algorithm: str | None = None
    checksum_type: str | None = None
    checksum: str | None = None
    storage_class: str | None = None


class ArchiveReader(ABC):
    """An archive that can be read."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The archive's name in messages: ``s3://BUCKET`` or the path of the folder."""

    @abstractmethod
    def list(self, prefix: str, *, after: str = "") -> Iterator[StoredObject]:
        """Yield the objects below a prefix in the order of their keys, starting after the key ``after``."""

    @abstractmethod
    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the folders directly below a prefix in order. The prefix and the folders end with a slash."""

    @abstractmethod
    def read(self, key: str) -> bytes | None:
        """Return the bytes of a small object, or None if it does not exist."""

    @abstractmethod
    def stat(self, key: str, version_id: str | None = None) -> ObjectStat | None:
        """Return the properties of an object or of one of its versions, or None if it does not exist."""

    @abstractmethod
    def chunks(self, key: str, version_id: str | None = None) -> Iterator[bytes]:
        """Yield the bytes of an object or of one of its versions, raising ArchiveConflictError if it does not exist."""

    def keys(self, prefix: str, *, after: str = "") -> Iterator[str]:
        """Yield the keys below a prefix in order, starting after the key ``after``."""
        yield from (stored.key for stored in self.list(prefix, after=after))

    def exists(self, key: str) -> bool:
        """Return whether an object with this key exists."""
        return self.stat(key) is not None

    def read_json(self, key: str) -> Any | None:
        """Return the JSON value of an object, or None if the object does not exist.

        Raises ArchiveConflictError if the object is not JSON.
        """
        body = self.read(key)
        try:
            return None if body is None else json.loads(body)
        except ValueError:
            detail = "expected JSON, found other data; the object was changed after it was written"
            raise ArchiveConflictError(f"{key}: {detail}", detail=detail) from None


class ArchiveStorage(ArchiveReader):
    """An archive that can be read and written."""

    @abstractmethod
    def put_bytes(self, key: str, body: bytes, *, content_type: str) -> bool:
        """Write an object if its key is free, and return whether this call wrote it."""

    def put_json(self, key: str, document: Any) -> bool:
        """Write a JSON document if its key is free, and return whether this call wrote it."""
        body = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
        return self.put_bytes(key, body.encode(), content_type="application/json")


@dataclass(frozen=True)
class StoredDocument(Document):
    """A document that is stored as an object of an archive."""

    @classmethod
    def read(cls, archive: ArchiveReader, key: str) -> Self | None:
        """Return the document at a key, or None if it does not exist.

        Raises ArchiveConflictError if the object is not JSON, and the errors of ``from_json``.
        """
        document = archive.read_json(key)
        return None if document is None else cls.from_json(document, key)

    def write(self, archive: ArchiveStorage, key: str) -> Self:
        """Write the document if the key is free, and return the document that is stored at the key."""
        if archive.put_json(key, self.to_json()):
            return self
        existing = self.read(archive, key)
        if existing is None:
            raise UnexpectedError(
                f"{key}: the write failed because the object exists, but the object was not found afterwards; try again"
            )
        return existing


@dataclass(eq=False)
class S3Reader(ArchiveReader):
    """An archive bucket."""

    client: S3Client
    bucket: str

    @property
    def name(self) -> str:
        return f"s3://{self.bucket}"

    def list(self, prefix: str, *, after: str = "") -> Iterator[StoredObject]:
        paginator = self.client.get_paginator("list_objects_v2")
        for page in paginator.paginate(Bucket=self.bucket, Prefix=prefix, StartAfter=after):
            for entry in page.get("Contents", []):
                yield StoredObject(entry["Key"], entry["Size"])

    def folders(self, prefix: str) -> Iterator[str]:
        paginator = self.client.get_paginator("list_objects_v2")
        for page in paginator.paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/"):
            for entry in page.get("CommonPrefixes", []):
                yield entry["Prefix"]

    def read(self, key: str) -> bytes | None:
        try:
            return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in _NOT_FOUND:
                return None
            raise

    def stat(self, key: str, version_id: str | None = None) -> ObjectStat | None:
        try:
            response: Any = self.client.head_object(
                Bucket=self.bucket, Key=key, ChecksumMode="ENABLED", **_version(version_id)
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in (_VERSION_NOT_FOUND if version_id else _NOT_FOUND):
                return None
            raise
        algorithm = next((name for name in _CHECKSUMS if response.get(f"Checksum{name}")), None)
        storage_class = response.get("ArchiveStatus") or response.get("StorageClass")
        return ObjectStat(
            bytes=response["ContentLength"],
            version_id=response.get("VersionId"),
            checksum_algorithm=algorithm,
            checksum_type=response.get("ChecksumType"),
            checksum=response[f"Checksum{algorithm}"] if algorithm else None,
            # Amazon S3 omits the header for S3 Standard; compatible services return it:
            # https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html
            storage_class=None if storage_class == "STANDARD" else storage_class,
        )

    def chunks(self, key: str, version_id: str | None = None) -> Iterator[bytes]:
        try:
            body = self.client.get_object(Bucket=self.bucket, Key=key, **_version(version_id))["Body"]
        except ClientError as error:
            if error.response["Error"]["Code"] in _NOT_FOUND:
                raise missing_object(key) from None
            raise
        yield from body.iter_chunks(CHUNK_BYTES)


@dataclass(eq=False)
class S3Storage(S3Reader, ArchiveStorage):
    """A writable archive bucket.

    If another write to the same key is in progress, ``wait`` is called with the delay in seconds before the write is
    retried.
    """

    object_lock: ObjectLock = NO_OBJECT_LOCK
    wait: Callable[[float], None] = time.sleep

    def put_bytes(self, key: str, body: bytes, *, content_type: str) -> bool:
        response = put_if_absent(
            self.client,
            body,
            wait=self.wait,
            Bucket=self.bucket,
            Key=key,
            ContentType=content_type,
            ChecksumAlgorithm="SHA256",
            **self.object_lock.parameters(),
        )
        return response is not None


@dataclass(eq=False)
class FolderReader(ArchiveReader):
    """An archive in a folder. The paths of its files are the keys that the objects have in a bucket.

    An object whose key points outside the folder is never read. Files have no versions and no checksums.
    """

    folder: Path

    @property
    def name(self) -> str:
        return str(self.folder)

    def list(self, prefix: str, *, after: str = "") -> Iterator[StoredObject]:
        yield from (stored for stored in self._list(prefix.rpartition("/")[0], prefix) if stored.key > after)

    def _list(self, folder: str, prefix: str) -> Iterator[StoredObject]:
        path = self.folder / folder
        if not path.is_dir():
            return
        # Folders are sorted with a trailing slash, because S3 sorts complete keys.
        names = sorted(entry.name + ("/" if Path(entry).is_dir() else "") for entry in os.scandir(path))
        for name in names:
            if name.startswith(TEMPORARY_PREFIX):
                continue
            key = f"{folder}/{name}".strip("/")
            if name.endswith("/"):
                if f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/"):
                    yield from self._list(key, prefix)
            elif key.startswith(prefix):
                # A broken symbolic link is listed, so that `meibo verify` reports it.
                stat = self.stat(key)
                yield StoredObject(key, stat.bytes if stat else 0)

    def folders(self, prefix: str) -> Iterator[str]:
        path = self.folder / prefix
        if path.is_dir():
            yield from sorted(f"{prefix}{entry.name}/" for entry in os.scandir(path) if Path(entry).is_dir())

    def read(self, key: str) -> bytes | None:
        path = self._file(key)
        return None if path is None else path.read_bytes()

    def stat(self, key: str, version_id: str | None = None) -> ObjectStat | None:  # noqa: ARG002  # no versions
        path = self._file(key)
        return None if path is None else ObjectStat(path.stat().st_size)

    def chunks(self, key: str, version_id: str | None = None) -> Iterator[bytes]:  # noqa: ARG002  # no versions
        with self.path(key).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def path(self, key: str) -> Path:
        """Return the path of a file, raising ArchiveConflictError if it does not exist."""
        path = self._file(key)
        if path is None:
            raise missing_object(key)
        return path

    def _file(self, key: str) -> Path | None:
        path = self.folder / key
        return path if is_archive_key(key) and path.is_file() else None


class FolderStorage(FolderReader, ArchiveStorage):
    """A writable archive in a folder. Only the owner can read its files.

    A file is either complete or absent: it is written to a temporary file and flushed to the disk, and then a hard link
    to it is created at the path of its key.
    """

    def put_bytes(self, key: str, body: bytes, *, content_type: str) -> bool:  # noqa: ARG002  # files have no content type
        with self.temporary_file() as file:
            file.write(body)
            return self.publish(file, key)

    @contextmanager
    def temporary_file(self) -> Iterator[IO[bytes]]:
        """Open a file that is not part of the archive. It is deleted when the context ends."""
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._incoming) as file:
            yield file

    def publish(self, file: IO[bytes], key: str) -> bool:
        """Flush a temporary file to the disk and link it to the path of a key. Return False if the path exists."""
        if not is_archive_key(key):
            raise ConfigurationError(f"expected a key without empty, '.' or '..' segments, found {key!r}")
        path = self.folder / key
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.flush()
        os.fsync(file.fileno())
        try:
            # Unlike os.rename, os.link fails if the path exists.
            os.link(file.name, path)
        except FileExistsError:
            return False
        return True

    def remove_temporary_files(self) -> None:
        """Remove the temporary files of terminated processes. No other process may use the folder at the same time."""
        shutil.rmtree(self._incoming, ignore_errors=True)

    @property
    def _incoming(self) -> Path:
        return self.folder / f"{TEMPORARY_PREFIX}incoming"


def missing_object(key: str) -> ArchiveConflictError:
    """Return the error for an object that does not exist."""
    return ArchiveConflictError(f"{key} does not exist")


def _version(version_id: str | None) -> dict[str, Any]:
    return {"VersionId": version_id} if version_id else {}
