"""The files of a plan: ``plan.json``, the objects in ``plan.ndjson``, and the progress in ``progress.ndjson``."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from pathlib import Path
from typing import IO, Any, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from meibo.errors import ConfigurationError
from meibo_cli.encoding import json_bytes
from meibo_cli.files import replace_file

PLAN: Final = "plan.json"
OBJECTS: Final = "plan.ndjson"
PROGRESS: Final = "progress.ndjson"
VERSION: Final = 1

Kind = Literal["role", "organization", "connection", "assignment", "membership", "member_role"]
State = Literal["create", "differs", "same", "conflict", "impossible"]
KINDS: Final = get_args(Kind)
STATES: Final = get_args(State)
PLURALS: Final[Mapping[str, str]] = {
    "role": "roles",
    "organization": "organizations",
    "connection": "enabled connections",
    "assignment": "direct role assignments",
    "membership": "memberships",
    "member_role": "roles of members",
}
"""The names of the kinds of objects in messages, in the order of the restore."""


@dataclass(frozen=True, kw_only=True)
class PlannedObject:
    """An archived object and its state in the tenant.

    ``role``, ``organization``, ``connection`` and ``user`` are archived ids. ``target`` is the id of the object in the
    tenant, or, for an assignment, a membership or a role of a member, the id of the user. It is None if the object or
    the user does not exist. ``body`` contains the properties of a new object, or those that differ. ``permissions`` are
    the permissions to add to a role. ``fields`` are the names of the properties that differ. ``reason`` is the reason
    for the states ``conflict`` and ``impossible``.
    """

    kind: Kind
    state: State
    name: str = field(default="", repr=False)
    role: str = ""
    organization: str = ""
    connection: str = ""
    user: str = field(default="", repr=False)
    target: str | None = field(default=None, repr=False)
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)
    permissions: tuple[Mapping[str, str], ...] = ()
    fields: tuple[str, ...] = ()
    reason: str = ""

    def line(self) -> bytes:
        """Return the object as a line of NDJSON. Empty values are omitted."""
        return json_bytes({name: value for name, value in vars(self).items() if value}) + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> Self:
        """Return the object in a line of NDJSON."""
        document = json.loads(line)
        lists = {name: tuple(document[name]) for name in ("permissions", "fields") if name in document}
        return cls(**{**document, **lists})

    def is_applied(self, *, upsert: bool) -> bool:
        """Return whether ``--apply`` sends a request for this object."""
        return self.state == "create" or (self.state == "differs" and upsert)


class DirectoryPlan(BaseModel):
    """The document ``plan.json``.

    ``sha256`` is the digest of ``plan.ndjson``. ``skipped`` maps each dataset without a plan to the reason.
    ``targets`` maps the ids of archived roles and organizations to their ids in the tenant.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    version: Literal[1] = VERSION
    run_id: str
    source: str
    domain: str
    audience: str | None = None
    upsert: bool
    sha256: str
    counts: dict[str, dict[str, int]]
    skipped: dict[str, str]
    targets: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the plan in a folder. Raises ConfigurationError if it is invalid or was changed."""
        try:
            plan = cls.model_validate_json((folder / PLAN).read_bytes())
            with (folder / OBJECTS).open("rb") as file:
                found = file_digest(file, "sha256").hexdigest()
        except (FileNotFoundError, ValidationError):
            raise ConfigurationError(
                f"--resume: {folder}/ contains no valid plan of this version of Meibo; write a new plan"
            ) from None
        if found != plan.sha256:
            raise ConfigurationError(
                f"{folder / OBJECTS}: expected the SHA-256 in {PLAN}, found a different SHA-256; write a new plan into"
                " a new folder"
            )
        return plan

    @property
    def has_findings(self) -> bool:
        """True if a dataset was skipped, or if an object cannot be restored."""
        return bool(self.skipped or self.count("conflict", "impossible"))

    @property
    def change_id(self) -> str:
        """The id of the membership changes of the plan."""
        return f"restore-{self.run_id}-{self.sha256[:12]}"

    def count(self, *states: State) -> int:
        """Return the number of objects with one of the states."""
        return sum(counts.get(state, 0) for counts in self.counts.values() for state in states)

    def applied(self, kind: str) -> int:
        """Return the number of objects of a kind for which ``--apply`` sends a request."""
        counts = self.counts.get(kind, {})
        return counts.get("create", 0) + (counts.get("differs", 0) if self.upsert else 0)


class PlanWriter:
    """Writes ``plan.ndjson``."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._digest = sha256()
        self.counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}

    def add(self, planned: PlannedObject) -> None:
        """Write an object and count it."""
        line = planned.line()
        self._file.write(line)
        self._digest.update(line)
        self.counts[planned.kind][planned.state] += 1

    @property
    def sha256(self) -> str:
        """The SHA-256 of the lines."""
        return self._digest.hexdigest()


@contextmanager
def plan_writer(folder: Path) -> Iterator[PlanWriter]:
    """Create ``plan.ndjson`` in a folder, and yield its writer."""
    path = folder / OBJECTS
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield PlanWriter(file)


def write_plan(folder: Path, plan: DirectoryPlan) -> None:
    """Write ``plan.json`` to a folder."""
    replace_file(folder / PLAN, plan.model_dump_json(indent=1).encode() + b"\n")


def planned_objects(folder: Path) -> Iterator[tuple[int, PlannedObject]]:
    """Yield the objects of a plan with their line numbers, starting at 1."""
    with (folder / OBJECTS).open("rb") as file:
        for number, line in enumerate(file, 1):
            yield number, PlannedObject.of_line(line)


# -- progress

ProgressState = Literal["sent", "done", "queued", "failed"]


@dataclass(frozen=True)
class Progress:
    """The last state of a line of the plan.

    ``sent`` is written before a request that must not be sent twice; its result is unknown until the next state is
    written. ``queued`` means that the change was sent to the queue of a stack. ``target`` is the id of a new object.
    ``reason`` is the reason for the state ``failed``.
    """

    line: int
    state: ProgressState
    target: str | None = None
    reason: str = ""


class ProgressFile:
    """The progress of a plan. Create it with ``open_progress``."""

    def __init__(self, file: IO[bytes], states: dict[int, Progress]) -> None:
        self._file = file
        self._states = states

    def get(self, line: int) -> Progress | None:
        """Return the last state of a line of the plan, or None if no request was sent."""
        return self._states.get(line)

    def is_finished(self, line: int) -> bool:
        """Return whether no further request is necessary for a line."""
        progress = self._states.get(line)
        return progress is not None and progress.state in ("done", "queued")

    def add(
        self, line: int, state: ProgressState, *, target: str | None = None, reason: str = "", durable: bool = False
    ) -> None:
        """Append the state of a line. With ``durable``, the state is on the disk when the function returns."""
        progress = Progress(line, state, target, reason)
        self._states[line] = progress
        self._file.write(json_bytes({name: value for name, value in vars(progress).items() if value}) + b"\n")
        self._file.flush()
        if durable:
            os.fsync(self._file.fileno())


@contextmanager
def open_progress(folder: Path) -> Iterator[ProgressFile]:
    """Open the progress of the plan in a folder, and remove an incomplete last line."""
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
