"""An archive in memory that behaves like S3ArchiveStore: both pass tests/integration/archive/test_storage.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from meibo.archive.storage import decode, decode_lines, encode, encode_lines, missing_object


class MemoryArchiveStore:
    """The archive bucket in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put_json(self, key: str, document: Any) -> bool:
        """Write the document if the key does not exist. Return whether this call wrote it."""
        return self.put_bytes(key, encode(document), content_type="application/json")

    def put_bytes(self, key: str, body: bytes, *, content_type: str) -> bool:  # bytes have no content type here
        """Write the bytes if the key does not exist. Return whether this call wrote them."""
        if key in self.objects:
            return False
        self.objects[key] = body
        return True

    def get_json(self, key: str) -> Any | None:
        """Return the document, or None if it does not exist."""
        body = self.objects.get(key)
        return None if body is None else decode(key, body)

    def put_lines(self, key: str, documents: Sequence[Any]) -> bool:
        """Write an NDJSON object if the key does not exist. Return whether this call wrote it."""
        return self.put_bytes(key, encode_lines(documents), content_type="application/x-ndjson")

    def get_lines(self, key: str) -> list[Any] | None:
        """Return the documents of an NDJSON object, or None if it does not exist."""
        body = self.objects.get(key)
        return None if body is None else decode_lines(key, body)

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of an object. Raise ArchiveConflictError if it does not exist."""
        if key not in self.objects:
            raise missing_object(key)
        yield self.objects[key]

    def exists(self, key: str) -> bool:
        """Return whether an object with the key exists."""
        return key in self.objects

    def keys(self, prefix: str, *, after: str = "") -> Iterator[str]:
        """Yield the keys below a prefix in order, only those greater than ``after``."""
        yield from (key for key in sorted(self.objects) if key.startswith(prefix) and key > after)
