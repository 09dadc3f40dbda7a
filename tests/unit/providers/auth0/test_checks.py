"""The OAuth scopes that ``meibo check`` tests."""

from __future__ import annotations

import re
from pathlib import Path

from meibo.providers.auth0.checks import OPTIONAL_SCOPES, REQUIRED_SCOPES
from meibo.providers.auth0.datasets import DATASETS

PAGE = Path(__file__).parents[4] / "docs/configuration.md"


def test_oauth_scopes_of_every_dataset_are_checked() -> None:
    assert set(REQUIRED_SCOPES) == {dataset.name for dataset in DATASETS}


def test_checked_oauth_scopes_are_the_documented_scopes() -> None:
    rows = re.findall(
        r"^\| `([a-z_]+)` \|.*?\| (`(?:read|create):.*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    documented = {name: {*re.findall(r"`(\w+:\w+)`", scopes)} for name, scopes in rows}
    checked = {
        name: {*scopes, *([OPTIONAL_SCOPES[name]] if name in OPTIONAL_SCOPES else [])}
        for name, scopes in REQUIRED_SCOPES.items()
    }
    # Only with an organization_id.
    documented["users"].discard("read:organization_connections")

    assert documented == checked
