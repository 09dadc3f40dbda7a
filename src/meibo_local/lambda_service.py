"""Lambda on this machine: the handlers are called in this process, also if a boto3 client calls ``lambda:Invoke``.

AWS runs each function in a process with its own environment. Here, all handlers share a process. During an invocation,
its thread and the threads that it starts read the variables of the function first, then those of the process.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Protocol
from unittest.mock import patch

import botocore.handlers
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders

_invocation: ContextVar[Mapping[str, str]] = ContextVar("invocation", default={})  # noqa: B039 - never modified


class InvocationEnviron(MutableMapping[str, str]):
    """The environment of the process and the variables of the current invocation."""

    def __init__(self, process: MutableMapping[str, str]) -> None:
        self._process = process

    def __getitem__(self, key: str) -> str:
        variables = _invocation.get()
        return variables[key] if key in variables else self._process[key]

    def __setitem__(self, key: str, value: str) -> None:
        self._process[key] = value

    def __delitem__(self, key: str) -> None:
        del self._process[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.copy())

    def __len__(self) -> int:
        return len(self.copy())

    def copy(self) -> dict[str, str]:
        """Return a plain copy, as ``os.environ.copy()`` does for child processes."""
        return {**self._process, **_invocation.get()}


_start = threading.Thread.start


def _start_in_context(thread: threading.Thread) -> None:
    """Start a thread with the context of the invocation that starts it, as free-threaded Python 3.14 does."""
    context, run = copy_context(), thread.run
    thread.run = lambda: context.run(run)  # type: ignore[method-assign]  # of this thread only
    _start(thread)


@contextmanager
def environment_per_invocation() -> Iterator[None]:
    """Replace ``os.environ`` with an environment that differs between concurrent invocations."""
    process = os.environ
    os.environ = InvocationEnviron(process)  # type: ignore[assignment]  # noqa: B003 - replaced, not copied
    try:
        with patch.object(threading.Thread, "start", _start_in_context):
            yield
    finally:
        os.environ = process  # noqa: B003


@dataclass
class LambdaContext:
    """The context object of a handler, with the attributes of the object in AWS."""

    function_name: str
    invoked_function_arn: str
    memory_limit_in_mb: int
    ends_at: float
    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    function_version: str = "$LATEST"

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the invocation times out."""
        return max(0, int((self.ends_at - time.monotonic()) * 1000))


@dataclass(frozen=True)
class LocalFunction:
    """A function of the template with its environment and limits."""

    logical_id: str
    name: str
    arn: str
    handler: Callable[[Any, Any], Any]
    environment: Mapping[str, str]
    timeout_seconds: int
    memory_mb: int


@dataclass(frozen=True)
class InvocationResult:
    """A response of Lambda. If ``failed`` is set, the payload describes an error of the function."""

    payload: Any
    failed: bool


class Observer(Protocol):
    """An object that is called before and after each invocation."""

    def invoked(self, function: str, event: Any) -> None:
        """Process the event before the invocation. ``function`` is the logical id of the function."""
        ...

    def returned(self, function: str, event: Any, result: InvocationResult) -> None:
        """Process the result after the invocation."""
        ...


class LambdaService:
    """Invokes functions by name or ARN, and returns their results and errors as Lambda does."""

    def __init__(self, functions: list[LocalFunction], observer: Observer | None = None) -> None:
        self._functions = {name: function for function in functions for name in (function.name, function.arn)}
        self._observer = observer
        self._lock = threading.Lock()

    def invoke(self, name: str, payload: bytes) -> InvocationResult:
        """Invoke a function with a JSON payload."""
        function = self._functions[name]
        event = json.loads(payload or b"{}")
        if self._observer:
            with self._lock:
                self._observer.invoked(function.logical_id, event)
        result = self._call(function, event)
        if self._observer:
            with self._lock:
                self._observer.returned(function.logical_id, event, result)
        return result

    def _call(self, function: LocalFunction, event: Any) -> InvocationResult:
        context = LambdaContext(
            function_name=function.name,
            invoked_function_arn=function.arn,
            memory_limit_in_mb=function.memory_mb,
            ends_at=time.monotonic() + function.timeout_seconds,
        )
        token = _invocation.set(function.environment)
        try:
            value = function.handler(event, context)
        except Exception as error:  # noqa: BLE001 - Lambda reports any exception of a handler
            document = {
                "errorMessage": str(error),
                "errorType": type(error).__name__,
                "requestId": context.aws_request_id,
            }
            return InvocationResult(document, failed=True)
        finally:
            _invocation.reset(token)
        # Lambda serializes the return value as JSON.
        return InvocationResult(json.loads(json.dumps(value)), failed=False)


def load_handler(code_uri: str, handler: str) -> Callable[[Any, Any], Any]:
    """Import the handler of a function from its folder in the repository."""
    file, _, attribute = handler.partition(".")
    function: Callable[[Any, Any], Any] = getattr(
        importlib.import_module(".".join([*PurePath(code_uri).parts, file])), attribute
    )
    return function


class InvokeInterceptor:
    """Responds to the ``lambda:Invoke`` requests of boto3 clients if ``service`` is set."""

    def __init__(self) -> None:
        self.service: LambdaService | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Intercept the requests of the clients that are created in the context."""
        # Every session copies this list, so this also affects the clients of other packages, such as moto.
        entry = ("before-send.lambda.Invoke", self._respond)
        botocore.handlers.BUILTIN_HANDLERS.append(entry)
        try:
            yield
        finally:
            botocore.handlers.BUILTIN_HANDLERS.remove(entry)

    def _respond(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        """Return the response to a request. botocore calls this method for the event before-send."""
        if self.service is None:
            return None
        name = urllib.parse.unquote(urllib.parse.urlsplit(request.url).path.split("/")[3])
        body = request.body
        result = self.service.invoke(name, bytes(body) if isinstance(body, bytes | bytearray) else b"")
        headers = HTTPHeaders()
        headers["Content-Type"] = "application/json"
        if result.failed:
            headers["X-Amz-Function-Error"] = "Unhandled"
        return AWSResponse(request.url, 200, headers, _RawBody(json.dumps(result.payload).encode()))


class _RawBody(io.BytesIO):
    """A response body with the method that botocore calls."""

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield self.read()
