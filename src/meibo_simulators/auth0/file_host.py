"""The WSGI application of the export file host, which serves presigned URLs with ranges as S3 does."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from xml.sax.saxutils import escape

from flask import Flask, Response, request

from meibo_simulators.auth0.export_files import ExportFile
from meibo_simulators.auth0.switches import Switches
from meibo_simulators.auth0.tenant import SimulatedTenant

CHUNK_BYTES = 256 * 1024
_METHODS = ["GET", "HEAD", "PUT", "POST", "DELETE"]


def file_host_application(tenant: SimulatedTenant) -> Flask:
    """Return the WSGI application of a tenant's export file host."""
    app = Flask("auth0-files")

    @app.route("/", defaults={"path": ""}, methods=_METHODS)
    @app.route("/<path:path>", methods=_METHODS)
    def file(path: str) -> Response:
        return _respond(tenant, f"/{path}")

    return app


def _respond(tenant: SimulatedTenant, path: str) -> Response:
    rejection = _rejection(tenant)
    if rejection is not None:
        return rejection
    if tenant.switches.redirect_files_to is not None:
        return Response(status=302, headers={"Location": tenant.switches.redirect_files_to})
    try:
        file = tenant.jobs.file(path.split("/")[1], path)
    except KeyError:
        return s3_error(404, "NoSuchKey", "The specified key does not exist.")
    return _content(file, tenant.switches)


def _rejection(tenant: SimulatedTenant) -> Response | None:
    """Return the error response of a request without a valid presigned URL, or None."""
    signed, _, signature = request.full_path.partition("&X-Amz-Signature=")
    if "Authorization" in request.headers:
        return s3_error(
            400,
            "InvalidArgument",
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query "
            "string parameter or the Authorization header should be specified",
        )
    if not signature:
        return s3_error(403, "AccessDenied", "Access Denied")
    expiry = tenant.files.expiry(signed, signature)
    # The URL is signed for GET, so S3 rejects HEAD.
    if expiry is None or request.method != "GET":
        return s3_error(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your "
            "key and signing method.",
        )
    if tenant.now() >= expiry:
        return s3_error(403, "AccessDenied", "Request has expired")
    return None


def _content(file: ExportFile, switches: Switches) -> Response:
    headers = {
        "Last-Modified": formatdate(file.modified, usegmt=True),
        "Server": "AmazonS3",
        "x-amz-request-id": secrets.token_hex(8).upper(),
        "ETag": file.etag,
    }
    if switches.file_content_encoding is not None:
        headers["Content-Encoding"] = switches.file_content_encoding
    if switches.file_ranges:
        headers["Accept-Ranges"] = "bytes"
    if request.headers.get("If-Match", file.etag) not in ("*", file.etag):
        return s3_error(412, "PreconditionFailed", "At least one of the preconditions you specified did not hold.")
    if request.headers.get("If-None-Match") == file.etag:
        return Response(status=304, headers=headers)
    start, end, status = 0, file.size, 200
    requested = request.range if switches.file_ranges else None
    # S3 ignores malformed and multiple ranges.
    if requested and len(requested.ranges) == 1 and request.headers.get("If-Range", file.etag) == file.etag:
        span = requested.range_for_length(file.size)
        if span is None:
            response = s3_error(416, "InvalidRange", "The requested range is not satisfiable")
            response.headers["Content-Range"] = f"bytes */{file.size}"
            return response
        (start, end), status = span, 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    headers["Content-Length"] = str(end - start)
    return Response(_chunks(file.path, start, end), status, headers, content_type="application/octet-stream")


def _chunks(path: Path, start: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (chunk := file.read(min(CHUNK_BYTES, end - start))):
            start += len(chunk)
            yield chunk


def s3_error(status: int, code: str, message: str) -> Response:
    """Return an error response in S3's format."""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{escape(message)}</Message>"
        f"<RequestId>{secrets.token_hex(8).upper()}</RequestId><HostId>{secrets.token_urlsafe(48)}</HostId></Error>"
    )
    return Response(body, status, content_type="application/xml")
