"""An in-memory archive. It passes the tests of S3Storage in tests/integration/archive/test_storage.py."""

from __future__ import annotations

from collections.abc import Iterator

from meibo.archive.storage import ArchiveStorage, ObjectStat, StoredObject, missing_object


class MemoryStorage(ArchiveStorage):
    """The archive bucket in memory, without versions and checksums."""

    name = "memory"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put_bytes(self, key: str, body: bytes, *, content_type: str) -> bool:  # objects have no type
        """Write the bytes unless the key exists, and return whether they were written."""
        return self.objects.setdefault(key, body) is body

    def list(self, prefix: str, *, after: str = "") -> Iterator[StoredObject]:
        """Yield the objects below a prefix whose keys are greater than ``after``, in the order of the keys."""
        for key, body in sorted(self.objects.items()):
            if key.startswith(prefix) and key > after:
                yield StoredObject(key, len(body))

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the folders directly below a prefix, in order. The prefix and the folders end with a slash."""
        rests = {key.removeprefix(prefix).partition("/") for key in self.objects if key.startswith(prefix)}
        yield from sorted({f"{prefix}{name}/" for name, slash, _ in rests if slash})

    def read(self, key: str) -> bytes | None:
        """Return the bytes of an object, or None if it does not exist."""
        return self.objects.get(key)

    def stat(self, key: str, version_id: str | None = None) -> ObjectStat | None:  # no versions
        """Return the size of an object, or None if it does not exist."""
        body = self.objects.get(key)
        return None if body is None else ObjectStat(len(body))

    def chunks(self, key: str, version_id: str | None = None) -> Iterator[bytes]:  # no versions
        """Yield the bytes of an object. Raise ArchiveConflictError if it does not exist."""
        if key not in self.objects:
            raise missing_object(key)
        yield self.objects[key]
