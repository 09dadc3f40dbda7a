"""Read a function's settings from its environment, one frozen dataclass per function.

Nothing is read at import: a handler calls ``from_env()``, and every variable that is missing or malformed is
named in one :class:`~meibo.errors.ConfigurationError`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args

from meibo.errors import ConfigurationError

T = TypeVar("T")

GIB = 1024**3
MIB = 1024**2

ObjectLockMode = Literal["NONE", "GOVERNANCE", "COMPLIANCE"]


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Object Lock retention of each written object."""

    mode: Literal["GOVERNANCE", "COMPLIANCE"]
    days: int

    def retain_until(self, now: datetime) -> datetime:
        """Return the moment until which an object written ``now`` is retained."""
        return now + timedelta(days=self.days)


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value.strip()


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        number = int(value) if value.strip().isdecimal() else None
        if number is None or not low <= number <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return number

    return parse


_LOCK_MODES: dict[str, ObjectLockMode] = {mode: mode for mode in get_args(ObjectLockMode)}


def _lock_mode(value: str) -> ObjectLockMode:
    if value not in _LOCK_MODES:
        raise ValueError("must be NONE, GOVERNANCE or COMPLIANCE")
    return _LOCK_MODES[value]


def variable(name: str, parse: Callable[[str], T], default: str | None = None) -> T:
    """Declare a settings field that is read from the environment variable ``name``."""
    # A dataclass field is typed by its value, so the declaration claims to be one.
    field: Any = dataclasses.field(metadata={"name": name, "parse": parse, "default": default})
    declared: T = field
    return declared


class EnvironmentSettings:
    """Base of the settings: reads every declared variable and reports all faults at once."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the settings, raising one ConfigurationError that names every faulty variable."""
        environment = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        faults: list[str] = []
        for field in dataclasses.fields(cls):
            name, parse, default = (field.metadata[key] for key in ("name", "parse", "default"))
            text = environment.get(name, default)
            if text is None:
                faults.append(f"{name} is not set")
                continue
            try:
                values[field.name] = parse(text)
            except ValueError as error:
                faults.append(f"{name} {error}")
        if faults:
            raise ConfigurationError("the function's environment is not valid: " + "; ".join(faults))
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class ObjectLockSettings(EnvironmentSettings):
    """Retention that is put on every written object, on top of the bucket's own rule."""

    mode: ObjectLockMode = variable("MEIBO_OBJECT_LOCK_MODE", _lock_mode, "NONE")
    days: int = variable("MEIBO_OBJECT_LOCK_DAYS", _whole(1, 36_500), "365")

    def retention(self) -> Retention | None:
        """Return the retention of each written object, or None if there is none."""
        return None if self.mode == "NONE" else Retention(mode=self.mode, days=self.days)


@dataclass(frozen=True, kw_only=True)
class CreateExportsSettings(EnvironmentSettings):
    """Environment of ``create_exports``."""

    bucket: str = variable("MEIBO_BUCKET", _text)
    configuration_parameter: str = variable("MEIBO_CONFIGURATION", _text)
    state_machine_arn: str = variable("MEIBO_STATE_MACHINE_ARN", _text)
    max_parallel_exports: int = variable("MEIBO_MAX_PARALLEL_EXPORTS", _whole(1, 1000), "5")


@dataclass(frozen=True, kw_only=True)
class ArchiveExportSettings(EnvironmentSettings):
    """Environment of ``archive_export``."""

    bucket: str = variable("MEIBO_BUCKET", _text)


@dataclass(frozen=True, kw_only=True)
class FinishRunSettings(EnvironmentSettings):
    """Environment of ``finish_run``."""

    bucket: str = variable("MEIBO_BUCKET", _text)
    event_bus: str = variable("MEIBO_EVENT_BUS", _text, "default")


@dataclass(frozen=True, kw_only=True)
class VerifyArchiveSettings(EnvironmentSettings):
    """Environment of ``verify_archive``."""

    bucket: str = variable("MEIBO_BUCKET", _text)
    rotation_days: int = variable("MEIBO_VERIFY_ROTATION_DAYS", _whole(1, 366), "30")
    cold_rotation_days: int = variable("MEIBO_VERIFY_COLD_ROTATION_DAYS", _whole(1, 3660), "365")
    transition_days: int = variable("MEIBO_TRANSITION_DAYS", _whole(0, 36_500), "0")


@dataclass(frozen=True, kw_only=True)
class ChangeMembersSettings(EnvironmentSettings):
    """Environment of ``change_members``."""

    bucket: str = variable("MEIBO_BUCKET", _text)
    configuration_parameter: str = variable("MEIBO_CONFIGURATION", _text)
    queue_url: str = variable("MEIBO_CHANGES_QUEUE_URL", _text)
    dead_letters_url: str = variable("MEIBO_CHANGES_DEAD_LETTERS_URL", _text)
    max_removals: int = variable("MEIBO_MAX_REMOVALS", _whole(0, 1000), "50")
    concurrency: int = variable("MEIBO_CHANGES_CONCURRENCY", _whole(2, 100), "2")


def time_left(context: Any) -> Callable[[], float]:
    """Return what tells the seconds until the invocation's time-out, from the context that Lambda gives."""
    return lambda: context.get_remaining_time_in_millis() / 1000
