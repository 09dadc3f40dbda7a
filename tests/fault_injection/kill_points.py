"""Kill an invocation before or after a chosen external call."""

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


@dataclass
class CallCounter:
    """Records the calls of a complete run."""

    calls: list[tuple[str, str]] = field(default_factory=list)

    def before(self, invocation: Invocation, call: Call) -> None:
        self.calls.append((call.function, call.name))

    def after(self, invocation: Invocation, call: Call) -> None:
        pass

    def services(self) -> Counter[str]:
        """Return the number of calls per service; ``HTTP`` stands for the providers."""
        return Counter(service_of(name) for _, name in self.calls)

    def points(self) -> list[Point]:
        """Return every point at which an invocation can be killed."""
        seen = Counter[tuple[str, str]]()
        points: list[Point] = []
        for function, name in self.calls:
            seen[function, name] += 1
            number = seen[function, name]
            points += [Point(function, name, number, "before"), Point(function, name, number, "after")]
        return points


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
) -> None:
    """Run the attempt with a kill at every point of the counted calls, report a summary, and fail with all failures."""
    failures: list[str] = []
    points = counter.points()
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
    report_line(
        f"{subject}: {len(counter.calls)} calls ({services}), {len(points)} crash points tried, {len(failures)} failed"
    )
    assert not failures, "\n".join(failures)
