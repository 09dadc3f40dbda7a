"""How a command ends: its exit status, and one line on stderr where it could not do its work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import typer
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from meibo.errors import ConfigurationError, MeiboError
from meibo_cli.terminal import escape_control_characters

EXIT_DIFFERENT: Final = 1
"""The work was done and the answer is bad news: damage, or failed users."""
EXIT_FAILURE: Final = 2
"""The work could not be done."""

_HINTS: Final = {
    "NoSuchBucket": ": no bucket has this name",
    "AccessDenied": ": the credentials may not read the archive; docs/reading.md lists what they need",
}


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """End with one line and status 2 instead of a traceback, for what the person can mend."""
    try:
        yield
    except ConfigurationError as error:
        # Here it is what the person typed that has to change, and the message says so.
        _end(str(error))
    except MeiboError as error:
        _end(f"{type(error).__name__}: {error}")
    except ClientError as error:
        # The code and the operation only: a message of S3 may repeat a signed address.
        code = error.response["Error"]["Code"]
        _end(f"AWS answered {code} to {error.operation_name}{_HINTS.get(code, '')}")
    except NoCredentialsError:
        _end("there are no AWS credentials in the environment; set AWS_PROFILE, or what `aws configure` asks for")
    except BotoCoreError as error:
        _end(f"AWS could not be asked: {type(error).__name__}")
    except OSError as error:
        _end(f"{error.filename or 'a file'}: {error.strerror or type(error).__name__}")


def _end(message: str) -> None:
    # Names and keys of the archive are in many messages.
    typer.echo("\n".join(map(escape_control_characters, message.split("\n"))), err=True)
    raise typer.Exit(EXIT_FAILURE) from None
