"""The plan of a run: its list of exports, written before the first job is created."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self, get_args

from meibo.archive.catalog import PLAN_VERSION
from meibo.archive.keys import ExportAddress
from meibo.documents import Fields
from meibo.errors import EventError
from meibo.providers import provider
from meibo.providers.base import ExportRequest
from meibo.providers.datasets import DEFAULT_JOB_DEADLINE_SECONDS, DEFAULT_SUSPECT_SHARE, ExportFormat

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
    """The error that prevented an export from being resolved, so that it has no job."""

    error: str
    message: str


@dataclass(frozen=True, kw_only=True)
class PlannedExport(ExportRequest):
    """One export of a plan, with all values that the workflow's functions need.

    ``has_job`` is true if the provider creates the file by an asynchronous job; the workflow branches on it.
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
        """Return the JSON form, which the plan and the state of the workflow contain. Defaults are omitted."""
        document: dict[str, Any] = {"export_id": self.export_id}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "request" and value in (None, {}, field.default):
                continue
            is_document = isinstance(value, (ExportJob, UnresolvedExport))
            document[field.name] = dataclasses.asdict(value) if is_document else value
        return document

    @classmethod
    def from_json(cls, document: Any, name: str = "export") -> Self:
        """Read the JSON form. Raises EventError, which names the field; ``name`` is the name of the export."""
        fields = Fields(document, name, EventError)
        provider_name, dataset = fields.string("provider"), fields.string("dataset")
        job, refused = fields.optional_object("job"), fields.optional_object("refused")
        reading = provider(provider_name).dataset(dataset).reading
        return cls(
            provider=provider_name,
            dataset=dataset,
            source=fields.string("source"),
            scope=fields.string("scope"),
            endpoint=fields.string("endpoint"),
            secret=fields.string("secret"),
            format=fields.choice("format", _FORMATS),
            request=fields.mapping("request"),
            options=fields.mapping("options"),
            # A plan of an earlier version does not contain has_job.
            has_job=fields.boolean("has_job", default=reading == "job"),
            job_deadline_seconds=fields.integer("job_deadline_seconds", default=DEFAULT_JOB_DEADLINE_SECONDS),
            suspect_share=fields.number("suspect_share", default=DEFAULT_SUSPECT_SHARE),
            accept_from=fields.optional_string("accept_from"),
            job=ExportJob(
                id=job.string("id"), created_at=job.string("created_at"), number=job.integer("number", minimum=1)
            )
            if job
            else None,
            refused=UnresolvedExport(error=refused.string("error"), message=refused.string("message"))
            if refused
            else None,
        )


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The invocation that wrote a plan, and the time until which it may create jobs and start the workflow.

    ``until`` is the latest time at which Lambda ends the invocation.
    """

    invocation: str
    until: datetime


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The exports of a run."""

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
        """Read a plan. Raises EventError, which names the field; ConfigurationError if a later version wrote it."""
        fields = Fields(document, "plan", EventError)
        fields.check_version("plan_version", PLAN_VERSION)
        preparation = fields.optional_object("preparation")
        return cls(
            run_id=fields.string("run_id"),
            scheduled_time=fields.string("scheduled_time"),
            meibo_version=fields.string("meibo_version"),
            exports=tuple(
                PlannedExport.from_json(export, f"plan.exports[{number}]")
                for number, export in enumerate(fields.items("exports"))
            ),
            preparation=Preparation(
                invocation=preparation.string("invocation"),
                until=preparation.moment("until", "2026-11-21T18:15:00+00:00"),
            )
            if preparation
            else None,
        )


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The exports of one attempt of a run. The workflow reads the items of its JSON form, a list."""

    exports: tuple[PlannedExport, ...]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the list as it is written to the bucket."""
        return [export.to_json() for export in self.exports]

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Read the list of an attempt. Raises EventError, which names the field."""
        if not isinstance(document, list):
            raise EventError("attempt: expected a list of exports")
        return cls(exports=tuple(PlannedExport.from_json(export) for export in document))
