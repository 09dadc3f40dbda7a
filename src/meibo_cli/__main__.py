"""Start the command ``meibo``, also as ``python -m meibo_cli``."""

from __future__ import annotations

import signal


def main() -> None:
    """Import the commands and run one."""
    # Ctrl-C during the imports ends the process without a traceback. Afterwards, it raises KeyboardInterrupt.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from meibo_cli.main import app  # noqa: PLC0415  # see above

    signal.signal(signal.SIGINT, signal.default_int_handler)
    app()


if __name__ == "__main__":
    main()
