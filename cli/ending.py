"""How a command ends: its exit status, and one line on stderr where it could not do its work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import typer
from botocore.exceptions import BotoCoreError, ClientError
from meibo.errors import MeiboError

DIFFERENT: Final = 1
"""The work was done and the answer is bad news: damage, or failed users."""
COULD_NOT: Final = 2
"""The work could not be done."""


@contextlib.contextmanager
def told_plainly() -> Iterator[None]:
    """End with one line and status 2 instead of a traceback, for what the person can mend."""
    try:
        yield
    except MeiboError as error:
        _end(f"{type(error).__name__}: {error}")
    except ClientError as error:
        # The code and the operation only: a message of S3 may repeat a signed address.
        _end(f"AWS answered {error.response['Error']['Code']} to {error.operation_name}")
    except BotoCoreError as error:
        _end(f"AWS could not be asked: {type(error).__name__}")
    except OSError as error:
        _end(f"{error.filename or 'a file'}: {error.strerror or type(error).__name__}")


def _end(message: str) -> None:
    typer.echo(message, err=True)
    raise typer.Exit(COULD_NOT) from None
