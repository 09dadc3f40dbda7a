"""A real HTTP proxy on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import proxy

USER, PASSWORD = "meibo", "p@ss:word"


@contextmanager
def running_proxy(*options: str) -> Iterator[str]:
    """Run a proxy, and yield its host and port."""
    arguments = ["--hostname", "127.0.0.1", "--port", "0", "--num-workers", "1", "--num-acceptors", "1"]
    with proxy.Proxy([*arguments, "--log-level", "CRITICAL", *options]) as running:
        yield f"127.0.0.1:{running.flags.port}"
