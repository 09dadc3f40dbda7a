"""The base of a simulated tenant or domain: its address, clock, faults and request record."""

from __future__ import annotations

import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from meibo_simulators.faults import Faults

#: Returns the time in seconds since the epoch. With a fake clock, tests do not wait for rate limits.
Clock = Callable[[], float]


@dataclass(frozen=True)
class Request:
    """The record of a request, without query, body or credentials. The status is 0 if no response was started."""

    method: str
    path: str
    status: int
    time: float
    client_port: int
    range: str | None = None
    authorized: bool = False


class Site:
    """A site with its own host and port. ``Simulators`` opens the port and sets the clock."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.seed = seed
        #: The host and port of the running site.
        self.host = ""
        self.clock: Clock = time.time
        self.faults = Faults()
        self.requests: deque[Request] = deque(maxlen=1_000_000)
        #: Set when the site stops. It interrupts delayed responses.
        self.stopping = threading.Event()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, host={self.host!r})"

    def now(self) -> float:
        """Return the time of the site's clock."""
        return self.clock()

    def configure_tls(self, context: ssl.SSLContext) -> None:
        """Change the TLS settings of the site's server. The default does nothing."""

    def start(self, host: str, clock: Clock) -> None:
        """Set the host and the clock."""
        self.host, self.clock = host, clock
