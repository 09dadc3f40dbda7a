"""Sources of a copy: a short-lived location, or an iterator."""

from __future__ import annotations

import copy
import gc
import re
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from meibo.archive.copy.cancellation import CancelToken, RetryBudget
from meibo.archive.copy.connection import BROKEN, Connection, retry_after
from meibo.errors import CopyBrokenError, LocationRefusedError, SourceChangedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPResponse

    from meibo.archive.copy.model import CopyOptions, CopyResult, Counts

EXPIRED = frozenset({400, 401, 403, 404, 410})
"""Statuses of an expired location. S3 responds with 403 to an expired signature, and with 400 if the signer's own
session token expired."""

READ_BYTES = 64 * 1024
"""Size of one read. If the connection breaks, the bytes of this read are requested again."""

CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class ChangedError(Exception):
    """The file at the location changed during the copy. ``copy`` handles it and never raises it."""


@dataclass(frozen=True)
class LocationSource:
    """A short-lived URL, read in ranges if the server supports them.

    ``fetch`` returns a new URL, which the caller has validated. It is called once, and again when a URL has expired.
    Its exceptions are raised unchanged.
    """

    fetch: Callable[[], str] = field(repr=False)


@dataclass(frozen=True)
class StreamSource:
    """Bytes of an iterator, read once and in order. Its exceptions are raised unchanged."""

    chunks: Iterable[bytes] = field(repr=False)


Source = LocationSource | StreamSource


class StreamReader:
    """Reads an iterator."""

    is_ranged = False
    size: int | None = None

    def __init__(self, source: StreamSource, token: CancelToken) -> None:
        self._chunks = iter(source.chunks)
        self._token = token
        self._rest = memoryview(b"")

    def open(self, first_bytes: int) -> None:
        """Do nothing: an iterator has no size."""

    def for_worker(self) -> StreamReader:
        """Return this reader: workers read an iterator one after the other."""
        return self

    def read(self, view: memoryview, offset: int) -> int:  # noqa: ARG002  (an iterator has one position)
        """Fill the view; return fewer bytes at the end."""
        filled = 0
        while filled < len(view):
            if not self._rest:
                self._token.check()
                chunk = next(self._chunks, None)
                if chunk is None:
                    break
                self._rest = memoryview(chunk)
            count = min(len(view) - filled, len(self._rest))
            view[filled : filled + count] = self._rest[:count]
            self._rest = self._rest[count:]
            filled += count
        return filled

    def close(self) -> None:
        """Do nothing: the iterator belongs to the caller."""


class Location:
    """The current URL of a source. The workers share it, so an expired URL is replaced once for all workers.

    ``budget`` limits the consecutive URLs that the server rejects; it is restored when the server accepts a URL.
    """

    def __init__(self, source: LocationSource, budget: RetryBudget, counts: Counts) -> None:
        self._source = source
        self.budget = budget
        self._counts = counts
        self._lock = threading.Lock()
        self._url: str | None = None
        self._generation = 0

    def current(self) -> tuple[str, int]:
        """Return the URL and its generation; fetch a new URL if there is none."""
        with self._lock:
            if self._url is None:
                self._url = self._source.fetch()
                self._counts.fetches += 1
            return self._url, self._generation

    def expire(self, generation: int, status: int) -> None:
        """Discard the URL of a generation, unless another worker has already discarded it."""
        with self._lock:
            if generation == self._generation:
                self._url = None
                self._generation += 1
                self._counts.refreshes += 1
                self.budget.spend(f"status {status}")


class LocationReader:
    """Reads the file at a location and resumes after a failure at the first missing byte.

    With ranges, each worker has a reader. Without ranges, all parts are read from one response. Every response must
    have the same ETag and file size as the first response. Otherwise, the file has changed and the copy starts again.
    """

    def __init__(
        self, source: LocationSource, options: CopyOptions, token: CancelToken, counts: Counts, *, ranges: bool
    ) -> None:
        self._location = Location(source, RetryBudget("a new location", options, token, counts), counts)
        self._options = options
        self._token = token
        self._counts = counts
        self._connection = Connection(options.source_tls, options, token)
        self._response: HTTPResponse | None = None  # open response; its next byte is at _position
        self._position = 0
        self._etag: str | None = None
        self.is_ranged = ranges
        self.size: int | None = None

    def for_worker(self) -> LocationReader:
        """Return a reader of the same version for another worker; with ranges, it has its own connection."""
        if not self.is_ranged:
            return self
        reader = copy.copy(self)
        reader._connection = Connection(self._options.source_tls, self._options, self._token)
        reader._response = None
        return reader

    def open(self, first_bytes: int) -> None:
        """Request the first bytes of the file; the response determines the size, the version and the use of ranges."""
        budget = self._budget()
        while True:
            response = self._get({"Range": f"bytes=0-{first_bytes - 1}"} if self.is_ranged else {}, budget)
            self._etag = strong_etag(response)
            if response.status == 200:
                if response.length is None and not response.chunked:
                    raise CopyBrokenError("expected a response with a length or chunks, found neither")
                self.size, self.is_ranged = response.length, False
                break
            if not self.is_ranged:
                raise CopyBrokenError(f"expected status 200 for the whole file, found {response.status}")
            if response.status == 206:
                self.size = file_size(response, 0)
                if self._etag is not None or self.size <= first_bytes:
                    break
            # 206 without a strong ETag: two ranges may be of two versions. 416: an empty file has no ranges.
            self.is_ranged = False
        self._response = response

    def read(self, view: memoryview, offset: int) -> int:
        """Fill the view with the bytes from ``offset``; return fewer only at the end of a file of unknown size."""
        budget = self._budget()
        filled = 0
        while filled < len(view) and offset + filled != self.size:
            failure = None
            try:
                response = self._response_at(offset + filled, offset + len(view), budget)
                piece = view[filled : filled + READ_BYTES]
                count = response.readinto(piece)
                filled += count
                self._position += count
                budget.progress(count)
                if response.chunked and count < len(piece):
                    break
                if count == 0:
                    failure = "a short body"
            except BROKEN as error:
                failure = type(error).__name__
            self._token.check()
            if failure is not None:
                self._response = None
                self._connection.close()
                if self._etag is None and offset + filled:
                    raise ChangedError(f"{failure}, and a file without an ETag cannot be resumed")
                budget.spend(failure)
        return filled

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _budget(self) -> RetryBudget:
        return RetryBudget("the source", self._options, self._token, self._counts)

    def _response_at(self, start: int, end: int, budget: RetryBudget) -> HTTPResponse:
        """Return a response whose next byte is at ``start``; with ranges, a new response ends at ``end``."""
        if self._response is not None and not self._response.isclosed() and self._position == start:
            return self._response
        self._response = None
        headers = {} if self._etag is None else {"If-Match": self._etag}
        if self.is_ranged:
            headers["Range"] = f"bytes={start}-{end - 1}"
        elif start:
            headers["Range"] = f"bytes={start}-"
        response = self._get(headers, budget)
        if response.status in {412, 416} or strong_etag(response) != self._etag:
            raise ChangedError("the location has another version of the file")
        size = file_size(response, start) if response.status == 206 else response.length
        if self.size not in {None, size}:
            raise ChangedError("the location has a file of another size")
        if response.status == 200:
            if self.is_ranged:
                raise ChangedError("the server no longer supports ranges")
            self._skip(response, start)
        self.size = size
        self._response, self._position = response, start
        return response

    def _skip(self, response: HTTPResponse, count: int) -> None:
        """Receive bytes that the copy already has, from a server that does not support ranges."""
        scratch = memoryview(bytearray(min(count, READ_BYTES)))
        while count:
            received = response.readinto(scratch[: min(count, len(scratch))])
            if not received:
                raise ConnectionResetError("a short body")
            count -= received
            self._token.check()

    def _get(self, headers: Mapping[str, str], budget: RetryBudget) -> HTTPResponse:
        """Send a GET request until the response is 200, 206, 412 or 416."""
        while True:
            self._token.check()
            url, generation = self._location.current()
            self._counts.gets += 1
            failure, wait = None, None
            try:
                response = self._connection.request("GET", url, {"Accept-Encoding": "identity", **headers})
            except ssl.SSLCertVerificationError:
                raise LocationRefusedError(
                    f"expected a trusted TLS certificate of {urlsplit(url).hostname}, found an untrusted certificate"
                ) from None
            except BROKEN as error:
                failure = type(error).__name__
            if failure is None:
                status = response.status
                if status in {200, 206, 412, 416}:
                    self._location.budget.restore()
                    return response
                if 300 <= status < 400:
                    raise LocationRefusedError(f"the location redirects ({status}); redirects are not followed")
                if status in EXPIRED:
                    self._location.expire(generation, status)
                    continue
                if status not in {408, 429} and status < 500:
                    raise CopyBrokenError(f"expected status 200 or 206 from the source, found {status}")
                failure, wait = f"status {status}", retry_after(response.headers.get("Retry-After"))
            self._connection.close()
            budget.spend(failure, retry_after=wait)


Reader = LocationReader | StreamReader


def copy_with_restarts(
    source: Source,
    attempt: Callable[[Reader, CancelToken], CopyResult],
    *,
    options: CopyOptions,
    time_left: Callable[[], float] | None,
    counts: Counts,
) -> CopyResult:
    """Repeat the copy of a file, each time with a new reader, until the file does not change during an attempt.

    Raises SourceChangedError after ``max_restarts``.
    """
    while True:
        token = CancelToken(options, time_left)
        try:
            if isinstance(source, StreamSource):
                return attempt(StreamReader(source, token), token)
            ranges = counts.restarts < options.ranged_attempts
            return attempt(LocationReader(source, options, token, counts, ranges=ranges), token)
        except ChangedError as error:
            change = str(error)
        gc.collect()  # frees the buffers, to which the traceback of the error refers
        counts.restarts += 1
        if counts.restarts > options.max_restarts:
            raise SourceChangedError(f"the copy was restarted {options.max_restarts} times, last because {change}")


def strong_etag(response: HTTPResponse) -> str | None:
    """Return the ETag for If-Match, or None if the response has none or a weak one (RFC 9110, 13.1.1)."""
    etag: str | None = response.headers.get("ETag")
    return None if not etag or etag.startswith("W/") else etag


def file_size(response: HTTPResponse, start: int) -> int:
    """Return the size of the file from a 206 response; raise CopyBrokenError if its range starts elsewhere."""
    match = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != start:
        raise CopyBrokenError(f"expected a range from byte {start}, found another range in the response of the source")
    return int(match[3])
