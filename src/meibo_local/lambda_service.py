"""Lambda on this machine: call the real handlers in this process, also for ``lambda:Invoke`` of any boto3 client."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import botocore.handlers
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders

from meibo_local.environment import environment_of_invocation
from meibo_local.template import ROOT


@dataclass
class LambdaContext:
    """What a handler is told of its invocation; the attributes are AWS's."""

    function_name: str
    invoked_function_arn: str
    memory_limit_in_mb: int
    ends_at: float
    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    function_version: str = "$LATEST"

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the invocation's time-out."""
        return max(0, int((self.ends_at - time.monotonic()) * 1000))


@dataclass(frozen=True)
class LocalFunction:
    """One function of the template, with the environment and limits that the template gives it."""

    logical_id: str
    name: str
    arn: str
    handler: Callable[[Any, Any], Any]
    environment: Mapping[str, str]
    timeout_seconds: int
    memory_mb: int


class Observer(Protocol):
    """Sees every invocation."""

    def invoked(self, function: str, event: Any) -> None:
        """Is told before a function is called, by its logical id."""
        ...

    def returned(self, function: str, event: Any, outcome: InvocationResult) -> None:
        """Is told what the function returned or raised."""
        ...


@dataclass(frozen=True)
class InvocationResult:
    """What the Lambda service answers: a payload, and whether it is the function's error."""

    payload: Any
    failed: bool


class LambdaService:
    """Calls functions by name or ARN, and turns what they raise into what Lambda answers."""

    def __init__(self, functions: list[LocalFunction], observer: Observer | None = None) -> None:
        self._functions = {name: function for function in functions for name in (function.name, function.arn)}
        self._observer = observer
        self._lock = threading.Lock()

    def invoke(self, name: str, payload: bytes) -> InvocationResult:
        """Call the function with the JSON payload."""
        function = self._functions[name]
        event = json.loads(payload or b"{}")
        if self._observer:
            with self._lock:
                self._observer.invoked(function.logical_id, event)
        outcome = self._call(function, event)
        if self._observer:
            with self._lock:
                self._observer.returned(function.logical_id, event, outcome)
        return outcome

    def _call(self, function: LocalFunction, event: Any) -> InvocationResult:
        context = LambdaContext(
            function_name=function.name,
            invoked_function_arn=function.arn,
            memory_limit_in_mb=function.memory_mb,
            ends_at=time.monotonic() + function.timeout_seconds,
        )
        try:
            with environment_of_invocation(function.environment):
                result = function.handler(event, context)
        except Exception as error:  # noqa: BLE001  # the Lambda service takes whatever a handler raises
            document = {
                "errorMessage": str(error),
                "errorType": type(error).__name__,
                "requestId": context.aws_request_id,
            }
            return InvocationResult(document, failed=True)
        # What a handler returns must survive JSON, as it must in AWS.
        return InvocationResult(json.loads(json.dumps(result)), failed=False)


def load_handler(code_uri: str, handler: str, root: Path = ROOT) -> Callable[[Any, Any], Any]:
    """Load a function's handler from its folder under a module name of its own, as no two may share ``app``."""
    file, _, attribute = handler.partition(".")
    path = root / code_uri / f"{file}.py"
    name = f"meibo_function_{path.parent.name}"
    module = sys.modules.get(name) or _load(name, path)
    found: Callable[[Any, Any], Any] = getattr(module, attribute)
    return found


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{path} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class InvokeInterceptor:
    """Answers invocations as soon as it has a service."""

    def __init__(self) -> None:
        self.service: LambdaService | None = None

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Answer the calls of clients that are made from now on."""
        # Sessions take their handlers from this list, so clients that others make (moto's interpreter) are covered.
        entry = ("before-send.lambda.Invoke", self._answer)
        botocore.handlers.BUILTIN_HANDLERS.append(entry)
        try:
            yield
        finally:
            botocore.handlers.BUILTIN_HANDLERS.remove(entry)

    def _answer(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        """Hand the invocation to the handler; the signature is that of botocore's before-send event."""
        if self.service is None:
            return None
        name = urllib.parse.unquote(urllib.parse.urlsplit(request.url).path.split("/")[3])
        body = request.body
        outcome = self.service.invoke(name, bytes(body) if isinstance(body, bytes | bytearray) else b"")
        headers = HTTPHeaders()
        headers["Content-Type"] = "application/json"
        if outcome.failed:
            headers["X-Amz-Function-Error"] = "Unhandled"
        return AWSResponse(request.url, 200, headers, _Raw(json.dumps(outcome.payload).encode()))


class _Raw(io.BytesIO):
    """A response's body as botocore reads it."""

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield self.read()
