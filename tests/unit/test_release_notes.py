"""The notes of a release are the entry of the changelog for its tag."""

from __future__ import annotations

import re

import pytest

import meibo
from scripts.release_notes import CHANGELOG, release_notes

TAG = f"v{meibo.__version__}"


def test_notes_are_the_entry_of_the_version() -> None:
    entries = ("[Unreleased]\n\n- New\n", f"[{TAG[1:]}] - 2026-11-28\n\n- First\n", "[0.0.1] - 2026-01-01\n")
    changelog = "".join(f"## {entry}\n" for entry in entries)

    assert release_notes(TAG, changelog) == "- First\n"


def test_wrapped_lines_of_the_entry_are_joined() -> None:
    entry = "The first\nrelease.\n\n### Added\n\n#### Exports\n\n- One\n  line\n- Another\n"

    notes = release_notes(TAG, f"## [{TAG[1:]}] - 2026-11-28\n\n{entry}")

    assert notes == "The first release.\n\n### Added\n\n#### Exports\n\n- One line\n- Another\n"


def test_current_version_has_an_entry() -> None:
    assert "### Added" in release_notes(TAG, CHANGELOG.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("v9.9.9", f"expected the tag {TAG}, the version in meibo/__init__.py, found v9.9.9"),
        (TAG, f"CHANGELOG.md: expected an entry '## [{TAG[1:]}] - YYYY-MM-DD', found none; add it"),
    ],
)
def test_wrong_tag_or_missing_entry_is_reported(tag: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        release_notes(tag, "# Changelog\n\n## [Unreleased]\n")
