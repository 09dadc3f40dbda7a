"""Fakes of boto3 clients."""

from __future__ import annotations

from typing import Any


class UnreachableClient:
    """A client that raises an error for each call."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error
