"""Read and write the JSON documents and small objects of the archive.

Every write is conditional, so nothing is ever overwritten. The in-memory store of the tests passes the same suite.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import ClientError

from meibo.aws import put_if_absent
from meibo.errors import ArchiveConflictError
from meibo.settings import Retention

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CHUNK_BYTES = 1024 * 1024
_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})


class ArchiveStore(Protocol):
    """What Meibo needs of the bucket apart from the copy itself."""

    def put_json(self, key: str, document: Any) -> bool:
        """Write the document where the key is free; return whether it was written by this call."""
        ...

    def get_json(self, key: str) -> Any | None:
        """Return the document, or None where there is none."""
        ...

    def put_lines(self, key: str, documents: Sequence[Any]) -> bool:
        """Write one JSON document a line (NDJSON) where the key is free; return as ``put_json`` does."""
        ...

    def get_lines(self, key: str) -> list[Any] | None:
        """Return the documents of an NDJSON object, or None where there is none."""
        ...

    def put_bytes(self, key: str, body: bytes, *, content_type: str) -> bool:
        """Write the bytes where the key is free; return as ``put_json`` does."""
        ...

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of an object, raising ArchiveConflictError where there is none."""
        ...

    def exists(self, key: str) -> bool:
        """Tell whether the key holds an object."""
        ...

    def keys(self, prefix: str, *, after: str = "") -> Iterator[str]:
        """Yield the keys below a prefix in order, those greater than ``after`` only."""
        ...


def encode(document: Any) -> bytes:
    """Return the stored form of a JSON document: readable in a console, UTF-8, one newline at the end."""
    return (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode()


def encode_lines(documents: Sequence[Any]) -> bytes:
    """Return the stored form of NDJSON: UTF-8, a newline after each document."""
    return "".join(
        json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n" for document in documents
    ).encode()


class S3ArchiveStore:
    """The archive bucket. ``wait`` sleeps between the attempts of a write that meets another one."""

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        *,
        retention: Retention | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._retention = retention
        self._wait = wait

    def put_json(self, key: str, document: Any) -> bool:
        """Write the document where the key is free; return whether it was written by this call."""
        return self.put_bytes(key, encode(document), content_type="application/json")

    def put_lines(self, key: str, documents: Sequence[Any]) -> bool:
        """Write one JSON document a line (NDJSON) where the key is free; return as ``put_json`` does."""
        return self.put_bytes(key, encode_lines(documents), content_type="application/x-ndjson")

    def put_bytes(self, key: str, body: bytes, *, content_type: str) -> bool:
        """Write the bytes where the key is free; return as ``put_json`` does."""
        extra: dict[str, Any] = {}
        if self._retention:
            extra = {
                "ObjectLockMode": self._retention.mode,
                "ObjectLockRetainUntilDate": self._retention.retain_until(datetime.now(UTC)),
            }
        answer = put_if_absent(
            self._client,
            body,
            wait=self._wait,
            Bucket=self._bucket,
            Key=key,
            ContentType=content_type,
            ChecksumAlgorithm="SHA256",
            **extra,
        )
        return answer is not None

    def get_json(self, key: str) -> Any | None:
        """Return the document, or None where there is none."""
        body = self._get(key)
        return None if body is None else decode(key, body)

    def get_lines(self, key: str) -> list[Any] | None:
        """Return the documents of an NDJSON object, or None where there is none."""
        body = self._get(key)
        return None if body is None else decode_lines(key, body)

    def _get(self, key: str) -> bytes | None:
        try:
            return self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                return None
            raise

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of an object, raising ArchiveConflictError where there is none."""
        try:
            body = self._client.get_object(Bucket=self._bucket, Key=key)["Body"]
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                raise missing_object(key) from None
            raise
        yield from body.iter_chunks(_CHUNK_BYTES)

    def exists(self, key: str) -> bool:
        """Tell whether the key holds an object."""
        try:
            self._client.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                return False
            raise
        return True

    def keys(self, prefix: str, *, after: str = "") -> Iterator[str]:
        """Yield the keys below a prefix in order, those greater than ``after`` only."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix, StartAfter=after
        )
        for page in pages:
            for entry in page.get("Contents", []):
                yield entry["Key"]


def missing_object(key: str) -> ArchiveConflictError:
    """Return the error for an object that no longer exists."""
    return ArchiveConflictError(f"{key} is not there any more; repair the run to fetch it again")


def decode(key: str, body: bytes) -> Any:
    """Return the value of a JSON object of the archive, raising ArchiveConflictError if it holds no JSON."""
    try:
        return json.loads(body)
    except ValueError:
        raise ArchiveConflictError(f"{key} does not hold JSON; someone else wrote to the archive") from None


def decode_lines(key: str, body: bytes) -> list[Any]:
    """Return the documents of an NDJSON object, raising ArchiveConflictError if a line holds no JSON."""
    # Not splitlines(): U+2028 and its like are line ends to it, and plain text inside a JSON string.
    return [decode(key, line) for line in body.split(b"\n") if line]
