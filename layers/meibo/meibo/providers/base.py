"""The interface that each provider implements.

A provider defines its datasets and its part of the configuration, resolves entries of the configuration to export
requests, creates and checks export jobs, and opens the data of an export. Only membership changes and restores
depend on a specific provider; all other code depends on the types in this module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from meibo.clock import Clock, TimeLeft
from meibo.documents import Key
from meibo.errors import EventError
from meibo.http.session import new_session
from meibo.providers.datasets import DEFAULT_JOB_DEADLINE_SECONDS, Dataset, ExportFormat
from meibo.secrets import read_secret

if TYPE_CHECKING:
    import requests

    from meibo.providers.checks import Check
    from meibo.providers.configuration import ExportModel, SourceModel


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """The parameters of one export for its provider.

    ``endpoint`` is the host name or base URL of the source. ``secret`` is the name of its secret. ``request`` selects
    the data, and is recorded in the manifest. ``options`` configures the access to the provider, and is not recorded in
    the manifest. A job that is not finished after ``job_deadline_seconds`` is replaced.
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
    """The state of an export job.

    If the job is gone, ``reason`` is the state that the provider reports, or ``missing`` if the job does not exist.
    """

    status: Literal["pending", "completed", "gone"]
    reason: str | None = None


@dataclass(frozen=True)
class ProviderContext:
    """The context in which the clients of a provider run.

    ``time_left`` returns the remaining seconds of the invocation. ``headroom`` is the number of requests of each rate
    limit that are reserved for other invocations that run at the same time.
    """

    time_left: TimeLeft
    read_secret: Callable[[str], Mapping[str, Any]] = read_secret
    new_session: Callable[[int], requests.Session] = new_session
    clock: Clock | None = None
    headroom: int = 0


@dataclass(frozen=True, kw_only=True)
class ExportSource(ABC):
    """The source of the bytes of one export.

    ``gzip`` is true if the archived file is compressed with gzip. ``header`` is true if a CSV file has a header row.
    """

    gzip: bool
    header: bool = False

    def notes(self) -> Mapping[str, Any]:
        """Return counts and ids for the manifest.

        The method is called after the last byte is read. If an earlier invocation wrote the object, no byte is read.
        """
        return {}


class JobFile(ExportSource):
    """The file of a finished job. It has a short-lived location, and is archived as delivered."""

    @abstractmethod
    def fetch_location(self) -> str:
        """Return a new location of the file. It is a secret: never log it."""


class ByteStream(ExportSource):
    """A stream that is read completely within one invocation."""

    @abstractmethod
    def chunks(self) -> Iterator[bytes]:
        """Yield the uncompressed bytes. Meibo compresses them if ``gzip`` is true."""


# The number of items (see ``Pages``) in a document. The key is ``organizations`` for all items, because
# existing documents contain it.
ItemCount = Annotated[int, Key("organizations")]


@dataclass(frozen=True)
class PageResult:
    """Rows as lines of NDJSON, and the position after them as a JSON object.

    ``finished`` is the id of an item that was read completely. ``skipped`` is the id of an item that was deleted before
    it was read completely.
    """

    lines: tuple[bytes, ...] = field(repr=False)
    position: Mapping[str, Any] = field(repr=False)
    finished: str | None = None
    skipped: str | None = None


class Pages(ABC):
    """Rows that are read page by page, in several invocations if the rate limits of the provider require it.

    The rows belong to items, such as organizations or roles, which are read one after another. ``item_noun`` is the
    plural name of the items, such as ``organizations``, which is used in manifest keys. ``position_lifetime`` is the
    period in which the provider accepts a position. If the provider is busy and no new part is written within this
    period, the export fails.
    """

    item_noun: str
    # Auth0 accepts a cursor for 24 hours: https://auth0.com/docs/api/management/v2/introduction (checkpoint pagination)
    position_lifetime: ClassVar[timedelta] = timedelta(hours=24)

    @abstractmethod
    def results(self, position: Mapping[str, Any] | None) -> Iterator[PageResult]:
        """Yield the results after a position, or all results if the position is None."""

    def notes(self, position: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002  # a default for subclasses
        """Return notes for the manifest. ``position`` is the last position."""
        return {}


@dataclass(frozen=True, kw_only=True)
class SourceSetup:
    """The questions that ``meibo init`` asks about a source of a provider.

    ``endpoint`` is the key of the endpoint in the configuration, and ``endpoint_example`` is an example of its value.
    ``choices`` are the datasets that the user can select, and ``default`` are the datasets that are selected by
    default. ``normalize`` returns an endpoint in the format of the configuration. ``entry`` returns the entry of a
    dataset in ``exports`` for a normalized endpoint.
    """

    endpoint: str
    endpoint_example: str
    choices: tuple[str, ...]
    default: tuple[str, ...]
    normalize: Callable[[str], str]
    entry: Callable[[str, str], dict[str, Any]]


class Provider(ABC):
    """A provider. Its only state is the cached clients."""

    name: ClassVar[str]
    title: ClassVar[str]
    datasets: ClassVar[tuple[Dataset, ...]]
    # The keys that the secret of a source may contain, and the alternative sets of required keys.
    credential_keys: ClassVar[tuple[str, ...]]
    required_credentials: ClassVar[tuple[tuple[str, ...], ...]]
    # None if `meibo init` does not support the provider.
    setup: ClassVar[SourceSetup | None] = None

    def dataset(self, name: str) -> Dataset:
        """Return the dataset that is called ``name``, raising EventError if it does not exist."""
        for dataset in self.datasets:
            if dataset.name == name:
                return dataset
        names = " or ".join(repr(dataset.name) for dataset in self.datasets)
        raise EventError(f"dataset: expected {names} for {self.title}, found {name[:40]!r}")

    def requested_dataset(self, request: ExportRequest) -> Dataset:
        """Return the dataset of a request, raising EventError if the dataset or its format does not exist."""
        dataset = self.dataset(request.dataset)
        if request.format not in dataset.formats:
            raise EventError(
                f"export.format: expected {' or '.join(dataset.formats)} for the dataset {dataset.name} of"
                f" {self.title}, found {request.format}"
            )
        return dataset

    def column_names(self, dataset: str, format: str, request: Mapping[str, Any]) -> Mapping[str, str]:  # noqa: A002, ARG002  # the term of the configuration; a default for subclasses
        """Return a mapping from the names of fields to the column names in the file of an export.

        Fields that are not in the mapping have the same name in the file. ``request`` is the request in the manifest.
        """
        return {}

    def clear_clients(self) -> None:  # noqa: B027  # a default for subclasses
        """Remove the cached clients, if there are any."""

    @abstractmethod
    def source_model(self) -> type[SourceModel]:
        """Return the pydantic model of a source. Import it in this method, because pydantic is slow to import."""

    def source_settings(self, source: Any) -> dict[str, Any]:
        """Return the fields of an export request that depend only on the source. A repair uses their current values."""
        return {"endpoint": source.endpoint, "secret": source.secret}

    @abstractmethod
    def resolve(self, source: Any, export: ExportModel, context: ProviderContext) -> Iterable[ExportRequest]:
        """Return the export requests for one configured export of a source.

        Raises a MeiboError if the export cannot be resolved. The error does not affect the other exports.
        """

    def checks(self, source: Any, context: ProviderContext) -> Iterable[Check]:  # noqa: ARG002  # a default for subclasses
        """Return the checks of a source before a run, in the order of their execution."""
        return ()

    def create_job(self, export: ExportRequest, context: ProviderContext) -> str:  # noqa: ARG002  # a default for subclasses
        """Create a job for an export, and return the id of the job."""
        raise EventError(f"{self.title} has no export job for the dataset {export.dataset[:40]!r}")

    def check_job(self, export: ExportRequest, job_id: str, context: ProviderContext) -> JobState:  # noqa: ARG002  # a default for subclasses
        """Return the state of a job, without its location."""
        raise EventError(f"{self.title} has no export job for the dataset {export.dataset[:40]!r}")

    @abstractmethod
    def open_source(self, export: ExportRequest, job_id: str | None, context: ProviderContext) -> ExportSource | Pages:
        """Return the ExportSource or Pages from which an export is read.

        ``job_id`` is None if the dataset has no job.
        """
