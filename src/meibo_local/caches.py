"""Cache what boto3 and moto build again for each call: clients and parsed workflow definitions.

A client is built from the whole description of its service, which takes longer than most calls to it. The workflow's
interpreter makes one for each task, and whoever waits for an execution's end one for each look.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import boto3
import botocore.session
from botocore.config import Config
from botocore.loaders import Loader, create_loader
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser


class SharingSession(boto3.Session):
    """A session that gives the same client for the same arguments."""

    def __init__(self) -> None:
        super().__init__()
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    def client(self, *args: Any, **kwargs: Any) -> Any:
        """Return the client that these arguments made first."""
        key = repr((args, sorted((name, _comparable(value)) for name, value in kwargs.items())))
        with self._lock:
            if key not in self._clients:
                self._clients[key] = super().client(*args, **kwargs)
            return self._clients[key]


@cache
def _loader() -> Loader:
    """Return the reader of the services' descriptions, which keeps what it has read."""
    return create_loader()


def _comparable(value: Any) -> str:
    return repr(sorted(vars(value).items()) if isinstance(value, Config) else value)


@contextmanager
def shared_clients() -> Iterator[None]:
    """Let ``boto3.client`` share its clients, and every session the descriptions that were read."""
    with (
        patch.object(botocore.session, "create_loader", lambda *_: _loader()),
        patch.object(boto3, "DEFAULT_SESSION", SharingSession()),
    ):
        yield


# Reading the definition takes longer than most executions of it.
_parse = cache(AmazonStateLanguageParser.parse)


def _parse_once(definition: str) -> Any:
    program, tree = _parse(definition)
    # An execution may keep what it works with in the program.
    return copy.deepcopy(program), tree


def cached_definitions() -> AbstractContextManager[object]:
    """Let each definition be parsed once in the life of the process, while it is entered."""
    return patch.object(AmazonStateLanguageParser, "parse", staticmethod(_parse_once))
