"""A group of commands that report errors in one place and share the options for AWS."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command

from meibo_cli.exit_codes import report_errors

_SINGLE_NEWLINE: Final = re.compile(r"(?<!\n)\n(?!\n)")


class CommandGroup(TyperGroup):
    """A group whose commands report errors as ``report_errors`` does, and accept ``--region`` and ``--profile``."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        options = typer.Typer(add_completion=False)
        options.command()(_aws_options)
        for command in (self, *self.commands.values()):
            if command is self or not isinstance(command, CommandGroup):
                command.params += get_command(options).params
                # Typer would otherwise print the line breaks of the docstring.
                command.help = _SINGLE_NEWLINE.sub(" ", command.help or "")

    def make_context(self, *arguments: Any, **extra: Any) -> Any:
        """Parse the arguments, and report errors and Ctrl-C."""
        with report_errors():
            return super().make_context(*arguments, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Invoke the command and report its errors."""
        with report_errors():
            return super().invoke(ctx)


def _set_variable(*names: str) -> Callable[[typer.Context, str | None], None]:
    """Return a callback that sets environment variables to the value of an option until the command ends."""

    def set_variables(context: typer.Context, value: str | None) -> None:
        for name in names if value else ():
            previous = os.environ.get(name)
            os.environ[name] = value or ""
            context.call_on_close(lambda name=name, previous=previous: _restore(name, previous))

    return set_variables


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _aws_options(
    region: Annotated[
        str | None,
        typer.Option(
            "--region",
            # boto3 does not read AWS_REGION, which the AWS CLI and the other SDKs read.
            envvar="AWS_REGION",
            callback=_set_variable("AWS_DEFAULT_REGION", "AWS_REGION"),
            expose_value=False,
            help="The AWS region.",
            rich_help_panel="AWS",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            callback=_set_variable("AWS_PROFILE"),
            expose_value=False,
            help="The AWS profile of the credentials.",
            rich_help_panel="AWS",
            envvar="AWS_PROFILE",
        ),
    ] = None,
) -> None:
    """Declare the options that every command accepts."""
