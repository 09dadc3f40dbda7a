"""The exit codes of the command, and the translation of errors into an exit code and one line on stderr."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import typer
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from meibo.errors import ConfigurationError, MeiboError
from meibo_cli.terminal import escape_control_characters

EXIT_DIFFERENT: Final = 1
"""The command succeeded and has findings, such as damage or failed users."""
EXIT_FAILURE: Final = 2
"""The command failed."""
EXIT_INTERRUPTED: Final = 130
"""The user interrupted the command with Ctrl-C: 128 and the number of SIGINT, as in shells."""

_HINTS: Final = {
    "NoSuchBucket": ": no bucket has this name",
    "AccessDenied": ": the credentials have no permission; docs/reading.md lists the required permissions",
}


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Report an error that the user can fix as one line, and exit with ``EXIT_FAILURE``."""
    try:
        yield
    except ConfigurationError as error:
        # The message names the option or the file to change, so the class adds nothing.
        _fail(str(error))
    except MeiboError as error:
        _fail(f"{type(error).__name__}: {error}")
    except ClientError as error:
        # Only the code and the operation, because a message of S3 may contain a signed URL.
        code = error.response["Error"]["Code"]
        _fail(f"AWS returned {code} for {error.operation_name}{_HINTS.get(code, '')}")
    except NoCredentialsError:
        _fail("no AWS credentials found; set AWS_PROFILE, or run `aws configure`")
    except BotoCoreError as error:
        _fail(f"cannot reach AWS: {type(error).__name__}")
    except BrokenPipeError:
        # The reader of stdout has ended, for example ``head``. Typer exits without a message.
        raise
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror or type(error).__name__}")


def _fail(message: str) -> None:
    # Messages contain names and keys of the archive.
    typer.echo("\n".join(map(escape_control_characters, message.split("\n"))), err=True)
    raise typer.Exit(EXIT_FAILURE) from None
