"""Settings of the functions, read from environment variables: one frozen dataclass per function.

Defaults and bounds match the parameters in ``template.yaml``. Nothing is read at import: a handler calls
``from_env()``, which raises one ConfigurationError that names every invalid variable.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, Literal, Self, TypeVar, get_args

from meibo.errors import ConfigurationError
from meibo.formatting import format_choices

T = TypeVar("T")

GIB = 1024**3
MIB = 1024**2

ObjectLockMode = Literal["NONE", "GOVERNANCE", "COMPLIANCE"]
ReportLanguage = Literal["en", "ja"]


def _string(value: str) -> str:
    if not value.strip():
        raise ValueError("expected a value, found an empty string")
    return value.strip()


@dataclass(frozen=True)
class Integer:
    """Parser of an integer within inclusive bounds."""

    minimum: int
    maximum: int

    def __call__(self, value: str) -> int:
        """Return the integer, raising ValueError if the value is not an integer or out of bounds."""
        number = int(value) if value.strip().isdecimal() else None
        if number is None or not self.minimum <= number <= self.maximum:
            raise ValueError(f"expected an integer from {self.minimum} to {self.maximum}, found {value[:40]!r}")
        return number


@dataclass(frozen=True)
class Choice:
    """Parser of a value of a ``Literal`` type."""

    literal: Any

    def __call__(self, value: str) -> Any:
        """Return the value, raising ValueError if it is not one of the choices."""
        choices = get_args(self.literal)
        if value not in choices:
            raise ValueError(f"expected {format_choices(choices)}, found {value[:40]!r}")
        return value


def variable(name: str, parse: Callable[[str], T], default: str | None = None) -> T:
    """Return a field of the settings whose value is read from the environment variable ``name``."""
    # For type checkers, the value of a dataclass field must have the type of the field.
    field: Any = dataclasses.field(metadata={"name": name, "parse": parse, "default": default})
    typed_field: T = field
    return typed_field


class EnvironmentSettings:
    """Base class of the settings."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Return the settings, raising one ConfigurationError with the names of all invalid variables."""
        environment = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        reasons: list[str] = []
        for field in dataclasses.fields(cls):
            name, parse, default = (field.metadata[key] for key in ("name", "parse", "default"))
            value = environment.get(name, default)
            if value is None:
                reasons.append(f"{name}: expected a value, but the variable is not set")
                continue
            try:
                values[field.name] = parse(value)
            except ValueError as error:
                reasons.append(f"{name}: {error}")
        if reasons:
            raise ConfigurationError("invalid environment variables: " + "; ".join(reasons))
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class ObjectLock(EnvironmentSettings):
    """Environment of Object Lock for functions that write locked objects."""

    mode: ObjectLockMode = variable("MEIBO_OBJECT_LOCK_MODE", Choice(ObjectLockMode), "NONE")
    days: int = variable("MEIBO_OBJECT_LOCK_DAYS", Integer(1, 36_500), "365")

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of S3 that lock a new object. They are empty if the mode is ``NONE``."""
        if self.mode == "NONE":
            return {}
        retained_until = datetime.now(UTC) + timedelta(days=self.days)
        return {"ObjectLockMode": self.mode, "ObjectLockRetainUntilDate": retained_until}


NO_OBJECT_LOCK: Final = ObjectLock(mode="NONE", days=1)


@dataclass(frozen=True, kw_only=True)
class BucketSettings(EnvironmentSettings):
    """Environment of ``archive_export``, and part of the environment of other functions."""

    bucket: str = variable("MEIBO_BUCKET", _string)


@dataclass(frozen=True, kw_only=True)
class CreateExportsSettings(BucketSettings):
    """Environment of ``create_exports``."""

    configuration_parameter: str = variable("MEIBO_CONFIGURATION", _string)
    state_machine_arn: str = variable("MEIBO_STATE_MACHINE_ARN", _string)
    max_parallel_exports: int = variable("MEIBO_MAX_PARALLEL_EXPORTS", Integer(1, 1000), "5")


@dataclass(frozen=True, kw_only=True)
class FinishRunSettings(BucketSettings):
    """Environment of ``finish_run``. Without a ``heartbeat_secret``, no heartbeat is sent."""

    heartbeat_secret: str = variable("MEIBO_HEARTBEAT_SECRET", str.strip, "")
    report_language: ReportLanguage = variable("MEIBO_REPORT_LANGUAGE", Choice(ReportLanguage), "en")
    timezone: str = variable("MEIBO_TIMEZONE", _string, "Asia/Tokyo")


@dataclass(frozen=True, kw_only=True)
class VerifyArchiveSettings(BucketSettings):
    """Environment of ``verify_archive``."""

    rotation_days: int = variable("MEIBO_VERIFY_ROTATION_DAYS", Integer(1, 366), "30")
    cold_rotation_days: int = variable("MEIBO_VERIFY_COLD_ROTATION_DAYS", Integer(1, 3660), "365")
    transition_days: int = variable("MEIBO_TRANSITION_DAYS", Integer(0, 36_500), "0")


@dataclass(frozen=True, kw_only=True)
class ChangeMembersSettings(BucketSettings):
    """Environment of ``change_members``."""

    configuration_parameter: str = variable("MEIBO_CONFIGURATION", _string)
    queue_url: str = variable("MEIBO_CHANGES_QUEUE_URL", _string)
    dead_letters_url: str = variable("MEIBO_CHANGES_DEAD_LETTERS_URL", _string)
    max_removals: int = variable("MEIBO_MAX_REMOVALS", Integer(0, 1000), "50")
