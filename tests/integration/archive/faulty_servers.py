"""An HTTPS source and a simulated S3 with configurable faults on loopback.

The simulated S3 stores objects in memory and verifies CRC64NVME, sizes and If-None-Match as S3 does.
"""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from awscrt import checksums

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trustme

PIECE = 16 * 1024


@dataclass(frozen=True)
class Fault:
    """A fault of one request.

    reset: the connection is reset after ``at`` bytes of the body (sent or received); short: it is closed
    normally there; stall: nothing more is sent until the client closes; status: the response has this status; lost: the
    request is executed, but the connection is reset before the response.
    """

    kind: str
    at: int = 0
    status: int = 503
    code: str = "SlowDown"
    retry_after: str | None = None


@dataclass
class File:
    """The file that the source serves, and its faults."""

    data: bytes = b""
    etag: str | None = '"v1"'
    ranges: bool = True
    chunked: bool = False
    uses: int = 1 << 30
    """The number of requests that a location answers before it expires."""

    faults: dict[int, Fault] = field(default_factory=dict)
    """By the number of the request, from 0."""

    changes: dict[int, tuple[bytes, str | None]] = field(default_factory=dict)
    """New content and ETag from a request on."""

    requests: list[dict[str, str]] = field(default_factory=list)
    locations: int = 0
    expired: int = 0


@dataclass
class Store:
    """The content of the simulated S3, and the faults of part uploads."""

    objects: dict[str, tuple[bytes, dict[str, str]]] = field(default_factory=dict)
    uploads: dict[str, tuple[str, dict[str, str], dict[int, bytes]]] = field(default_factory=dict)
    faults: dict[int, Fault] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    puts: list[int] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    aborted: int = 0
    gate: threading.Event | None = None
    """Part uploads wait for it: a slow sink."""


def crc64(data: bytes) -> str:
    return base64.b64encode(checksums.crc64nvme(data).to_bytes(8, "big")).decode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def reset(self) -> None:
        """Close the connection with RST, so that the peer receives a reset."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            socket.socket.close(self.connection)

    def stall(self) -> None:
        """Send no more bytes until the client or the server closes the connection."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.settimeout(10)
            self.connection.recv(1)

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if not (headers and "Content-Length" in headers) and status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, retry_after: str | None = None) -> None:
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/Redirects.html
        endpoint = "<Endpoint>archive.s3.eu-south-1.amazonaws.com</Endpoint>" if 300 <= status < 400 else ""
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message>{endpoint}</Error>".encode()
        self.answer(
            status, body, {"Content-Type": "application/xml"} | ({"Retry-After": retry_after} if retry_after else {})
        )


class SourceHandler(Handler):
    def do_GET(self) -> None:
        file = self.server.file
        with self.server.lock:
            number = len(file.requests)
            file.requests.append({name.lower(): value for name, value in self.headers.items()})
            for at in sorted(file.changes):
                if number >= at:
                    file.data, file.etag = file.changes[at]
            data, etag, fault = file.data, file.etag, file.faults.get(number)
            token = parse_qs(urlsplit(self.path).query).get("token", [""])[0]
            used = self.server.used[token] = self.server.used.get(token, 0) + 1
            if used > file.uses:
                file.expired += 1
        if used > file.uses:
            return self.refuse(403, "AccessDenied")
        if fault is not None and fault.kind == "status":
            return self.refuse(fault.status, fault.code, fault.retry_after)
        if self.headers.get("If-Match") not in {None, etag}:
            return self.refuse(412, "PreconditionFailed")
        headers = {"Accept-Ranges": "bytes"} | ({"ETag": etag} if etag else {})
        status, start, end = 200, 0, len(data)
        requested = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if requested and file.ranges:
            if int(requested[1]) >= len(data):
                return self.refuse(416, "InvalidRange")
            status, start = 206, int(requested[1])
            end = min(int(requested[2] or len(data)) + 1, len(data)) if requested[2] else len(data)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        self.send_response(status)
        body, chunked = data[start:end], file.chunked and status == 200
        headers |= {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        broken = fault is not None and fault.kind in {"reset", "short", "stall"} and fault.at < len(body)
        self.send(body[: fault.at] if fault and broken else body, chunked=chunked, ended=not broken)
        if fault and broken:
            self.wfile.flush()
            self.close_connection = True
            if fault.kind == "reset":
                self.reset()
            elif fault.kind == "stall":
                self.stall()
        return None

    def send(self, body: bytes, *, chunked: bool, ended: bool) -> None:
        if not chunked:
            self.wfile.write(body)
            return
        for at in range(0, len(body), PIECE):
            piece = body[at : at + PIECE]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        if ended:
            self.wfile.write(b"0\r\n\r\n")


class S3Handler(Handler):
    def handle_one_request(self) -> None:
        with suppress(ConnectionError, ssl.SSLError, TimeoutError):
            return super().handle_one_request()
        self.close_connection = True
        return None

    @property
    def key(self) -> str:
        return unquote(urlsplit(self.path).path)

    @property
    def query(self) -> dict[str, str]:
        return {k: v[0] for k, v in parse_qs(urlsplit(self.path).query, keep_blank_values=True).items()}

    def body(self, fault: Fault | None = None) -> bytes | None:
        left = int(self.headers.get("Content-Length", 0))
        pieces: list[bytes] = []
        while left:
            if fault and fault.kind == "reset" and sum(map(len, pieces)) >= fault.at:
                self.reset()
                return None
            piece = self.rfile.read(min(left, PIECE))
            if not piece:
                self.close_connection = True
                return None
            pieces.append(piece)
            left -= len(piece)
        if fault and fault.kind == "stall":
            self.stall()
            return None
        data = b"".join(pieces)
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            size, _, rest = data.partition(b"\r\n")
            data = rest[: int(size.split(b";")[0], 16)]
        return data

    def properties(self) -> dict[str, str]:
        return {
            name.lower(): value
            for name, value in self.headers.items()
            if name.lower().startswith(("content-type", "x-amz-"))
        }

    def do_POST(self) -> None:
        store, query = self.server.store, self.query
        body = self.body()
        if body is None:
            return None
        if "uploads" in query:
            store.calls.append("CreateMultipartUpload")
            upload = f"upload-{len(store.calls)}"
            store.uploads[upload] = (self.key, self.properties(), {})
            xml = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            return self.answer(200, xml.encode())
        store.calls.append("CompleteMultipartUpload")
        if query["uploadId"] not in store.uploads:
            return self.refuse(404, "NoSuchUpload")
        if self.key in store.objects and self.headers.get("If-None-Match") == "*":
            return self.refuse(412, "PreconditionFailed")
        key, properties, parts = store.uploads[query["uploadId"]]
        listed = [int(number) for number in re.findall(r"<PartNumber>(\d+)</PartNumber>", body.decode())]
        tags = re.findall(r"<ETag>&?(?:quot;|\")?([0-9a-f]+)", body.decode())
        if listed != sorted(parts) or tags != [hashlib.md5(parts[n]).hexdigest() for n in listed]:  # noqa: S324
            return self.refuse(400, "InvalidPart")
        data = b"".join(parts[number] for number in listed)
        if self.headers["x-amz-checksum-crc64nvme"] != crc64(data):
            return self.refuse(400, "BadDigest")
        if self.headers["x-amz-mp-object-size"] != str(len(data)):
            return self.refuse(400, "InvalidRequest")
        del store.uploads[query["uploadId"]]
        store.objects[key] = (data, properties)
        return self.answer(
            200,
            b'<CompleteMultipartUploadResult><ETag>"whole-1"</ETag></CompleteMultipartUploadResult>',
        )

    def do_PUT(self) -> None:
        store, query = self.server.store, self.query
        if "partNumber" not in query:
            store.calls.append("PutObject")
            body = self.body()
            if body is None:
                return None
            if self.key in store.objects and self.headers.get("If-None-Match") == "*":
                return self.refuse(412, "PreconditionFailed")
            if self.headers["x-amz-checksum-crc64nvme"] != crc64(body):
                return self.refuse(400, "BadDigest")
            # https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
            if "x-amz-object-lock-mode" in self.headers and "x-amz-sdk-checksum-algorithm" not in self.headers:
                return self.refuse(400, "InvalidRequest")
            store.objects[self.key] = (body, self.properties())
            return self.answer(200, headers={"ETag": '"whole"'})
        with self.server.lock:
            number = len(store.puts)
            store.puts.append(int(query["partNumber"]))
            store.headers.append({name.lower(): value for name, value in self.headers.items()})
            fault = store.faults.get(number)
        if fault and fault.kind == "status":
            self.body()
            return self.refuse(fault.status, fault.code, fault.retry_after)
        body = self.body(fault)
        if body is None:
            return None
        if store.gate is not None:
            store.gate.wait(10)
        if self.headers["x-amz-checksum-crc64nvme"] != crc64(body):
            return self.refuse(400, "BadDigest")
        if query["uploadId"] not in store.uploads:
            return self.refuse(404, "NoSuchUpload")
        store.uploads[query["uploadId"]][2][int(query["partNumber"])] = body
        if fault and fault.kind == "lost":
            self.reset()
            return None
        return self.answer(200, headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})  # noqa: S324

    def do_DELETE(self) -> None:
        self.server.store.uploads.pop(self.query["uploadId"], None)
        self.server.store.aborted += 1
        self.answer(204)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        stored = self.server.store.objects.get(self.key)
        if stored is None:
            return self.refuse(404, "NotFound")
        headers = {"ETag": '"whole"', "Content-Length": str(len(stored[0]))}
        if self.headers.get("x-amz-checksum-mode") == "ENABLED":
            headers |= {"x-amz-checksum-crc64nvme": crc64(stored[0]), "x-amz-checksum-type": "FULL_OBJECT"}
        return self.answer(200, stored[0], headers)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type[Handler], context: ssl.SSLContext) -> None:
        self.context = context
        self.lock = threading.Lock()
        self.file = File()
        self.used: dict[str, int] = {}
        self.store = Store()
        super().__init__(("127.0.0.1", 0), handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        # Each connection has its own thread for the handshake.
        request.settimeout(30)
        with suppress(OSError), self.context.wrap_socket(request, server_side=True) as wrapped:
            super().finish_request(wrapped, client_address)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.server_port}"

    def location(self) -> str:
        """Return a new location, as the provider does."""
        self.file.locations += 1
        return f"{self.url}/file?token={self.file.locations}"

    def serve(self, file: File) -> File:
        """Serve another file, and count its requests from 0."""
        with self.lock:
            self.file, self.used = file, {}
        return file

    def empty(self) -> Store:
        """Delete all objects and uploads."""
        with self.lock:
            self.store = Store()
        return self.store


@contextmanager
def serving(handler: type[Handler], ca: trustme.CA) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    server = Server(handler, context)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
