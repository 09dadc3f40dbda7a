"""The plan of a run: its list of exports, written before anything is fetched."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self, get_args

from meibo.archive.keys import ExportAddress
from meibo.errors import EventError

PLAN_VERSION = 1

Provider = Literal["auth0", "cybozu"]
ExportFormat = Literal["ndjson", "csv"]

_PROVIDERS: dict[str, Provider] = {name: name for name in get_args(Provider)}
_FORMATS: dict[str, ExportFormat] = {name: name for name in get_args(ExportFormat)}
_MAY_BE_EMPTY = frozenset({"organizations", "members", "titles", "groups"})


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """The provider's job that was created for an export.

    ``created_at`` is the time of our own clock, so that a provider's clock cannot move the deadline.
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
class PlannedExport:
    """One export of a plan, with all that the workflow's functions need to know of it.

    ``endpoint`` is the Auth0 domain or the cybozu.com base URL, ``secret`` the secret's name, ``request`` what the
    provider is asked for. ``accept_from`` is the date from which exports are accepted as the new level (UTC).
    """

    provider: Provider
    source: str
    dataset: str
    format: ExportFormat
    scope: str
    endpoint: str
    secret: str
    request: Mapping[str, Any]
    job: ExportJob | None = None
    refused: UnresolvedExport | None = None
    accept_from: str | None = None

    @property
    def address(self) -> ExportAddress:
        """Where this export's archives live."""
        return ExportAddress(
            provider=self.provider, source=self.source, dataset=self.dataset, format=self.format, scope=self.scope
        )

    @property
    def export_id(self) -> str:
        """The export's name within its run."""
        return self.address.export_id

    @property
    def has_job(self) -> bool:
        """Whether the provider makes this export's file by a job; everything else is read call by call."""
        return self.provider == "auth0" and self.dataset == "users"

    @property
    def may_be_empty(self) -> bool:
        """Whether no rows are nothing strange: a tenant need not use organizations, but it has users."""
        return self.dataset in _MAY_BE_EMPTY

    def with_job(self, job: ExportJob) -> PlannedExport:
        """Return this export with a newly created job."""
        return dataclasses.replace(self, job=job)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form: what the plan holds and what travels through the workflow."""
        document: dict[str, Any] = {
            "export_id": self.export_id,
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
        }
        document["request"] = dict(self.request)
        for name in ("job", "refused"):
            value = document[name]
            document[name] = None if value is None else dataclasses.asdict(value)
        return {key: value for key, value in document.items() if value is not None}

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Read the JSON form, raising EventError that names what is wrong with it."""
        if not isinstance(document, Mapping):
            raise EventError("export must be an object, as the plan holds it")
        values: dict[str, Any] = {}
        for name in ("source", "dataset", "scope", "endpoint", "secret"):
            values[name] = _text(document, name)
        values["provider"] = _one_of(_PROVIDERS, document, "provider")
        values["format"] = _one_of(_FORMATS, document, "format")
        if not isinstance(document.get("request"), Mapping):
            raise EventError("export.request must be an object")
        values["request"] = dict(document["request"])
        if document.get("accept_from") is not None:
            values["accept_from"] = _text(document, "accept_from")
        if (job := document.get("job")) is not None:
            number = job.get("number") if isinstance(job, Mapping) else None
            if not isinstance(number, int) or number < 1:
                raise EventError("export.job must be an object with id, created_at and number (from 1)")
            values["job"] = ExportJob(
                id=_text(job, "id", "export.job"), created_at=_text(job, "created_at", "export.job"), number=number
            )
        if (refused := document.get("refused")) is not None:
            if not isinstance(refused, Mapping):
                raise EventError("export.refused must be an object with error and message")
            values["refused"] = UnresolvedExport(
                error=_text(refused, "error", "export.refused"), message=_text(refused, "message", "export.refused")
            )
        return cls(**values)


def _one_of(known: Mapping[str, str], document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or value not in known:
        raise EventError(f"export.{name} must be {' or '.join(map(repr, known))}")
    return known[value]


def _text(document: Mapping[str, Any], name: str, parent: str = "export") -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value:
        raise EventError(f"{parent}.{name} must be a text that is not empty")
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
