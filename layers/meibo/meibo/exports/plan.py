"""The plan of a run: its list of exports, written before anything is fetched."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self, get_args

from meibo.archive.keys import ExportAddress
from meibo.errors import EventError
from meibo.providers import provider
from meibo.providers.base import ExportRequest
from meibo.providers.datasets import DEFAULT_JOB_DEADLINE_SECONDS, DEFAULT_SUSPECT_SHARE, ExportFormat

PLAN_VERSION = 1

_FORMATS: dict[str, ExportFormat] = {name: name for name in get_args(ExportFormat)}


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """The provider's job that was created for an export.

    ``created_at`` is the time of Meibo's own clock, so that a provider's clock cannot move the deadline.
    ``number`` counts the jobs created for this export in this attempt, from 1.
    """

    id: str
    created_at: str
    number: int


@dataclass(frozen=True, kw_only=True)
class UnresolvedExport:
    """Why an export was refused before any job could be created."""

    error: str
    message: str


@dataclass(frozen=True, kw_only=True)
class PlannedExport(ExportRequest):
    """One export of a plan, with everything that the workflow's functions need to know about it.

    ``has_job`` says that the provider makes its file by an asynchronous job; the workflow branches on it.
    ``suspect_share`` is the share of the last row count below which the export is suspect. ``accept_from`` is the date
    (UTC) from which the number of rows is accepted as the new level.
    """

    provider: str
    source: str
    has_job: bool
    suspect_share: float = DEFAULT_SUSPECT_SHARE
    job: ExportJob | None = None
    refused: UnresolvedExport | None = None
    accept_from: str | None = None

    @property
    def address(self) -> ExportAddress:
        """The address of this export's archives in the bucket."""
        return ExportAddress(
            provider=self.provider, source=self.source, dataset=self.dataset, format=self.format, scope=self.scope
        )

    @property
    def export_id(self) -> str:
        """The export's name within its run."""
        return self.address.export_id

    def with_job(self, job: ExportJob) -> PlannedExport:
        """Return this export with a newly created job."""
        return dataclasses.replace(self, job=job)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which the plan contains and the workflow passes on. Defaults are omitted."""
        document: dict[str, Any] = {"export_id": self.export_id}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "request" and value in (None, {}, field.default):
                continue
            is_document = isinstance(value, (ExportJob, UnresolvedExport))
            document[field.name] = dataclasses.asdict(value) if is_document else value
        return document

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Read the JSON form, raising EventError that names what is wrong with it."""
        if not isinstance(document, Mapping):
            raise EventError("export: expected an object as in the plan of a run")
        values: dict[str, Any] = {}
        for name in ("source", "dataset", "scope", "endpoint", "secret"):
            values[name] = _text(document, name)
        values["provider"] = _text(document, "provider")
        dataset = provider(values["provider"]).dataset(values["dataset"])
        values["format"] = _FORMATS.get(_text(document, "format"))
        if values["format"] is None:
            raise EventError(f"export.format: expected {' or '.join(map(repr, _FORMATS))}")
        for name in ("request", "options"):
            if not isinstance(document.get(name, {}), Mapping):
                raise EventError(f"export.{name}: expected an object")
            values[name] = dict(document.get(name, {}))
        # A plan of an earlier version does not say whether an export has a job.
        values["has_job"] = _has_type(document, "has_job", bool, dataset.reading == "job")
        values["job_deadline_seconds"] = _has_type(document, "job_deadline_seconds", int, DEFAULT_JOB_DEADLINE_SECONDS)
        values["suspect_share"] = _has_type(document, "suspect_share", (int, float), DEFAULT_SUSPECT_SHARE)
        if document.get("accept_from") is not None:
            values["accept_from"] = _text(document, "accept_from")
        if (job := document.get("job")) is not None:
            number = job.get("number") if isinstance(job, Mapping) else None
            if not isinstance(number, int) or number < 1:
                raise EventError("export.job: expected an object with id, created_at and number (an integer ≥ 1)")
            values["job"] = ExportJob(
                id=_text(job, "id", "export.job"), created_at=_text(job, "created_at", "export.job"), number=number
            )
        if (refused := document.get("refused")) is not None:
            if not isinstance(refused, Mapping):
                raise EventError("export.refused: expected an object with error and message")
            values["refused"] = UnresolvedExport(
                error=_text(refused, "error", "export.refused"), message=_text(refused, "message", "export.refused")
            )
        return cls(**values)


def _has_type(document: Mapping[str, Any], name: str, kind: type | tuple[type, ...], default: Any) -> Any:
    value = document.get(name, default)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise EventError(f"export.{name}: expected a value such as {default!r}")
    return value


def _text(document: Mapping[str, Any], name: str, parent: str = "export") -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value:
        raise EventError(f"{parent}.{name}: expected a string that is not empty")
    return value


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Which invocation wrote a plan, and until when it may still create jobs and start the workflow.

    ``until`` is the end of that invocation's time: Lambda ends it then at the latest.
    """

    invocation: str
    until: datetime

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Read the JSON form, raising EventError that names what is wrong with it."""
        if not isinstance(document, Mapping):
            raise EventError("plan.preparation must be an object with invocation and until")
        try:
            until = datetime.fromisoformat(_text(document, "until", "plan.preparation"))
        except ValueError:
            raise EventError("plan.preparation.until must be a time such as 2026-11-21T18:15:00+00:00") from None
        return cls(invocation=_text(document, "invocation", "plan.preparation"), until=until.astimezone(UTC))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The exports of a run, as one attempt is to bring them into the archive."""

    run_id: str
    scheduled_time: str
    meibo_version: str
    exports: tuple[PlannedExport, ...]
    preparation: Preparation | None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as it is written to the bucket."""
        document: dict[str, Any] = {
            "plan_version": PLAN_VERSION,
            "run_id": self.run_id,
            "scheduled_time": self.scheduled_time,
            "meibo_version": self.meibo_version,
        }
        if self.preparation is not None:
            invocation, until = self.preparation.invocation, self.preparation.until.isoformat()
            document["preparation"] = {"invocation": invocation, "until": until}
        return {**document, "exports": [export.to_json() for export in self.exports]}

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Read a plan, raising EventError that names what is wrong with it."""
        if not isinstance(document, Mapping) or not isinstance(document.get("exports"), list):
            raise EventError("the plan must be an object with a list of exports")
        preparation = document.get("preparation")
        return cls(
            run_id=_text(document, "run_id", "plan"),
            scheduled_time=_text(document, "scheduled_time", "plan"),
            meibo_version=_text(document, "meibo_version", "plan"),
            exports=tuple(PlannedExport.from_json(export) for export in document["exports"]),
            preparation=None if preparation is None else Preparation.from_json(preparation),
        )


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The exports that one attempt of a run archives; the workflow reads its JSON form, a list, item by item."""

    exports: tuple[PlannedExport, ...]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the list as it is written to the bucket."""
        return [export.to_json() for export in self.exports]

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Read the list of an attempt, raising EventError that names what is wrong with it."""
        if not isinstance(document, list):
            raise EventError("the attempt must be a list of exports")
        return cls(exports=tuple(PlannedExport.from_json(export) for export in document))
