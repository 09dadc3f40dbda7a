"""The plan of a run: its list of exports, written before the first job is created."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Self

from meibo.archive.keys import ExportAddress, plan_key
from meibo.archive.storage import ArchiveReader
from meibo.documents import Document, PositiveInt
from meibo.errors import EventError, MeiboError
from meibo.providers import provider
from meibo.providers.base import ExportRequest
from meibo.providers.datasets import DEFAULT_SUSPECT_SHARE


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """The provider's job that was created for an export.

    ``created_at`` is the time of Meibo's own clock, so that a provider's clock cannot move the deadline.
    ``number`` counts the jobs created for this export in this attempt, from 1.
    """

    id: str
    created_at: datetime
    number: PositiveInt


@dataclass(frozen=True, kw_only=True)
class UnresolvedExport:
    """The error that prevented an export from being resolved, so that it has no job."""

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
        """The export's name within its run."""
        return self.address.export_id

    def with_job(self, job: ExportJob) -> PlannedExport:
        """Return this export with a newly created job."""
        return dataclasses.replace(self, job=job)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The invocation that wrote a plan, and the time until which it may create jobs and start the workflow.

    ``until`` is the latest time at which Lambda ends the invocation.
    """

    invocation: str
    until: datetime


@dataclass(frozen=True, kw_only=True)
class Plan(Document):
    """The exports of a run."""

    version_key: ClassVar[str | None] = "plan_version"
    error_type: ClassVar[type[MeiboError]] = EventError

    run_id: str
    scheduled_time: str
    meibo_version: str
    preparation: Preparation | None = None
    exports: tuple[PlannedExport, ...]

    @classmethod
    def read(cls, archive: ArchiveReader, run_id: str, attempt: int) -> Self | None:
        """Return the plan that an attempt wrote, or None if it does not exist. Errors as in ``from_json``."""
        document = archive.read_json(plan_key(run_id, attempt))
        return None if document is None else cls.from_json(document, "plan")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The exports of one attempt of a run. Its JSON form is a list, because the workflow reads the items of a list."""

    exports: tuple[PlannedExport, ...]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the list as it is written to the bucket."""
        return [export.to_json() for export in self.exports]

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Read the list of an attempt. Raises EventError, which names the field."""
        if not isinstance(document, list):
            raise EventError("attempt: expected a list of exports")
        exports = (PlannedExport.from_json(item, f"attempt[{number}]") for number, item in enumerate(document))
        return cls(exports=tuple(exports))
