"""Start the command ``meibo``, also as ``python -m meibo_cli``."""

from __future__ import annotations

import os
import signal

_EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command. During the imports and at exit, Ctrl-C prints one line and ends the process."""
    signal.signal(signal.SIGINT, _exit)
    try:
        from typer.main import get_command  # noqa: PLC0415  # see above

        from meibo_cli.main import app  # noqa: PLC0415  # see above

        command = get_command(app)
        # After the imports, the command itself reports KeyboardInterrupt.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        command(prog_name="meibo")
    finally:
        signal.signal(signal.SIGINT, _exit)


def _exit(*_: object) -> None:
    # The module that is being imported could catch an exception, or Python would print its traceback.
    os.write(2, b"interrupted\n")
    os._exit(_EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
