"""An ``os.environ`` that can differ between invocations which run side by side in one process.

AWS gives each function a process and an environment of its own. Here the handlers share a process, so each
invocation lays its function's environment over the process's, for its own thread only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar

_overlay: ContextVar[Mapping[str, str] | None] = ContextVar("overlay", default=None)


class OverlaidEnviron(MutableMapping[str, str]):
    """The process's environment below the one of the invocation at hand."""

    def __init__(self, base: MutableMapping[str, str]) -> None:
        self._base = base

    def __getitem__(self, key: str) -> str:
        over = _overlay.get()
        return over[key] if over is not None and key in over else self._base[key]

    def __setitem__(self, key: str, value: str) -> None:
        self._base[key] = value

    def __delitem__(self, key: str) -> None:
        del self._base[key]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._base, **(_overlay.get() or {})})

    def __len__(self) -> int:
        return len({**self._base, **(_overlay.get() or {})})

    def copy(self) -> dict[str, str]:
        """Return a plain copy, as ``os.environ.copy()`` does for sub-processes."""
        return dict(self)


@contextmanager
def overlaid_environ() -> Iterator[None]:
    """Put the overlaid environment in the place of ``os.environ``."""
    base = os.environ
    os.environ = OverlaidEnviron(base)  # type: ignore[assignment]  # noqa: B003  # a stand-in for the whole mapping is the point
    try:
        yield
    finally:
        os.environ = base  # noqa: B003


@contextmanager
def environment_of_invocation(variables: Mapping[str, str]) -> Iterator[None]:
    """Let this thread see ``variables`` over the process's environment."""
    token = _overlay.set(variables)
    try:
        yield
    finally:
        _overlay.reset(token)
