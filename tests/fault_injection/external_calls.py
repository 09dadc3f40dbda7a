"""Every call that a function makes to the outside, seen and broken where it leaves the process.

AWS is seen at boto3's operations, everything else (the providers, and the parts of an upload, which are sent to
presigned URLs) at urllib3's connections. What the local system itself calls, such as the workflow's interpreter, is
no function's call; only a watch that has a ``seen_of_the_workflow`` is told of those.
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


class InvocationKilled(BaseException):  # no error of the program's: the program is gone
    """The sandbox of an invocation vanished; nothing of it may run on."""


@dataclass(eq=False)
class Invocation:
    """One invocation of a function. ``killed`` once it has vanished: whatever of it still runs may call nobody."""

    function: str
    killed: bool = False


@dataclass(frozen=True)
class Call:
    """A call to the outside.

    ``name`` is ``s3:PutObject``, or ``POST /oauth/token`` with ids left out. ``details`` are the parameters of an AWS
    operation, or the host and path of a request.
    """

    function: str
    name: str
    details: Mapping[str, Any] = field(repr=False)


class Watch(Protocol):
    """Is told of each call, and may raise InvocationKilled or break the call."""

    def before(self, invocation: Invocation, call: Call) -> None:
        """Is told before the call is made."""
        ...

    def after(self, invocation: Invocation, call: Call) -> None:
        """Is told when the call has been answered."""
        ...


WORKFLOW: Final = "ExportWorkflow"
# An attribute of the clients with which the interpreter does the workflow's own calls.
MADE_FOR_THE_WORKFLOW: Final = "proof_made_for_the_workflow"
_current: ContextVar[Invocation | None] = ContextVar("invocation", default=None)
_ID: Final = re.compile(r"\b(job|con|org|rol|uinv)_[A-Za-z0-9]{16}|auth0%7C[0-9a-f]+", re.IGNORECASE)


def forget_what_a_sandbox_keeps() -> None:
    """Drop everything that lives as long as a sandbox: clients, tokens, connections."""
    meibo_aws.clear_clients()
    clear_clients()


class WatchedService(LambdaService):
    """The Lambda service whose invocations can vanish."""

    def __init__(self, functions: list[LocalFunction], observer: Observer | None = None) -> None:
        super().__init__(functions, observer)
        # What AWS says of an invocation that ended without an answer: it timed out, or its process is gone.
        self.last_words = "Sandbox.Timedout"
        # Each function has sandboxes of its own in AWS, and here they share a process: begin each invocation anew.
        self.cold = False
        # Shorter than the template's, for those who wait for the end of the time.
        self.timeout_seconds: int | None = None
        # What each invocation had left of its time when it ended by itself.
        self.seconds_left: list[float] = []
        # Is told what a handler raises.
        self.raised: Callable[[BaseException], None] | None = None

    def functions(self) -> list[LocalFunction]:
        """Return the functions of the template."""
        return list(self._functions.values())

    def _call(self, function: LocalFunction, event: Any) -> InvocationResult:
        invocation = Invocation(function.logical_id)
        if self.cold:
            forget_what_a_sandbox_keeps()
        token = _current.set(invocation)
        heard = partial(self._listen, function.handler)
        timeout_seconds = self.timeout_seconds or function.timeout_seconds
        try:
            outcome = super()._call(replace(function, handler=heard, timeout_seconds=timeout_seconds), event)
        except InvocationKilled:
            outcome = None
        finally:
            _current.reset(token)
        if outcome is not None and not invocation.killed:
            return outcome
        forget_what_a_sandbox_keeps()
        return InvocationResult(
            {"errorType": self.last_words, "errorMessage": "Task timed out after 900.00 seconds"}, True
        )

    def _listen(self, handler: Callable[[Any, Any], Any], event: Any, context: Any) -> Any:
        try:
            return handler(event, context)
        except Exception as error:
            if self.raised is not None:
                self.raised(error)
            raise
        finally:
            self.seconds_left.append(context.get_remaining_time_in_millis() / 1000)


@contextmanager
def watched(watch: Callable[[], Watch | None]) -> Iterator[None]:
    """Let whatever ``watch`` returns at the time see the functions' calls."""
    client: Any = BaseClient  # its stubs leave the method out that all operations go through
    api_call, request, answer = client._make_api_call, HTTPConnection.request, HTTPConnection.getresponse
    start = threading.Thread.start

    def tell(moment: str, invocation: Invocation, call: Call) -> None:
        if invocation.killed:
            raise InvocationKilled
        watching = watch()
        if watching is not None:
            getattr(watching, moment)(invocation, call)

    def watched_api_call(self: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
        invocation = _current.get()
        if invocation is None:
            seen = getattr(watch(), "seen_of_the_workflow", None)
            if seen is not None and getattr(self, MADE_FOR_THE_WORKFLOW, False):
                seen(Call(WORKFLOW, f"{self.meta.service_model.service_name}:{operation}", parameters))
            return api_call(self, operation, parameters)
        call = Call(invocation.function, f"{self.meta.service_model.service_name}:{operation}", parameters)
        tell("before", invocation, call)
        # What the call sets going (the workflow, moto's own requests) is not the function.
        token = _current.set(None)
        try:
            result = api_call(self, operation, parameters)
        except ClientError:
            tell("after", invocation, call)
            raise
        finally:
            _current.reset(token)
        tell("after", invocation, call)
        return result

    def watched_request(self: Any, method: str, url: str, *arguments: Any, **options: Any) -> Any:
        invocation = _current.get()
        if invocation is None:
            return request(self, method, url, *arguments, **options)
        path = urlsplit(url).path
        upload = method == "PUT" and "partNumber=" in url
        name = "s3:UploadPart" if upload else f"{method} {_ID.sub('…', path)}"
        bucket, _, key = unquote(path).lstrip("/").partition("/")
        details = {"Bucket": bucket, "Key": key} if upload else {"host": f"{self.host}:{self.port}", "path": path}
        self.proof_call = call = Call(invocation.function, name, details)
        tell("before", invocation, call)
        return request(self, method, url, *arguments, **options)

    def watched_answer(self: Any) -> Any:
        invocation = _current.get()
        response = answer(self)
        if invocation is not None:
            tell("after", invocation, self.proof_call)
        return response

    def started_by_an_invocation(self: threading.Thread) -> None:
        invocation = _current.get()
        if invocation is not None:
            run = self.run

            def run_as_part_of_it() -> None:
                _current.set(invocation)
                run()

            self.run = run_as_part_of_it  # type: ignore[method-assign]  # threads do not inherit the context before 3.14
        start(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", watched_api_call)
        patch.setattr(HTTPConnection, "request", watched_request)
        patch.setattr(HTTPConnection, "getresponse", watched_answer)
        patch.setattr(threading.Thread, "start", started_by_an_invocation)
        yield
