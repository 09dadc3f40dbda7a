"""Work on a file's parts that has to be done in the file's order, away from the lanes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from meibo.archive.copy.stop import StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from meibo.archive.copy.stop import Stop


class Numbered(Protocol):
    """Something with a place in the order, that wants to know when it was dealt with."""

    index: int

    def done(self) -> None:
        """One of the works on it is over."""
        ...


Item = TypeVar("Item", bound=Numbered)


class InOrder(Generic[Item]):
    """A thread that works on items by their index, as soon as the next one is there."""

    def __init__(self, name: str, work: Callable[[Item], None], stop: Stop) -> None:
        self._work = work
        self._stop = stop
        self._ready = threading.Condition()
        self._waiting: dict[int, Item] = {}
        self._next = 0
        self._end: int | None = None
        stop.on_set(self._wake)
        self._thread = threading.Thread(target=self._run, name=f"copy-{name}", daemon=True)
        self._thread.start()

    def _wake(self) -> None:
        with self._ready:
            self._ready.notify_all()

    def add(self, item: Item) -> None:
        """Take an item, in whatever order they come."""
        with self._ready:
            self._waiting[item.index] = item
            if item.index == self._next:
                self._ready.notify_all()

    def finish(self, count: int) -> None:
        """Say how many items there are, and wait until all were worked on or the copy ends."""
        with self._ready:
            self._end = count
            self._ready.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            while (item := self._take()) is not None:
                self._work(item)
                item.done()
        except StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001  (the copy's thread raises it)
            self._stop.set(error)
        finally:
            self._waiting.clear()

    def _take(self) -> Item | None:
        with self._ready:
            while self._next not in self._waiting:
                if self._stop.is_set or self._next == self._end:
                    return None
                self._ready.wait()
            self._next += 1
            return self._waiting.pop(self._next - 1)
