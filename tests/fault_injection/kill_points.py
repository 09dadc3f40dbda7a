"""Kill an invocation at one call to the outside, before or after it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tests.fault_injection.external_calls import Call, Invocation, InvocationKilled

Moment = Literal["before", "after"]


@dataclass(frozen=True)
class Point:
    """The nth call of one kind that one function makes in a run."""

    function: str
    name: str
    number: int
    moment: Moment

    def __str__(self) -> str:
        return f"{self.moment} {self.function}'s {self.name} no. {self.number}"


def service_of(name: str) -> str:
    """Return which service a call goes to: ``s3``, ``sqs``, …, or ``HTTP`` for a provider's."""
    service, colon, operation = name.partition(":")
    return service if colon and operation.isidentifier() else "HTTP"


@dataclass
class Counted:
    """Counts the calls of a complete run."""

    calls: list[tuple[str, str]] = field(default_factory=list)

    def before(self, invocation: Invocation, call: Call) -> None:
        self.calls.append((call.function, call.name))

    def after(self, invocation: Invocation, call: Call) -> None:
        pass

    def services(self) -> Counter[str]:
        """Return how many calls went to which service; ``HTTP`` are the providers' own."""
        return Counter(service_of(name) for _, name in self.calls)

    def points(self) -> list[Point]:
        """Return every place where a function can vanish."""
        seen = Counter[tuple[str, str]]()
        points: list[Point] = []
        for function, name in self.calls:
            seen[function, name] += 1
            number = seen[function, name]
            points += [Point(function, name, number, "before"), Point(function, name, number, "after")]
        return points


class Killer:
    """Lets the invocation vanish at one point."""

    def __init__(self, point: Point) -> None:
        self.point = point
        self.reached = False
        # The multipart uploads that the invocation had begun when it vanished: nobody is left to abort them.
        self.uploads = 0
        self._begun = Counter[Invocation]()
        self._seen = 0
        self._lock = threading.Lock()
        self._at: Call | None = None

    def before(self, invocation: Invocation, call: Call) -> None:
        with self._lock:
            if self.reached or (call.function, call.name) != (self.point.function, self.point.name):
                return
            self._seen += 1
            if self._seen == self.point.number:
                self._at = call
                if self.point.moment == "before":
                    self._kill(invocation)

    def after(self, invocation: Invocation, call: Call) -> None:
        with self._lock:
            self._begun[invocation] += call.name == "s3:CreateMultipartUpload"
            if not self.reached and call is self._at:
                self._kill(invocation)

    def _kill(self, invocation: Invocation) -> None:
        self.reached = True
        self.uploads = self._begun[invocation]
        invocation.killed = True
        raise InvocationKilled


def tried(points: list[Point], attempt: Callable[[Point, Killer], None]) -> list[str]:
    """Try every point and return what went wrong, so that one run of the test tells all of it."""
    failures: list[str] = []
    for point in points:
        killer = Killer(point)
        try:
            attempt(point, killer)
        except Exception as error:  # noqa: BLE001  # told with its point
            failures.append(f"{point}: {type(error).__name__}: {error}")
            continue
        if not killer.reached:
            failures.append(f"{point}: was never reached")
    return failures


def summary(what: str, counted: Counted, failures: list[str]) -> str:
    """Return what a proof tells: how many calls of which services there were, and how many points were tried."""
    services = ", ".join(f"{count} {service}" for service, count in sorted(counted.services().items()))
    tried_points = f"{len(counted.points())} crash points tried"
    return f"{what}: {len(counted.calls)} calls ({services}), {tried_points}, {len(failures)} failed"
