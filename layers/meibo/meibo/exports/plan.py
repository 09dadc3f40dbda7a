"""The plan of a run: its exports, written before the first job is created."""

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

    ``created_at`` is measured by Meibo, so that the deadline does not depend on the provider's clock. ``number`` counts
    the jobs of this export in this attempt, from 1.
    """

    id: str
    created_at: datetime
    number: PositiveInt


@dataclass(frozen=True, kw_only=True)
class UnresolvedExport:
    """The error that occurred when an export was resolved. Such an export has no job."""

    error: str
    message: str


@dataclass(frozen=True, kw_only=True)
class PlannedExport(ExportRequest, Document):
    """One export of a plan, with all values that the workflow's functions need.

    ``has_job`` is true if the provider creates the file by an asynchronous job; the workflow branches on it.
    ``suspect_share`` is the share of the last row count below which the export is suspect. ``accept_from`` is the date
    (UTC) from which the number of rows is accepted as the new level.
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
        """The address of this export's archives in the bucket."""
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

    ``until`` is the latest time at which Lambda ends the invocation.
    """

    invocation: str
    until: datetime


@dataclass(frozen=True, kw_only=True)
class Plan(StoredDocument):
    """The exports of a run."""

    version_key: ClassVar[str | None] = "plan_version"
    error_type: ClassVar[type[MeiboError]] = EventError

    run_id: str
    scheduled_time: str
    meibo_version: str
    preparation: Preparation | None = None
    exports: tuple[PlannedExport, ...]

    @classmethod
    def newest(cls, archive: ArchiveReader, run_id: str, attempt: int) -> tuple[int, Self]:
        """Return the newest plan up to an attempt, and the attempt that wrote it. Raises EventError if none exists."""
        for number in range(attempt, 0, -1):
            plan = cls.read(archive, plan_key(run_id, number))
            if plan is not None:
                return number, plan
        raise EventError(
            f"run {run_id}: expected a run with a plan, found none; check the id (`meibo ls` lists finished runs)"
        )


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The exports of an attempt. Its JSON form is a list, because the workflow reads the items of a list."""

    exports: tuple[PlannedExport, ...]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the JSON form."""
        return [export.to_json() for export in self.exports]

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Read the JSON form. Raises EventError, which names the invalid field."""
        if not isinstance(document, list):
            raise EventError("attempt: expected a list of exports")
        exports = (PlannedExport.from_json(item, f"attempt[{number}]") for number, item in enumerate(document))
        return cls(exports=tuple(exports))
