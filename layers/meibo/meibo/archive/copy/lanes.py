"""Lanes: each owns a GET connection, a PUT connection and one buffer, and moves one part after the other."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from meibo.archive.copy.model import MAX_PARTS
from meibo.archive.copy.ramp import Ramp
from meibo.archive.copy.stop import StoppedError
from meibo.errors import FileTooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meibo.archive.copy.digest import Checksum
    from meibo.archive.copy.model import CopyOptions, Counts
    from meibo.archive.copy.order import InOrder
    from meibo.archive.copy.stop import Stop
    from meibo.archive.copy.target import Part


LANES_A_DOWNLOAD = 4
"""So many lanes are at work for each that may download. Sending a part takes about twice as long as receiving it (S3
acknowledges it late), so three keep up; and where the CPU is the limit, what is sent is still in its cache."""


class Reader(Protocol):
    """Reads the source for one lane, or for one lane after the other where it has no ranges."""

    def fill(self, view: memoryview, offset: int, arrived: Callable[[int], None]) -> int:
        """Fill the view from an offset of the file; fewer bytes only where a file of unknown size ends.

        ``arrived`` is told how many bytes of the view are filled, every now and then and at the end.
        """
        ...

    def at_end(self) -> bool:
        """Whether nothing follows what was read last; asked where the size is unknown."""
        ...

    def close(self) -> None:
        """Give back what it holds; the copy is over."""
        ...


class Origin(Protocol):
    """A source as the lanes see it."""

    def begin(self, part_bytes: int) -> tuple[int | None, bool]:
        """Learn the file's size (None: unknown until its end) and whether it can be read in ranges."""
        ...

    def reader(self) -> Reader:
        """Return a reader for one more lane."""
        ...


class Sender(Protocol):
    """Uploads the parts of one lane."""

    def send(self, number: int, data: memoryview, checksum: str) -> Part:
        """Upload a part until S3 has it."""
        ...

    def close(self) -> None:
        """Give back what it holds; the copy is over."""
        ...


class Piece:
    """A part in its lane's buffer."""

    def __init__(self, index: int, view: memoryview, crc: int, readers_left: threading.Semaphore) -> None:
        self.index = index
        self.view = view
        self.crc = crc
        self._readers_left = readers_left

    def done(self) -> None:
        """One of those who read the buffer no longer needs it."""
        self._readers_left.release()


class Lanes:
    """Hands parts to lanes in the file's order, to as many at once as the ramp allows.

    Lanes are made when they are needed, and the one that became free last goes first: a copy that keeps up
    with few buffers touches few, and finds them in the CPU's cache.
    """

    def __init__(
        self,
        origin: Origin,
        senders: Callable[[], Sender],
        followers: Sequence[InOrder[Piece]],
        *,
        checksum: Checksum,
        options: CopyOptions,
        stop: Stop,
        counts: Counts,
    ) -> None:
        self.origin = origin
        self.senders = senders
        self.followers = followers
        self.checksum = checksum
        self.stop = stop
        self.size: int | None = None
        self.part_bytes = options.part_bytes
        self.lock = threading.RLock()
        self.closing = False
        self.only: Piece | None = None  # the part of a file that has no other
        self.parts: dict[int, Part] = {}  # what S3 has
        self._counts = counts
        self._most = options.lanes
        self._ramp: Ramp | None = None
        self._finished = threading.Condition(self.lock)
        self._idle: list[Lane] = []
        self._lanes: list[Lane] = []
        self._next = 0
        self._downloading = 0
        self._end: int | None = None
        stop.on_set(self._wake)

    # -- for the copy's own thread

    def run(self) -> int:
        """Move the whole file and return the number of its parts; raise what ended it early."""
        with self.lock:
            self._dispatch()
            while not self.stop.is_set and not self._complete():
                if not self._finished.wait(self.stop.seconds_left()):
                    self.stop.check_time()
        self.stop.raise_reason()
        assert self._end is not None  # noqa: S101  (told to mypy)
        return self._end

    def _complete(self) -> bool:
        return self.only is not None or len(self.parts) == self._end

    def close(self, seconds: float) -> None:
        """End every lane; one that sits in the caller's code for longer is left to end by itself."""
        with self.lock:
            self.closing = True
            self._wake()
        for lane in self._lanes:
            lane.join(seconds)

    def _wake(self) -> None:
        with self.lock:
            self._finished.notify_all()
            for lane in self._lanes:
                lane.wake()

    def _dispatch(self) -> None:
        """Give the next parts to lanes; the lock is held."""
        limit, most = (1, self._most) if self._ramp is None else (self._ramp.limit, self._ramp.limit * LANES_A_DOWNLOAD)
        while self._downloading < limit and (self._end is None or self._next < self._end):
            if len(self._lanes) - len(self._idle) >= most:
                return
            if self._idle:
                lane = self._idle.pop()
            elif len(self._lanes) < self._most:
                lane = Lane(self)
                self._lanes.append(lane)
                self._counts.lanes = len(self._lanes)
            else:
                return
            if self._next == MAX_PARTS:
                raise FileTooLargeError(f"more than {MAX_PARTS} parts of {self.part_bytes} bytes: raise the part size")
            self._downloading += 1
            lane.give(self._next)
            self._next += 1

    # -- for the lanes

    def begin(self) -> None:
        """Learn how large the file is and whether lanes may share it."""
        size, ranged = self.origin.begin(self.part_bytes)
        with self.lock:
            self.size = size
            if size is None:
                return
            memory = self.part_bytes * self._most
            self.part_bytes = max(self.part_bytes, -(-size // MAX_PARTS))
            self._most = max(1, min(self._most, memory // self.part_bytes))
            self._end = max(1, -(-size // self.part_bytes))
            self._ramp = Ramp(self._most, self.part_bytes) if ranged else None

    def length(self, index: int) -> int:
        """Return how many bytes a part has at most."""
        if self.size is None:
            return self.part_bytes
        return min(self.part_bytes, self.size - index * self.part_bytes)

    def arrived(self, count: int) -> None:
        """Count received bytes, which may let more lanes download."""
        self.stop.check()
        if self._ramp is not None:
            with self.lock:
                if self._ramp.arrived(count):
                    self._dispatch()

    def received(self, piece: Piece, *, last: bool) -> bool:
        """Note that a part is in its buffer; return whether it has to be uploaded as one."""
        with self.lock:
            self._downloading -= 1
            upload = True
            if last:
                upload = bool(piece.view) or piece.index == 0
                self._end = piece.index + upload
                if self._end == 1:
                    self.only, upload = piece, False
                self._finished.notify_all()
            self._dispatch()
        return upload

    def uploaded(self, piece: Piece, part: Part) -> None:
        """Note that S3 has a part."""
        with self.lock:
            self.parts[piece.index] = part
            if self._complete():
                self._finished.notify_all()

    def free(self, lane: Lane) -> None:
        """Note that a lane can take another part."""
        with self.lock:
            self._idle.append(lane)
            self._dispatch()


def share_a_cpu() -> None:
    """Keep this thread on one CPU, the same for all lanes, where the system lets it.

    Python gives up its global lock for each TLS record. Lanes on several CPUs then fight for it 100,000 times a GiB,
    and a copy on two CPUs took longer than on one. What can do without the lock for long, the digest and the decoding,
    has threads of its own that run where they like.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


class Lane:
    """One thread with its two connections and its buffer, which is free only after all have read it."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._assigned = threading.Condition(lanes.lock)
        self._readers_left = threading.Semaphore(0)
        self._index: int | None = None
        self._buffer: memoryview | None = None
        self._reader: Reader | None = None
        self._sender: Sender | None = None
        self._thread: threading.Thread | None = None

    def give(self, index: int) -> None:
        """Assign a part; the lock is held."""
        self._index = index
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="copy-lane", daemon=True)
            self._thread.start()
        else:
            self._assigned.notify()

    def wake(self) -> None:
        """Let the lane notice that it has to end."""
        self._assigned.notify_all()
        for _ in self._lanes.followers:
            self._readers_left.release()

    def join(self, seconds: float) -> None:
        """Wait for the lane's end."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        lanes = self._lanes
        share_a_cpu()
        try:
            with suppress(StoppedError):
                while (index := self._take()) is not None:
                    self._move(index)
                    lanes.free(self)
        except BaseException as error:  # noqa: BLE001  (the copy's own thread raises it)
            lanes.stop.set(error)
        finally:
            self._buffer = None  # now, not when the garbage collector finds lane and lanes holding each other
            for end in (self._reader, self._sender):
                if end is not None:
                    end.close()

    def _take(self) -> int | None:
        with self._lanes.lock:
            while self._index is None:
                if self._lanes.closing or self._lanes.stop.is_set:
                    return None
                self._assigned.wait()
            index, self._index = self._index, None
            return index

    def _move(self, index: int) -> None:
        lanes = self._lanes
        if index == 0:
            lanes.begin()
        if self._buffer is None or len(self._buffer) < lanes.part_bytes:
            self._buffer = memoryview(bytearray(lanes.part_bytes))
        if self._reader is None:
            self._reader = lanes.origin.reader()
        view = self._buffer[: lanes.length(index)]
        crc = seen = 0

        def arrived(filled: int) -> None:
            nonlocal crc, seen
            crc = lanes.checksum.update(view[seen:filled], crc)  # while the bytes are hot
            lanes.arrived(filled - seen)
            seen = filled

        count = self._reader.fill(view, index * lanes.part_bytes, arrived)
        if lanes.size is None:
            last = count < len(view) or self._reader.at_end()
        else:
            last = index * lanes.part_bytes + count == lanes.size
        piece = Piece(index, view[:count], crc, self._readers_left)
        for follower in lanes.followers:
            follower.add(piece)
        if lanes.received(piece, last=last):
            if self._sender is None:
                self._sender = lanes.senders()
            part = self._sender.send(index + 1, piece.view, lanes.checksum.encode(crc))
            lanes.uploaded(piece, part)
        for _ in lanes.followers:
            self._readers_left.acquire()
        lanes.stop.check()
