"""Where the bytes come from: a short-lived location, or an iterator of the caller's."""

from __future__ import annotations

import re
import ssl
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from meibo.archive.copy.connection import BROKEN, Connection, retry_after, told, trust
from meibo.archive.copy.stop import Patience
from meibo.errors import CopyBrokenError, LocationRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from meibo.archive.copy.connection import Body
    from meibo.archive.copy.model import CopyOptions, Counts
    from meibo.archive.copy.stop import Stop

EXPIRED = frozenset({400, 401, 403, 404, 410})
"""S3 answers an expired signature with 403, and with 400 where the signer's own token expired."""

HOT_BYTES = 256 * 1024
"""A piece that is still in the CPU's cache when its checksum is computed."""

WIRE_BYTES = 128 * 1024

CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class ChangedError(Exception):
    """The file behind the location is not the one that the copy began with; never leaves the package."""


class LocationSource:
    """A short-lived URL that serves byte ranges, perhaps.

    ``fetch`` returns a fresh URL that the caller has vetted; it is called once at the start and again when
    a URL is refused. Its exceptions pass through.
    """

    def __init__(self, fetch: Callable[[], str], *, headers: Mapping[str, str] | None = None) -> None:
        self._fetch = fetch
        self.headers = dict(headers or {})

    def __repr__(self) -> str:
        return "LocationSource(…)"

    def fetch(self) -> str:
        """Ask for a fresh URL."""
        return self._fetch()


class StreamSource:
    """Bytes from an iterator: one pass, no ranges, nothing to resume. Its exceptions pass through."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks: Iterator[bytes] = iter(chunks)
        self._rest = memoryview(b"")

    def __repr__(self) -> str:
        return "StreamSource(…)"

    def at_end(self) -> bool:
        """Whether the iterator has no more bytes."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return True
            self._rest = memoryview(chunk)
        return False

    def readinto(self, view: memoryview) -> int:
        """Copy the next bytes; 0 at the end."""
        if self.at_end():
            return 0
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class Location:
    """The location that all lanes share; one of them refreshes it for all."""

    def __init__(self, source: LocationSource, options: CopyOptions, counts: Counts) -> None:
        self._source = source
        self._tries = options.tries
        self._counts = counts
        self._lock = threading.Lock()
        self._url: str | None = None
        self._generation = 0
        self._refused = 0
        self.headers = source.headers

    def current(self) -> tuple[str, int]:
        """Return the URL and its generation."""
        with self._lock:
            if self._url is None:
                self._url = self._source.fetch()
                self._counts.fetches += 1
            return self._url, self._generation

    def served(self) -> None:
        """Note that the current URL works."""
        self._refused = 0

    def refused(self, generation: int, status: int) -> None:
        """Get a fresh URL, unless another lane already did since ``generation``."""
        with self._lock:
            if generation != self._generation:
                return
            self._refused += 1
            if self._refused >= self._tries:
                raise CopyBrokenError(f"{self._refused} fresh locations in a row were refused, last with {status}")
            self._url = None
            self._url = self._source.fetch()
            self._generation += 1
            self._counts.fetches += 1
            self._counts.refreshes += 1


@dataclass(frozen=True)
class Version:
    """What tells the file behind a location from another: every range has to agree with it."""

    size: int | None
    etag: str | None
    ranged: bool


class Download:
    """Reads one file over one connection and goes on from the exact byte after a break.

    With ranges each call of ``fill`` is one request; without, one response is read on and on.
    """

    def __init__(
        self, location: Location, options: CopyOptions, stop: Stop, counts: Counts, tls: ssl.SSLContext
    ) -> None:
        self._location = location
        self._stop = stop
        self._counts = counts
        self._connection = Connection(options, tls, wire_bytes=WIRE_BYTES)
        stop.on_set(self._connection.interrupt)
        self._patience = Patience("the source", options, stop, counts)
        self._body: Body | None = None
        self._at = 0
        self._ahead = b""
        self.version = Version(None, None, ranged=False)

    def begin(self, part_bytes: int, *, ranges: bool) -> Version:
        """Ask for the first part and learn the file's size and version from the answer."""
        while True:
            body = self._request({"Range": f"bytes=0-{part_bytes - 1}"} if ranges else {})
            etag = strong(body.headers.get("ETag"))
            if body.status == 206 and ranges:
                size = range_of(body, 0)
                if etag is None and size > part_bytes:
                    ranges = False  # without a strong ETag nothing proves that two ranges are of one file
                    continue
                self.version = Version(size, etag, ranged=True)
            elif body.status == 200:
                if body.length is None and not body.chunked:
                    raise CopyBrokenError("the source does not tell where its file ends")
                self.version = Version(body.length, etag, ranged=False)
            elif ranges:
                ranges = False  # 416: an empty file has no first byte
                continue
            else:
                raise CopyBrokenError(f"the source answered {body.status} to a request of the whole file")
            self._body, self._at = body, 0
            return self.version

    def fill(self, view: memoryview, offset: int, arrived: Callable[[int], None]) -> int:
        """Fill the view with the file's bytes from offset; fewer only where a file of unknown size ends."""
        filled = len(self._ahead)
        view[:filled], self._ahead = self._ahead, b""
        while filled < len(view):
            broken = None
            body, count = self._body, 0
            until = min(filled + HOT_BYTES, len(view))
            try:
                if body is None or body.length == 0 or self._at != offset + filled:
                    body = None  # what it counted last is not to be counted again
                    body = self._open(offset + filled, offset + len(view))
                count = body.readinto(view[filled:until])
            except BROKEN as error:
                broken = told(error)
                count = 0 if body is None else body.filled
            self._at += count
            filled += count
            if count:
                self._patience.progress(count)
                arrived(filled)
            if broken is None and filled < until:
                if self.version.size is None:
                    break
                broken = "a short body"
            if broken is not None:
                self._drop()
                self._broke(broken)
        arrived(filled)
        return filled

    def at_end(self) -> bool:
        """Read one byte ahead."""
        byte = bytearray(1)
        if self.fill(memoryview(byte), self._at, lambda _: None) == 0:
            return True
        self._ahead = bytes(byte)
        return False

    def close(self) -> None:
        """Close the connection."""
        self._drop()

    def _broke(self, why: str) -> None:
        if self.version.etag is None and self._at:
            raise ChangedError(f"{why}, and without an ETag nothing can be gone on with")
        self._patience.broke(why)

    def _drop(self) -> None:
        self._body = None
        self._connection.close()

    def _open(self, at: int, until: int) -> Body:
        """Request from a byte on; to the end of the part with ranges, of the file without."""
        version = self.version
        headers = {}
        if version.etag is not None:
            headers["If-Match"] = version.etag
        if version.ranged:
            headers["Range"] = f"bytes={at}-{until - 1}"
        elif at:
            headers["Range"] = f"bytes={at}-"
        body = self._request(headers)
        if body.status in {412, 416} or strong(body.headers.get("ETag")) != version.etag:
            raise ChangedError("another version is there")
        if body.status == 206:
            size = range_of(body, at)
            if version.size not in {None, size}:
                raise ChangedError("another size is there")
        elif version.ranged:
            raise ChangedError("ranges are no longer served")
        elif version.size not in {None, body.length}:
            raise ChangedError("another size is there")
        else:
            self._skip(body, at)
        self._body, self._at = body, at
        return body

    def _skip(self, body: Body, count: int) -> None:
        """Read over bytes that are here already, where the server refuses ranges."""
        scratch = memoryview(bytearray(min(count, HOT_BYTES)))
        while count:
            read = body.readinto(scratch[: min(count, len(scratch))])
            if not read:
                raise ConnectionResetError("a short body")
            count -= read
            self._stop.check()

    def _request(self, headers: Mapping[str, str]) -> Body:
        """Send a GET until it is answered with 200, 206, 412 or 416."""
        while True:
            self._stop.check()
            url, generation = self._location.current()
            self._counts.gets += 1
            broken = None
            try:
                body = self._connection.send(
                    "GET", url, {"Accept-Encoding": "identity", **self._location.headers, **headers}
                )
            except ssl.SSLCertVerificationError:
                host = urlsplit(url).hostname
                raise LocationRefusedError(f"the TLS certificate of {host} is not trusted") from None
            except BROKEN as error:
                broken = told(error)
            if broken is not None:
                self._drop()
                self._patience.broke(broken)
                continue
            if body.status in {200, 206, 412, 416}:
                self._location.served()
                return body
            self._drop()
            if 300 <= body.status < 400:
                raise LocationRefusedError(f"the location redirects ({body.status}); redirects are not followed")
            if body.status in EXPIRED:
                self._location.refused(generation, body.status)
            elif body.status in {408, 429} or body.status >= 500:
                self._patience.broke(f"status {body.status}", wait=retry_after(body.headers) or 0.001)
            else:
                raise CopyBrokenError(f"the source answered {body.status}")


def strong(etag: str | None) -> str | None:
    """Return an ETag that If-Match can use; weak ones never match (RFC 9110, 13.1.1)."""
    return None if not etag or etag.startswith("W/") else etag


def range_of(body: Body, at: int) -> int:
    """Check where a 206 begins and return the size of the whole file."""
    match = CONTENT_RANGE.fullmatch(body.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != at:
        raise CopyBrokenError("the source answered a range request with another range")
    return int(match[3])


class LocationOrigin:
    """A location as the lanes see it: a download for each, or one for all where ranges are refused."""

    def __init__(
        self, source: LocationSource, options: CopyOptions, stop: Stop, counts: Counts, *, ranges: bool
    ) -> None:
        self._location = Location(source, options, counts)
        self._make = partial(Download, self._location, options, stop, counts, options.source_tls or trust())
        self._ranges = ranges
        self._first: Download | None = None
        self._version: Version | None = None

    def begin(self, part_bytes: int) -> tuple[int | None, bool]:
        """Ask for the first part."""
        self._first = self._make()
        self._version = self._first.begin(part_bytes, ranges=self._ranges)
        return self._version.size, self._version.ranged

    def reader(self) -> Download:
        """Return the first download, and with ranges others of the same version."""
        assert self._version is not None  # noqa: S101  (told to mypy)
        download = self._first
        if download is None:
            download = self._make()
            download.version = self._version
        elif self._version.ranged:
            self._first = None
        return download


class StreamOrigin:
    """The caller's iterator as the lanes see it; one lane after the other reads on."""

    def __init__(self, source: StreamSource) -> None:
        self._source = source

    def begin(self, part_bytes: int) -> tuple[int | None, bool]:  # noqa: ARG002  (it has no parts)
        """An iterator tells its size at its end."""
        return None, False

    def reader(self) -> StreamOrigin:
        """Return this one reader."""
        return self

    def close(self) -> None:
        """The iterator is the caller's."""

    def fill(self, view: memoryview, offset: int, arrived: Callable[[int], None]) -> int:  # noqa: ARG002
        """Copy the iterator's next bytes."""
        filled = told_of = 0
        while filled < len(view) and (count := self._source.readinto(view[filled:])):
            filled += count
            if filled - told_of >= HOT_BYTES:
                arrived(filled)
                told_of = filled
        arrived(filled)
        return filled

    def at_end(self) -> bool:
        """Look whether there is another chunk."""
        return self._source.at_end()
