"""The plan of a run, which lists its exports. It is written before the first job is created."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Self

from meibo.archive.keys import ExportAddress, plan_key
from meibo.archive.storage import ArchiveReader, StoredDocument
from meibo.documents import Document, PositiveInt
from meibo.errors import EventError, MeiboError
from meibo.providers import provider
from meibo.providers.base import ExportRequest
from meibo.providers.datasets import DEFAULT_SUSPECT_SHARE


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """The provider's job that was created for an export.

    ``created_at`` is a time of Meibo's clock, so that the deadline does not depend on the provider's clock. ``number``
    is the number of this job among the jobs of the export in this attempt, starting at 1.
    """

    id: str
    created_at: datetime
    number: PositiveInt


@dataclass(frozen=True, kw_only=True)
class UnresolvedExport:
    """The error of an export that could not be resolved: its name and its message."""

    error: str
    message: str


@dataclass(frozen=True, kw_only=True)
class PlannedExport(ExportRequest, Document):
    """One export of a plan, with all values that the functions of the workflow need.

    ``has_job`` is true if the provider creates the file with an asynchronous job; the workflow branches on it. An
    export is suspect if its number of rows is below the share ``suspect_share`` of an earlier export. Exports before
    the date ``accept_from`` (UTC) are not compared. ``refused`` is None if the export was resolved.
    """

    error_type: ClassVar[type[MeiboError]] = EventError
    derived: ClassVar[tuple[str, ...]] = ("export_id",)

    provider: str
    source: str
    request: Mapping[str, Any]
    has_job: bool
    suspect_share: float = DEFAULT_SUSPECT_SHARE
    job: ExportJob | None = None
    refused: UnresolvedExport | None = None
    accept_from: str | None = None

    @classmethod
    def upgraded(cls, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the document with ``has_job``, which plans of earlier versions do not contain."""
        name, dataset = document.get("provider"), document.get("dataset")
        if not isinstance(name, str) or not isinstance(dataset, str):
            return document
        return {"request": {}, "has_job": provider(name).dataset(dataset).reading == "job", **document}

    @property
    def address(self) -> ExportAddress:
        """The address of this export in the archive."""
        return ExportAddress(
            provider=self.provider, source=self.source, dataset=self.dataset, format=self.format, scope=self.scope
        )

    @property
    def export_id(self) -> str:
        """The id of the export in its run."""
        return self.address.export_id

    def with_job(self, job: ExportJob) -> PlannedExport:
        """Return this export with another job."""
        return dataclasses.replace(self, job=job)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The invocation that wrote a plan, and the time until which it may create jobs and start the workflow.

    ``until`` is the time of the invocation's timeout.
    """

    invocation: str
    until: datetime


@dataclass(frozen=True, kw_only=True)
class Plan(StoredDocument):
    """The exports of a run, and the invocation that prepares it."""

    version_key: ClassVar[str | None] = "plan_version"
    error_type: ClassVar[type[MeiboError]] = EventError

    run_id: str
    scheduled_time: str
    meibo_version: str
    preparation: Preparation | None = None
    exports: tuple[PlannedExport, ...]

    @classmethod
    def newest(cls, archive: ArchiveReader, run_id: str, attempt: int) -> tuple[int, Self]:
        """Return the newest plan up to an attempt, and the attempt of the plan. Raises EventError if none exists."""
        for number in range(attempt, 0, -1):
            plan = cls.read(archive, plan_key(run_id, number))
            if plan is not None:
                return number, plan
        raise EventError(
            f"run {run_id}: expected a plan in the archive, found none; check the id (`meibo ls` lists finished runs)"
        )


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The exports of an attempt. The JSON document is an array, because the workflow processes its items."""

    exports: tuple[PlannedExport, ...]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the JSON array."""
        return [export.to_json() for export in self.exports]

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Return the exports in a JSON array, raising EventError with the name of the first invalid field."""
        if not isinstance(document, list):
            raise EventError("attempt: expected a list of exports")
        exports = (PlannedExport.from_json(item, f"attempt[{number}]") for number, item in enumerate(document))
        return cls(exports=tuple(exports))
