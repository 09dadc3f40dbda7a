"""The file with the configuration, ``sources.json``, for the commands that work without a stack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from meibo.configuration import Configuration, parse_configuration
from meibo.errors import ConfigurationError

SOURCES_FILE: Final = "sources.json"

SourcesOption = Annotated[
    Path, typer.Option("--sources", "-s", help="The configuration. A file .env beside it can contain credentials.")
]


def read_sources(path: Path) -> Configuration:
    """Return the configuration in a file, raising ConfigurationError if it does not exist or is not valid."""
    try:
        return parse_configuration(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigurationError(f"--sources: the file {path} does not exist; create it with `meibo init`") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"--sources: expected JSON in UTF-8 in {path}") from None
