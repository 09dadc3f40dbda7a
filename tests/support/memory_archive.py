"""An archive in memory that behaves as S3ArchiveStore does: both pass tests/integration/archive/test_storage.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from meibo.archive.storage import decode, decode_lines, encode, encode_lines, missing_object


class MemoryArchiveStore:
    """The archive bucket in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put_json(self, key: str, document: Any) -> bool:
        """Write the document where the key is free; return whether it was written by this call."""
        return self.put_bytes(key, encode(document), content_type="application/json")

    def put_bytes(self, key: str, body: bytes, *, content_type: str) -> bool:  # bytes have no type here
        """Write the bytes where the key is free; return as ``put_json`` does."""
        if key in self.objects:
            return False
        self.objects[key] = body
        return True

    def get_json(self, key: str) -> Any | None:
        """Return the document, or None where there is none."""
        body = self.objects.get(key)
        return None if body is None else decode(key, body)

    def put_lines(self, key: str, documents: Sequence[Any]) -> bool:
        """Write one JSON document a line (NDJSON) where the key is free; return as ``put_json`` does."""
        return self.put_bytes(key, encode_lines(documents), content_type="application/x-ndjson")

    def get_lines(self, key: str) -> list[Any] | None:
        """Return the documents of an NDJSON object, or None where there is none."""
        body = self.objects.get(key)
        return None if body is None else decode_lines(key, body)

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of an object, raising ArchiveConflictError where there is none."""
        if key not in self.objects:
            raise missing_object(key)
        yield self.objects[key]

    def exists(self, key: str) -> bool:
        """Tell whether the key holds an object."""
        return key in self.objects

    def keys(self, prefix: str, *, after: str = "") -> Iterator[str]:
        """Yield the keys below a prefix in order, those greater than ``after`` only."""
        yield from (key for key in sorted(self.objects) if key.startswith(prefix) and key > after)
