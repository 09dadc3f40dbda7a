"""Compress what Meibo puts together itself; what a provider delivers is never touched."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

# Directories are small next to what a copy moves, so the usual level serves.
_LEVEL = 6
_GZIP_WINDOW_BITS = 31


def gzip_member() -> zlib._Compress:
    """Return the compressor of one gzip member; its header holds no time, so the same rows give the same bytes."""
    return zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_WINDOW_BITS)


def gzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks as one gzip member."""
    compressor = gzip_member()
    for chunk in chunks:
        if out := compressor.compress(chunk):
            yield out
    yield compressor.flush()
