"""``lambda:Invoke`` of any boto3 client in this process, answered by the service that calls the handlers."""

from __future__ import annotations

import io
import json
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import botocore.handlers
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders

from local.functions import LambdaService


class Invocations:
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
