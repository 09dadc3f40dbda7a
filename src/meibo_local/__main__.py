"""Run the complete system on this machine with simulated directories: ``python -m meibo_local --users 50000``."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Execute a run. Return 0 if all exports are archived and verified and all changes have the expected outcomes."""
    parser = argparse.ArgumentParser(prog="python -m meibo_local", description=__doc__)
    parser.add_argument("--users", type=_count, default=50_000, help="users of the simulated Auth0 tenant")
    parser.add_argument("--cybozu-users", type=_count, default=1_000, help="users of the simulated cybozu.com domain")
    parser.add_argument("--archive", type=Path, default=Path("archive-demo"), help="folder of the archive")
    parser.add_argument("--log", type=Path, default=Path(".local/run.log"), help="log file of the functions")
    parser.add_argument("--proxy", action="store_true", help="send the requests to the sources through a local proxy")
    parser.add_argument("--client-certificate", action="store_true", help="require a client certificate for cybozu.com")
    options = parser.parse_args(argv)
    print(
        f"Simulating an Auth0 tenant with {options.users:,} users and a cybozu.com domain with"
        f" {options.cybozu_users:,} users over HTTPS on this machine",
        flush=True,
    )
    # Importing the modules takes seconds. Meanwhile, Ctrl-C must end the process without a traceback.
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    import typer  # noqa: PLC0415  # see above

    from meibo_cli.archive_folder import locked_archive  # noqa: PLC0415
    from meibo_cli.exit_codes import report_errors  # noqa: PLC0415
    from meibo_local import runner, sources  # noqa: PLC0415
    from meibo_simulators.proxy import SimulatedProxy  # noqa: PLC0415

    signal.signal(signal.SIGINT, handler)
    # Archives and logs contain personal data, so only their owner may read them.
    os.umask(0o077)
    try:
        with (
            report_errors(),
            locked_archive(options.archive, "demonstration"),
            sources.simulated_sources(
                users=options.users, cybozu_users=options.cybozu_users, client_certificate=options.client_certificate
            ) as simulated,
            SimulatedProxy() if options.proxy else contextlib.nullcontext() as proxy,
        ):
            return runner.run(simulated, options.archive, runner.console_of_terminal(), options.log, proxy)
    except typer.Exit as error:
        return error.exit_code


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected an integer ≥ 1, found {text!r}")
    return number


if __name__ == "__main__":
    sys.exit(main())
