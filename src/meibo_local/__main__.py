"""Run the complete system on this machine, with simulated directories: ``python -m meibo_local --users 50000``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from meibo.errors import MeiboError
from meibo_local.folder import locked
from meibo_local.runner import console_of_terminal, run
from meibo_local.sources import simulated_sources


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 if all exports are archived and verified, 1 if not, 2 if the configuration is wrong."""
    parser = argparse.ArgumentParser(prog="python -m meibo_local", description=__doc__)
    parser.add_argument("--users", type=_count, default=50_000, help="users of the simulated Auth0 tenant")
    parser.add_argument("--cybozu-users", type=_count, default=1_000, help="users of the simulated cybozu.com domain")
    parser.add_argument("--archive", type=Path, default=Path("archive-demo"), help="folder of the archive")
    parser.add_argument("--log", type=Path, default=Path(".local/run.log"), help="log file of the functions")
    options = parser.parse_args(argv)
    console = console_of_terminal()
    # Archives and logs contain personal data, so only their owner may read them.
    os.umask(0o077)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(options.archive))
            console.print(
                f"Simulating an Auth0 tenant with {options.users:,} users and a cybozu.com domain with"
                f" {options.cybozu_users:,} users over HTTPS on this machine"
            )
            sources = stack.enter_context(simulated_sources(users=options.users, cybozu_users=options.cybozu_users))
            return run(sources, options.archive, console, options.log)
    except MeiboError as error:
        console.print(f"[red]{type(error).__name__}[/]: {escape(str(error))}", highlight=False)
        return 2
    except OSError as error:
        # For example a full disk. The message of a network error may contain a URL, so it is not printed.
        console.print(
            f"[red]{escape(str(error.filename or f'{options.archive}/'))}[/]:"
            f" {error.strerror or type(error).__name__}; correct this and run again, the archive has no partial files",
            highlight=False,
        )
        return 2


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected an integer ≥ 1, got {text!r}")
    return number


if __name__ == "__main__":
    sys.exit(main())
