"""Caches of boto3 clients, parsed workflow definitions and JSONPath expressions.

boto3 builds a client from the complete description of its service, which takes longer than most calls. moto's
interpreter creates a client per task, and the callers of this package create a client per call.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import boto3
import botocore.session
from botocore.config import Config
from botocore.loaders import Loader, create_loader
from jsonpath_ng.ext.parser import parse as parse_path
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.asl.utils import json_path


class SharingSession(boto3.Session):
    """A session that returns the same client for the same arguments."""

    def __init__(self) -> None:
        super().__init__()
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    def client(self, *args: Any, **kwargs: Any) -> Any:
        """Return the client for these arguments."""
        key = repr((args, sorted((name, _comparable(value)) for name, value in kwargs.items())))
        with self._lock:
            if key not in self._clients:
                self._clients[key] = super().client(*args, **kwargs)
            return self._clients[key]


@cache
def _loader() -> Loader:
    """Return the loader of service descriptions, which caches them."""
    return create_loader()


def _comparable(value: Any) -> str:
    return repr(sorted(vars(value).items()) if isinstance(value, Config) else value)


@contextmanager
def shared_clients() -> Iterator[None]:
    """Make ``boto3.client`` return shared clients, and make all sessions use the same loader."""
    with (
        patch.object(botocore.session, "create_loader", lambda *_: _loader()),
        patch.object(boto3, "DEFAULT_SESSION", SharingSession()),
    ):
        yield


_parse = cache(AmazonStateLanguageParser.parse)
_parse_path = cache(parse_path)


@contextmanager
def cached_definitions() -> Iterator[None]:
    """Make moto parse each definition and JSONPath expression once per process. Parsing takes longer than executing."""

    def parse(definition: str) -> Any:
        program, tree = _parse(definition)
        # An execution may modify the program.
        return copy.deepcopy(program), tree

    with (
        patch.object(AmazonStateLanguageParser, "parse", staticmethod(parse)),
        patch.object(json_path, "parse", _parse_path),
    ):
        yield
