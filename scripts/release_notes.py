"""Print the entry of the changelog for a tag: ``python -m scripts.release_notes v0.1.0``, a part of the release."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import meibo

CHANGELOG = Path(__file__).resolve().parents[1] / "CHANGELOG.md"


def release_notes(tag: str, changelog: str) -> str:
    """Return the entry without its heading. Each paragraph is a single line, because GitHub displays line breaks.

    Raise ValueError if the tag is not the version or the entry is missing.
    """
    version = tag.removeprefix("v")
    if tag != f"v{meibo.__version__}":
        raise ValueError(f"expected the tag v{meibo.__version__}, the version in meibo/__init__.py, found {tag}")
    entry = re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |\Z)", changelog, re.M | re.S)
    if entry is None:
        raise ValueError(f"CHANGELOG.md: expected an entry '## [{version}] - YYYY-MM-DD', found none; add it")
    return re.sub(r"(?<!\n)\n(?!\n|#| *- ) *", " ", entry[1].strip()) + "\n"


if __name__ == "__main__":
    try:
        sys.stdout.write(release_notes(sys.argv[1], CHANGELOG.read_text(encoding="utf-8")))
    except ValueError as error:
        sys.exit(str(error))
