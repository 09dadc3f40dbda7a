"""The exit codes of the command, and the translation of errors into an exit code and one line on stderr.

``docs/command-line.md`` documents the exit codes; a test compares them.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Final, NoReturn
from urllib.parse import urlsplit

import typer
from botocore import exceptions as aws

from meibo.errors import ConfigurationError, MeiboError
from meibo_cli.terminal import escape_control_characters

EXIT_DIFFERENT: Final = 1
"""The command completed, but found a problem, such as damage or users that could not be imported."""
EXIT_FAILURE: Final = 2
"""The command failed, or an argument is wrong."""
EXIT_INTERRUPTED: Final = 130
"""The user interrupted the command with Ctrl-C: 128 plus the number of SIGINT, as in shells."""
EXIT_BROKEN_PIPE: Final = 141
"""The program that reads stdout, such as ``head``, ended early: 128 plus the number of SIGPIPE, as in shells."""

_CREDENTIALS: Final = "set AWS_PROFILE or --profile, or run `aws configure`"
_UNKNOWN_KEY: Final = f"AWS does not accept the credentials; {_CREDENTIALS}"
_NO_STACK: Final = "no stack has this name in this account and region; check --stack, --region and --profile"
_HINTS: Final = {
    "NoSuchBucket": "no bucket has this name",
    "AccessDenied": "the credentials have no permission; docs/reading.md lists the required permissions",
    "AWS.SimpleQueueService.NonExistentQueue": _NO_STACK,
    "QueueDoesNotExist": _NO_STACK,
    "ExpiredToken": "the credentials have expired; sign in again",
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "InvalidClientTokenId": _UNKNOWN_KEY,
    "SignatureDoesNotMatch": _UNKNOWN_KEY,
    "UnrecognizedClientException": _UNKNOWN_KEY,
}
_NO_CREDENTIALS: Final = f"no AWS credentials; {_CREDENTIALS}"
_SIGN_IN: Final = "the AWS sign-in has expired; run `aws sso login`"
_MESSAGES: Final[dict[type[aws.BotoCoreError], str]] = {
    aws.NoRegionError: "no AWS region; set AWS_REGION or --region",
    aws.InvalidRegionError: "expected an AWS region such as ap-northeast-1, found {region_name!r}; set --region",
    aws.ProfileNotFound: "no AWS profile {profile!r}; `aws configure list-profiles` lists the profiles",
    aws.NoCredentialsError: _NO_CREDENTIALS,
    aws.PartialCredentialsError: _NO_CREDENTIALS,
    aws.SSOError: _SIGN_IN,
    aws.SSOTokenLoadError: _SIGN_IN,
    aws.TokenRetrievalError: _SIGN_IN,
}


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Report an expected error in one line on stderr, and exit with ``EXIT_FAILURE``.

    Ctrl-C exits with ``EXIT_INTERRUPTED``. A broken pipe exits with ``EXIT_BROKEN_PIPE`` and prints no message.
    """
    try:
        yield
        sys.stdout.flush()
    except ConfigurationError as error:
        # The message names the option or the file to change, so the name of the class is not needed.
        _fail(str(error))
    except MeiboError as error:
        _fail(f"{type(error).__name__}: {error}")
    except aws.ClientError as error:
        # The message is not printed, because it may contain a signed URL.
        code = error.response["Error"]["Code"]
        hint = f": {_HINTS[code]}" if code in _HINTS else ""
        _fail(f"AWS returned {code} for {error.operation_name}{hint}")
    except aws.BotoCoreError as error:
        _fail(_aws_message(error))
    except BrokenPipeError:
        _discard_output()
        raise typer.Exit(EXIT_BROKEN_PIPE) from None
    except OSError as error:
        name = error.filename or ("stdout" if _is_full(error) else "a file")
        _fail(f"{name}: {error.strerror or type(error).__name__}")
    except KeyboardInterrupt:
        _interrupt()
    except typer.Abort as error:
        # Typer raises Abort for Ctrl-C at a prompt, and also at the end of stdin.
        typer.echo(err=True)  # ends the line of the prompt
        if isinstance(error.__context__, KeyboardInterrupt):
            _interrupt()
        _fail("stdin ended without an answer; use --yes to run the command without questions")


def _aws_message(error: aws.BotoCoreError) -> str:
    """Return the message for an error that is raised before AWS has returned a response."""
    for error_class, message in _MESSAGES.items():
        if isinstance(error, error_class):
            return message.format(**error.kwargs)
    name = type(error).__name__
    if "endpoint_url" not in error.kwargs:
        return failed_request(name)
    # Only the host is printed, because the URL may be signed.
    host = urlsplit(error.kwargs["endpoint_url"]).hostname
    return f"cannot reach {host} ({name}); check the region and the network connection"


def failed_request(error_name: str) -> str:
    """Return the message for an AWS request that failed with a botocore error of this name."""
    return f"the AWS request failed ({error_name}); check the credentials, the region and the network"


def _is_full(error: OSError) -> bool:
    """Return whether stdout caused the error; if so, discard the rest of the output."""
    if error.errno not in {errno.ENOSPC, errno.EIO, errno.EBADF}:
        return False
    try:
        sys.stdout.flush()
        # With PYTHONUNBUFFERED, there is nothing to flush.
        os.write(sys.stdout.fileno(), b"")
    except io.UnsupportedOperation:
        return False
    except OSError:
        _discard_output()
        return True
    return False


def _discard_output() -> None:
    # Otherwise, Python reports the error again when it flushes stdout at exit.
    # https://docs.python.org/3/library/signal.html#note-on-sigpipe
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupt() -> NoReturn:
    typer.echo("interrupted", err=True)
    raise typer.Exit(EXIT_INTERRUPTED) from None


def _fail(message: str) -> NoReturn:
    # Messages may contain archived names and keys with control characters.
    typer.echo("\n".join(map(escape_control_characters, message.split("\n"))), err=True)
    raise typer.Exit(EXIT_FAILURE) from None
