"""Errors that Meibo raises.

The names of the classes are a contract: AWS Lambda reports them as ``errorType``, and ``Retry`` and ``Catch`` of the
workflow match them. The right column shows the reaction of the workflow. A fatal error fails the export or the
invocation at once. The message of a failed export is recorded in the run manifest.

::

    MeiboError                    base class, never raised
    ├── ConfigurationError        fatal
    ├── EventError                fatal
    ├── SecretError               fatal
    ├── CredentialsRefusedError   fatal
    ├── ScopeMissingError         fatal
    ├── RequestRefusedError       fatal
    ├── LocationRefusedError      fatal
    ├── ProviderBusyError         retried with backoff
    ├── AwsBusyError              retried with backoff
    ├── CopyBrokenError           retried with backoff, with a new location
    │   └── SourceChangedError    retried with backoff, with a new location
    ├── OutOfTimeError            retried by ArchiveExport; the next invocation resumes
    ├── BadFileError              base class, never raised
    │   ├── CorruptFileError      fatal
    │   ├── WrongFormatError      fatal
    │   └── FileTooLargeError     fatal
    ├── ArchiveConflictError      fatal
    ├── JobGoneError              caught: a new job is created, a limited number of times
    ├── JobsExhaustedError        fatal
    └── UnexpectedError           retried twice

A message states what was expected, what was found and what to do. It never contains a user attribute, a token or a
location.
"""

from __future__ import annotations


class MeiboError(Exception):
    """Base class of all errors that Meibo raises.

    ``detail`` is the message without the name of the invalid document, for callers that add the name themselves.
    """

    def __init__(self, message: str = "", *, detail: str | None = None) -> None:
        super().__init__(message)
        self.detail = message if detail is None else detail


class ConfigurationError(MeiboError):
    """The configuration or the environment of a function is invalid."""


class EventError(MeiboError):
    """The event of an invocation is invalid, or refers to a run or a dataset that does not exist."""


class SecretError(MeiboError):
    """A secret is missing, cannot be read, or does not contain the required values."""


class CredentialsRefusedError(MeiboError):
    """The provider rejected the credentials (401, or 520 at cybozu.com)."""


class ScopeMissingError(MeiboError):
    """The credentials are valid but lack a permission (403). The message contains the name of the permission."""

    def __init__(self, message: str, *, scopes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.scopes = scopes


class RequestRefusedError(MeiboError):
    """The provider rejected the request as invalid (400, 404), for example because a connection does not exist.

    ``foreign`` is true if the response is from an intermediary such as a proxy and not from the provider's API. A 404
    from an intermediary does not mean that the requested resource does not exist.
    """

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, foreign: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.foreign = foreign

    @property
    def is_missing(self) -> bool:
        """True if the provider, and not an intermediary, reports that the requested resource does not exist."""
        return self.status == 404 and not self.foreign


class LocationRefusedError(MeiboError):
    """The location is not on an allowed host, does not use HTTPS, or redirects to another location."""


class ProviderBusyError(MeiboError):
    """The provider still responds with 429 or 5xx, or resets connections, after the retries of this invocation.

    ``retry_after`` is the time in seconds after which the request can be retried, or None if it is not known.
    ``uncertain`` is true if a request that must not be sent twice may have been executed.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, uncertain: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.uncertain = uncertain


class AwsBusyError(MeiboError):
    """An AWS service still throttles, responds with 5xx or cannot be reached after the retries of botocore."""


class CopyBrokenError(MeiboError):
    """The connection to the location or to S3 failed, and the retries of the invocation failed too."""


class SourceChangedError(CopyBrokenError):
    """The file at a location changed during each copy attempt of the invocation."""


class OutOfTimeError(MeiboError):
    """The invocation has too little time left to finish its work."""


class BadFileError(MeiboError):
    """Base class of the errors of an invalid file."""


class CorruptFileError(BadFileError):
    """The file is truncated, or its gzip data, checksum or length is wrong."""


class WrongFormatError(BadFileError):
    """The file or the response does not have the expected format, for example HTML instead of CSV."""


class FileTooLargeError(BadFileError):
    """The file, its decompressed content or one of its rows exceeds a size limit."""


class ArchiveConflictError(MeiboError):
    """An object of the archive is missing, invalid, or different from the object that would be written."""


class JobGoneError(MeiboError):
    """The provider's job failed, expired, was deleted, or did not finish in time."""


class JobsExhaustedError(MeiboError):
    """The maximum number of jobs was created for an export, but no job produced a file."""


class UnexpectedError(MeiboError):
    """An error of another type occurred. Only its type and its place in the code are reported."""
