"""The progress of a plan: a line per request and result, appended to a file in the folder of the plan."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

from meibo_cli.encoding import json_bytes

PROGRESS: Final = "progress.ndjson"

ProgressState = Literal["sent", "done", "queued", "failed"]


@dataclass(frozen=True)
class Progress:
    """The last state of a line of the plan.

    ``sent`` is written before a request that must not be sent twice, so its result is unknown until the next line.
    ``target`` is the id of a new object, ``reason`` the reason why Auth0 rejected the request.
    """

    line: int
    state: ProgressState
    target: str | None = None
    reason: str = ""


class ProgressFile:
    """The progress of a plan. Use ``open_progress``."""

    def __init__(self, file: IO[bytes], states: dict[int, Progress]) -> None:
        self._file = file
        self._states = states

    def get(self, line: int) -> Progress | None:
        """Return the last state of a line of the plan, or None if nothing was sent."""
        return self._states.get(line)

    def is_finished(self, line: int) -> bool:
        """Return whether a line needs no further request."""
        progress = self._states.get(line)
        return progress is not None and progress.state in ("done", "queued")

    def add(
        self, line: int, state: ProgressState, *, target: str | None = None, reason: str = "", durable: bool = False
    ) -> None:
        """Append the state of a line. With ``durable``, the line survives a failure of the machine."""
        progress = Progress(line, state, target, reason)
        self._states[line] = progress
        self._file.write(json_bytes({name: value for name, value in vars(progress).items() if value}) + b"\n")
        self._file.flush()
        if durable:
            os.fsync(self._file.fileno())


@contextmanager
def open_progress(folder: Path) -> Iterator[ProgressFile]:
    """Open the progress of the plan in a folder. A last line that is not complete is removed."""
    path = folder / PROGRESS
    content = path.read_bytes() if path.exists() else b""
    complete = content[: content.rfind(b"\n") + 1]
    states = {}
    for line in complete.splitlines():
        document = json.loads(line)
        states[document["line"]] = Progress(**document)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        file.truncate(len(complete))
        file.seek(0, os.SEEK_END)
        yield ProgressFile(file, states)
