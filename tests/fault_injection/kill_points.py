"""Kill an invocation before or after a chosen external call."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Literal

import meibo
from tests.fault_injection.external_calls import Call, Invocation, InvocationKilled

Moment = Literal["before", "after"]
# The source lines of the call stack, the innermost frame first.
Stack = tuple[tuple[str, int], ...]
_PROGRAM = tuple(meibo.__path__)


@dataclass(frozen=True)
class Point:
    """The nth call of a kind by a function in a run, and whether the invocation is killed before or after it."""

    function: str
    name: str
    number: int
    moment: Moment

    def __str__(self) -> str:
        return f"{self.moment} {self.function}'s {self.name} no. {self.number}"


def service_of(name: str) -> str:
    """Return the service of a call: ``s3``, ``sqs``, …, or ``HTTP`` for a provider."""
    service, colon, operation = name.partition(":")
    return service if colon and operation.isidentifier() else "HTTP"


@dataclass(frozen=True)
class CallSite:
    """A call with the lines that led to it and the kinds of objects in the bucket.

    A call of another run with the same values does not need another test.
    """

    function: str
    name: str
    number: int
    stack: Stack
    stored: tuple[str, ...]


@dataclass
class CallCounter:
    """Records the calls of a complete run. ``stored`` returns the objects in the bucket."""

    stored: Callable[[], tuple[str, ...]] = tuple
    sites: list[CallSite] = field(default_factory=list)
    _numbers: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def before(self, invocation: Invocation, call: Call) -> None:
        with self._lock:
            self._numbers[call.function, call.name] += 1
            number = self._numbers[call.function, call.name]
            self.sites.append(CallSite(call.function, call.name, number, _program_stack(), self.stored()))

    def after(self, invocation: Invocation, call: Call) -> None:
        pass

    def services(self) -> Counter[str]:
        """Return the number of calls per service; ``HTTP`` stands for the providers."""
        return Counter(service_of(site.name) for site in self.sites)

    def points(self, tested: Collection[CallSite] = ()) -> list[Point]:
        """Return every point at which an invocation can be killed, except those of the tested calls."""
        moments: tuple[Moment, ...] = ("before", "after")
        return [
            Point(site.function, site.name, site.number, moment)
            for site in self.sites
            if site not in tested
            for moment in moments
        ]


def _program_stack() -> Stack:
    lines: list[tuple[str, int]] = []
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PROGRAM):
            lines.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
    return tuple(lines)


class Killer:
    """Kills the invocation at a point."""

    def __init__(self, point: Point) -> None:
        self.point = point
        self.reached = False
        # The multipart uploads that the killed invocation had started, which it can no longer abort.
        self.uploads = 0
        self._started = Counter[Invocation]()
        self._seen = 0
        self._lock = threading.Lock()
        self._target: Call | None = None

    def before(self, invocation: Invocation, call: Call) -> None:
        with self._lock:
            if self.reached or (call.function, call.name) != (self.point.function, self.point.name):
                return
            self._seen += 1
            if self._seen == self.point.number:
                self._target = call
                if self.point.moment == "before":
                    self._kill(invocation)

    def after(self, invocation: Invocation, call: Call) -> None:
        with self._lock:
            self._started[invocation] += call.name == "s3:CreateMultipartUpload"
            if not self.reached and call is self._target:
                self._kill(invocation)

    def _kill(self, invocation: Invocation) -> None:
        self.reached = True
        self.uploads = self._started[invocation]
        invocation.killed = True
        raise InvocationKilled


def kill_at_every_point(
    subject: str,
    counter: CallCounter,
    attempt: Callable[[Killer], None],
    report_line: Callable[[str], None],
    *,
    tested: Collection[CallSite] = (),
) -> None:
    """Run the attempt with a kill at every point of the counted calls, report a summary, and fail with all failures.

    ``tested`` contains calls that other runs have tested. Their points are skipped.
    """
    failures: list[str] = []
    points = counter.points(tested)
    for point in points:
        killer = Killer(point)
        try:
            attempt(killer)
        except Exception as error:  # noqa: BLE001  # reported with its point
            failures.append(f"{point}: {type(error).__name__}: {error}")
            continue
        if not killer.reached:
            failures.append(f"{point}: was never reached")
    services = ", ".join(f"{count} {service}" for service, count in sorted(counter.services().items()))
    same = sum(site in tested for site in counter.sites)
    report_line(
        f"{subject}: {len(counter.sites)} calls ({services}), {same} the same as in other runs,"
        f" {len(points)} crash points tried, {len(failures)} failed"
    )
    assert not failures, "\n".join(failures)
