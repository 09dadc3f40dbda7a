"""The boundary between Meibo and the providers it exports from.

A provider declares its datasets and its part of the configuration, resolves a configured entry into export requests,
creates and checks export jobs, and opens the source of an export's bytes. Code outside ``meibo.providers`` uses these
types and names no provider, except for membership changes and the imports of a restore, which are specific to a
provider.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from meibo.errors import EventError
from meibo.http.ratelimit import Clock, TimeLeft
from meibo.http.transport import new_session
from meibo.providers.datasets import DEFAULT_JOB_DEADLINE_SECONDS, Dataset, ExportFormat
from meibo.secrets import read_secret

if TYPE_CHECKING:
    import requests

    from meibo.providers.checks import Check
    from meibo.providers.configuration import ExportModel, SourceModel


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """The parameters of one export for its provider.

    ``endpoint`` is the host or base URL of the source, ``secret`` the name of its secret. ``request`` selects the data
    and is recorded in the manifest. ``options`` configure the access to the provider and are not recorded.
    A job that is not finished after ``job_deadline_seconds`` is replaced.
    """

    dataset: str
    format: ExportFormat
    scope: str
    endpoint: str
    secret: str
    request: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    job_deadline_seconds: int = DEFAULT_JOB_DEADLINE_SECONDS


@dataclass(frozen=True)
class JobState:
    """The state of an export job; ``reason`` is the provider's term for the reason that a job is gone."""

    status: Literal["pending", "completed", "gone"]
    reason: str | None = None


@dataclass(frozen=True)
class ProviderContext:
    """The invocation's context for the clients of a provider.

    ``time_left`` returns the seconds that are left. ``headroom`` is the number of requests of each rate limit that are
    left to other invocations that run at the same time.
    """

    time_left: TimeLeft
    read_secret: Callable[[str], Mapping[str, Any]] = read_secret
    new_session: Callable[[int], requests.Session] = new_session
    clock: Clock | None = None
    headroom: int = 0


@dataclass(frozen=True, kw_only=True)
class ExportSource(ABC):
    """The source of one export's bytes.

    ``gzip`` is true if the archived file is gzip data, ``header`` if a CSV file begins with a header row.
    """

    gzip: bool
    header: bool = False

    def notes(self) -> Mapping[str, Any]:
        """Return counts and ids of the reading for the manifest; called after the last byte was read."""
        return {}


class JobFile(ExportSource):
    """The file of a finished job, behind a location that is valid for a short time; archived as delivered."""

    @abstractmethod
    def fetch_location(self) -> str:
        """Return a new location of the file. It is a secret: never log it."""


class ByteStream(ExportSource):
    """A stream that is read completely within one invocation."""

    @abstractmethod
    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes; Meibo compresses them if ``gzip`` is true."""


@dataclass(frozen=True)
class PageResult:
    """The result of one request: rows as lines of NDJSON, and the position after them as a JSON object.

    ``finished`` is the id of an organization or a role that was read completely, ``skipped`` the id of one that was
    deleted in the meantime.
    """

    lines: tuple[bytes, ...] = field(repr=False)
    position: Mapping[str, Any] = field(repr=False)
    finished: str | None = None
    skipped: str | None = None


class Pages(ABC):
    """Rows that are read request by request, over several invocations if the provider's rate limits require it.

    ``unit`` is the plural of what is finished or skipped in a PageResult.
    """

    unit: ClassVar[str] = "organizations"

    @abstractmethod
    def results(self, position: Mapping[str, Any] | None) -> Iterator[PageResult]:
        """Yield the result of each request, from a position (None: the beginning) to the last row of the dataset."""

    def notes(self, position: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002  # a default for subclasses
        """Return notes for the manifest about the reading that ended at this position."""
        return {}


@dataclass(frozen=True, kw_only=True)
class SourceSetup:
    """The questions of ``meibo init`` about a source of a provider.

    ``endpoint`` is the key of the endpoint in the configuration and ``endpoint_example`` an example of its value.
    ``choices`` are the names of what a source can archive, and ``default`` those that are proposed. ``normalize``
    returns the value of an endpoint as the configuration requires it, ``entry`` the entry of ``exports`` for a choice
    and the normalized endpoint.
    """

    endpoint: str
    endpoint_example: str
    choices: tuple[str, ...]
    default: tuple[str, ...]
    normalize: Callable[[str], str]
    entry: Callable[[str, str], dict[str, Any]]


class Provider(ABC):
    """One provider. It has no state except its cached clients."""

    name: ClassVar[str]
    title: ClassVar[str]
    datasets: ClassVar[tuple[Dataset, ...]]
    # The keys that the secret of a source can have, and the combinations of keys of which one is required.
    credential_keys: ClassVar[tuple[str, ...]]
    required_credentials: ClassVar[tuple[tuple[str, ...], ...]]
    # What `meibo init` asks for a source; None if it does not offer the provider.
    setup: ClassVar[SourceSetup | None] = None

    def dataset(self, name: str) -> Dataset:
        """Return the dataset of that name, raising EventError if the provider has none."""
        for dataset in self.datasets:
            if dataset.name == name:
                return dataset
        names = " or ".join(repr(dataset.name) for dataset in self.datasets)
        raise EventError(f"dataset: expected {names} for {self.title}, got {name[:40]!r}")

    def requested_dataset(self, request: ExportRequest) -> Dataset:
        """Return the dataset of a request, raising EventError if it does not exist in the request's format."""
        dataset = self.dataset(request.dataset)
        if request.format not in dataset.formats:
            raise EventError(
                f"export.format: expected {' or '.join(dataset.formats)} for the dataset {dataset.name} of"
                f" {self.title}, got {request.format}"
            )
        return dataset

    def column_names(self, dataset: str, format: str, request: Mapping[str, Any]) -> Mapping[str, str]:  # noqa: A002, ARG002  # the term of the configuration; a default for subclasses
        """Return the columns with another name in the file of an export, by the name of the field.

        ``request`` is the request in the export's manifest.
        """
        return {}

    def clear_clients(self) -> None:  # noqa: B027  # a default for subclasses
        """Drop the cached clients, if the provider caches any."""

    @abstractmethod
    def source_model(self) -> type[SourceModel]:
        """Return the pydantic model of a source, imported on first use to keep cold starts short."""

    def source_settings(self, source: Any) -> dict[str, Any]:
        """Return the fields of an export request that depend on the source alone; a repair applies today's values."""
        return {"endpoint": source.endpoint, "secret": source.secret}

    @abstractmethod
    def resolve(self, source: Any, export: ExportModel, context: ProviderContext) -> Iterable[ExportRequest]:
        """Return the export requests of one configured export of a source.

        Raises a MeiboError if the export cannot be resolved; the other exports are not affected.
        """

    def checks(self, source: Any, context: ProviderContext) -> Iterable[Check]:  # noqa: ARG002  # a default for subclasses
        """Return the checks of a source before a run, in the order in which they are run."""
        return ()

    def create_job(self, export: ExportRequest, context: ProviderContext) -> str:  # noqa: ARG002  # a default for subclasses
        """Create the job of an export and return its id."""
        raise EventError(f"{self.title} has no export job for the dataset {export.dataset[:40]!r}")

    def check_job(self, export: ExportRequest, job_id: str, context: ProviderContext) -> JobState:  # noqa: ARG002  # a default for subclasses
        """Return the state of a job, never its location."""
        raise EventError(f"{self.title} has no export job for the dataset {export.dataset[:40]!r}")

    @abstractmethod
    def open_source(self, export: ExportRequest, job_id: str | None, context: ProviderContext) -> ExportSource | Pages:
        """Return the source of an export's bytes; ``job_id`` is None if the dataset has no job."""
