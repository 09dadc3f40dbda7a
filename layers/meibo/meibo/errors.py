"""Every error that Meibo raises on purpose.

The class name is a contract: AWS Lambda reports it as ``errorType`` and the workflow's ``Retry`` and ``Catch``
match on it. A message says what to change and holds ids, counts and host names only: never a user attribute,
a token or a location.
"""

from __future__ import annotations


class MeiboError(Exception):
    """Base of every error that Meibo raises on purpose."""


# -- we are wrong: fails at once, no retry, the message says what to change ------------------------------------


class ConfigurationError(MeiboError):
    """The configuration or the environment of a function is not valid."""


class EventError(MeiboError):
    """A function was invoked with an event of the wrong shape."""


class SecretError(MeiboError):
    """A secret is missing, cannot be read, or does not hold what its source needs."""


class CredentialsRefusedError(MeiboError):
    """The provider does not accept the credentials (401, or 520 at cybozu.com)."""


class ScopeMissingError(MeiboError):
    """The credentials are valid but lack a permission, which the message names (403)."""

    def __init__(self, message: str, *, scopes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.scopes = scopes


class RequestRefusedError(MeiboError):
    """The provider refuses the request as it is, for example because a connection does not exist (400, 404).

    ``foreign`` says that the answer is not the API's own but a page of something in between, so that its 404 does not
    mean that what was asked for is gone.
    """

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, foreign: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.foreign = foreign


class LocationRefusedError(MeiboError):
    """A location is not on an allowed host, not https, or redirects elsewhere."""


# -- the provider is busy: wait as its headers say, then again -------------------------------------------------


class ProviderBusyError(MeiboError):
    """The provider still answers 429 or 5xx, or resets connections, after the waits this invocation has time for.

    ``retry_after`` is what is left to wait, in seconds, where the provider told it. ``uncertain`` says that a
    request which must not be sent twice may have been carried out.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, uncertain: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.uncertain = uncertain


# -- AWS is busy: the workflow retries with backoff until it passes -----------------------------------------------


class AwsBusyError(MeiboError):
    """An AWS service throttles, answers 5xx or cannot be reached, also after boto3's own retries."""


# -- the copy broke: a fresh location, then on or again --------------------------------------------------------


class CopyBrokenError(MeiboError):
    """A copy lost its connection to the location or to S3 more often than one invocation tries again."""


class SourceChangedError(CopyBrokenError):
    """The file behind a location changed during the copy more often than one invocation starts over."""


class OutOfTimeError(MeiboError):
    """The invocation's time ends before its work does; the workflow starts it again."""


# -- the file is bad: nothing is published, the export fails with the reason ------------------------------------


class BadFileError(MeiboError):
    """The received file is not what was asked for; nothing was published."""


class CorruptFileError(BadFileError):
    """The file's gzip data, its checksum or its length is wrong, or it ends early."""


class WrongFormatError(BadFileError):
    """The file is not in the format that was asked for, for example HTML where CSV was due."""


class FileTooLargeError(BadFileError):
    """The file, its expansion or one of its rows is larger than the configured limit."""


class ArchiveConflictError(MeiboError):
    """The key already holds an object whose content differs from what would be written."""


# -- the job is gone: a new job, a bounded number of times ------------------------------------------------------


class JobGoneError(MeiboError):
    """The provider's job failed, expired, vanished or is stuck; a new job can take its place."""


class JobsExhaustedError(MeiboError):
    """As many jobs were created for one export as the settings allow, and none delivered."""


# -- what is left -----------------------------------------------------------------------------------------------


class UnexpectedError(MeiboError):
    """An error that Meibo did not foresee; its type and place are told, its message is withheld on purpose."""
