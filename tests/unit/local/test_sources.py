"""Credentials of real sources are read without changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meibo_local.sources import real_sources


def test_values_of_the_env_file_are_literal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meibo_local.sources.ROOT", tmp_path)
    monkeypatch.setenv("x", "other")
    (tmp_path / ".env").write_text("MEIBO_EXAMPLE_LOGIN=admin\nMEIBO_EXAMPLE_PASSWORD=pa${x}s$s\n", encoding="utf-8")
    sources = tmp_path / "sources.json"
    source = {
        "provider": "cybozu",
        "name": "example",
        "base_url": "https://example.cybozu.com",
        "secret": "meibo/example",
        "exports": [{"dataset": "users"}],
    }
    sources.write_text(json.dumps({"sources": [source]}), encoding="utf-8")

    secrets = real_sources(sources).secrets

    assert secrets == {"meibo/example": {"login": "admin", "password": "pa${x}s$s"}}
