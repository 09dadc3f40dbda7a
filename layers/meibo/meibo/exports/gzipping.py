"""Compress what Meibo puts together itself; what a provider delivers is never touched."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

# Directories are small next to what a copy moves, so the usual level serves.
_LEVEL = 6
_GZIP_WINDOW_BITS = 31


def gzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks as one gzip member; the same chunks give the same bytes, as the header holds no time."""
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_WINDOW_BITS)
    for chunk in chunks:
        if out := compressor.compress(chunk):
            yield out
    yield compressor.flush()
