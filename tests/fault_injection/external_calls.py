"""Observe and break every external call of a function where it leaves the process.

Calls of AWS are observed at boto3's operations. All other calls (the providers, and the parts of an upload, which are
sent to presigned URLs) are observed at urllib3's connections. Calls of the local system itself, such as those of the
workflow's interpreter, are not calls of a function. Only an observer with a method ``workflow_call`` receives them.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from urllib3.connection import HTTPConnection

from meibo import aws as meibo_aws
from meibo.providers import clear_clients
from meibo_local.lambda_service import InvocationResult, LambdaService, LocalFunction, Observer


class InvocationKilled(BaseException):  # not an Exception: `except Exception` must not catch it
    """The sandbox of an invocation was terminated; none of its code may continue."""


@dataclass(eq=False)
class Invocation:
    """One invocation of a function. After ``killed`` is set, its remaining threads cannot make calls."""

    function: str
    killed: bool = False


@dataclass(frozen=True)
class Call:
    """An external call.

    ``name`` is ``s3:PutObject``, or ``POST /oauth/token`` without ids. ``details`` are the parameters of an AWS
    operation, or the host and path of a request.
    """

    function: str
    name: str
    details: Mapping[str, Any] = field(repr=False)


class CallObserver(Protocol):
    """Receives each call, and may raise InvocationKilled or another error."""

    def before(self, invocation: Invocation, call: Call) -> None:
        """Handle a call that is about to be made."""
        ...

    def after(self, invocation: Invocation, call: Call) -> None:
        """Handle a call that received a response."""
        ...


WORKFLOW: Final = "ExportWorkflow"
# Marks the boto3 clients with which the interpreter makes the workflow's own calls.
WORKFLOW_CLIENT_FLAG: Final = "meibo_workflow_client"
_current: ContextVar[Invocation | None] = ContextVar("invocation", default=None)
_ID: Final = re.compile(r"\b(job|con|org|rol|uinv)_[A-Za-z0-9]{16}|auth0%7C[0-9a-f]+", re.IGNORECASE)


def reset_sandbox() -> None:
    """Discard everything that lives as long as a sandbox: clients, tokens, connections."""
    meibo_aws.clear_clients()
    clear_clients()


class ObservedLambdaService(LambdaService):
    """The Lambda service, with invocations that can be killed."""

    def __init__(self, functions: list[LocalFunction], observer: Observer | None = None) -> None:
        super().__init__(functions, observer)
        # The error type that AWS reports for an invocation without a response: a timeout or a lost process.
        self.sandbox_error = "Sandbox.Timedout"
        # Start each invocation in a new sandbox. In AWS functions do not share a process, as they do here.
        self.cold = False
        # Replaces the template's timeout, for tests that wait until the time is used up.
        self.timeout_seconds: int | None = None
        # The remaining time of each invocation when its handler ended, even if the invocation was killed.
        self.seconds_left: list[float] = []
        # Called with each error that a handler raises.
        self.on_error: Callable[[BaseException], None] | None = None

    def functions(self) -> list[LocalFunction]:
        """Return the functions of the template."""
        return list(self._functions.values())

    def _call(self, function: LocalFunction, event: Any) -> InvocationResult:
        invocation = Invocation(function.logical_id)
        if self.cold:
            reset_sandbox()
        token = _current.set(invocation)
        handler = partial(self._run_handler, function.handler)
        timeout_seconds = self.timeout_seconds or function.timeout_seconds
        try:
            outcome = super()._call(replace(function, handler=handler, timeout_seconds=timeout_seconds), event)
        except InvocationKilled:
            outcome = None
        finally:
            _current.reset(token)
        if outcome is not None and not invocation.killed:
            return outcome
        reset_sandbox()
        return InvocationResult(
            {"errorType": self.sandbox_error, "errorMessage": "Task timed out after 900.00 seconds"}, True
        )

    def _run_handler(self, handler: Callable[[Any, Any], Any], event: Any, context: Any) -> Any:
        try:
            return handler(event, context)
        except Exception as error:
            if self.on_error is not None:
                self.on_error(error)
            raise
        finally:
            self.seconds_left.append(context.get_remaining_time_in_millis() / 1000)


@contextmanager
def observe_calls(get_observer: Callable[[], CallObserver | None]) -> Iterator[None]:
    """Report the functions' calls to the observer that ``get_observer`` returns at the time of each call."""
    client: Any = BaseClient  # the stubs do not include the method that all operations use
    api_call, request, getresponse = client._make_api_call, HTTPConnection.request, HTTPConnection.getresponse
    start = threading.Thread.start

    def notify(moment: str, invocation: Invocation, call: Call) -> None:
        if invocation.killed:
            raise InvocationKilled
        observer = get_observer()
        if observer is not None:
            getattr(observer, moment)(invocation, call)

    def observed_api_call(self: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
        invocation = _current.get()
        if invocation is None:
            workflow_call = getattr(get_observer(), "workflow_call", None)
            if workflow_call is not None and getattr(self, WORKFLOW_CLIENT_FLAG, False):
                workflow_call(Call(WORKFLOW, f"{self.meta.service_model.service_name}:{operation}", parameters))
            return api_call(self, operation, parameters)
        call = Call(invocation.function, f"{self.meta.service_model.service_name}:{operation}", parameters)
        notify("before", invocation, call)
        # Work that the call starts (the workflow, moto's own requests) is not a part of the function.
        token = _current.set(None)
        try:
            result = api_call(self, operation, parameters)
        except ClientError:
            notify("after", invocation, call)
            raise
        finally:
            _current.reset(token)
        notify("after", invocation, call)
        return result

    def observed_request(self: Any, method: str, url: str, *arguments: Any, **options: Any) -> Any:
        invocation = _current.get()
        if invocation is None:
            return request(self, method, url, *arguments, **options)
        path = urlsplit(url).path
        upload = method == "PUT" and "partNumber=" in url
        name = "s3:UploadPart" if upload else f"{method} {_ID.sub('…', path)}"
        bucket, _, key = unquote(path).lstrip("/").partition("/")
        details = {"Bucket": bucket, "Key": key} if upload else {"host": f"{self.host}:{self.port}", "path": path}
        self.meibo_call = call = Call(invocation.function, name, details)
        notify("before", invocation, call)
        return request(self, method, url, *arguments, **options)

    def observed_getresponse(self: Any) -> Any:
        invocation = _current.get()
        response = getresponse(self)
        if invocation is not None:
            notify("after", invocation, self.meibo_call)
        return response

    def start_in_invocation(self: threading.Thread) -> None:
        invocation = _current.get()
        if invocation is not None:
            run = self.run

            def run_in_invocation() -> None:
                _current.set(invocation)
                run()

            self.run = run_in_invocation  # type: ignore[method-assign]  # threads do not inherit the context before 3.14
        start(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", observed_api_call)
        patch.setattr(HTTPConnection, "request", observed_request)
        patch.setattr(HTTPConnection, "getresponse", observed_getresponse)
        patch.setattr(threading.Thread, "start", start_in_invocation)
        yield
