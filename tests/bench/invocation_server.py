"""A simulated source and AWS on one loopback port, over TLS, for the benchmark of the first invocation.

The source issues a token, has one finished job, and serves its file with ranges. AWS has one secret, and an S3 that
discards received data. Unless the network is unlimited, each connection has the rate of a connection to S3: 80 MB/s in
each direction, and 60 ms to acknowledge a body.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

BUCKET = "archive"
JOB_ID = "job_0000000000000001"
ETAG = '"0123456789abcdef0123456789abcdef"'
RATE_BYTES_PER_SECOND = 80_000_000
ACKNOWLEDGE_SECONDS = 0.06
PIECE_BYTES = 256 * 1024
MANIFEST = "_manifest.json"


@dataclass(frozen=True)
class Request:
    """A request that was served: its kind, and the times at which it arrived and its response was sent."""

    kind: str
    arrived: float
    responded: float


@dataclass
class Network:
    """The members of a file, and the requests since the last ``clear``; ``shaped`` limits each connection."""

    member: bytes
    shaped: bool
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        # The file repeats the member, so that each part of the file is a slice of a few repetitions.
        self.repeated = memoryview(self.member * (2 + PIECE_BYTES // len(self.member)))


class Server(ThreadingHTTPServer):
    """The server, with the network and the TLS context that its connections use."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, tls: ssl.SSLContext, network: Network) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.tls = tls
        self.network = network

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a connection that the function closed."""


class Connection(BaseHTTPRequestHandler):
    """One connection from the function."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # Headers and body are written at once, so that they are sent in one TLS record.
    wbufsize = PIECE_BYTES
    server: Server

    def setup(self) -> None:
        """Start TLS in the thread of the connection."""
        self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        self.due = 0.0
        self.buffer = memoryview(bytearray(PIECE_BYTES))
        super().setup()

    def finish(self) -> None:
        """Close the TLS socket, which replaced the server's."""
        super().finish()
        self.request.close()

    def handle_expect_100(self) -> bool:
        """Send 100 Continue at once, without waiting for the response."""
        is_accepted = super().handle_expect_100()
        self.wfile.flush()
        return is_accepted

    def log_message(self, format: str, *arguments: Any) -> None:
        """Do not write an access log."""

    def do_GET(self) -> None:
        """Return the job, the file or a listing."""
        self._serve()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815  # names of the base class

    def _serve(self) -> None:
        arrived = time.time()
        url = urlsplit(self.path)
        has_body = self._discard_body()
        if url.path.startswith("/files/"):
            kind = "file"
            self._send_file(int(url.path.removeprefix("/files/")))
        elif url.path.startswith(f"/{BUCKET}"):
            kind = self._send_s3(url.path, parse_qs(url.query, keep_blank_values=True), has_body=has_body)
        else:
            kind = "source"
            self._send_source(url.path)
        self.wfile.flush()
        self.server.network.requests.append(Request(kind, arrived, time.time()))

    def _send_source(self, path: str) -> None:
        host = self.headers["Host"]
        if self.headers.get("X-Amz-Target") == "secretsmanager.GetSecretValue":
            secret = {"client_id": "client", "client_secret": "secret"}
            self._send(200, json.dumps({"Name": "meibo/acme", "SecretString": json.dumps(secret)}))
        elif path == "/oauth/token":
            self._send(200, json.dumps({"access_token": "token", "expires_in": 86400, "token_type": "Bearer"}))
        elif match := re.fullmatch(rf"/api/v2/jobs/{JOB_ID}-([0-9]+)", path):
            location = f"https://{host}/files/{match[1]}"
            self._send(200, json.dumps({"id": path.rpartition("/")[2], "status": "completed", "location": location}))
        else:
            self._send(404, "{}")

    def _send_s3(self, path: str, query: dict[str, list[str]], *, has_body: bool) -> str:
        if has_body and self.server.network.shaped:
            time.sleep(ACKNOWLEDGE_SECONDS)
        upload = f"<Bucket>{BUCKET}</Bucket><Key>key</Key>"
        if self.command == "PUT":
            self._send(200, "", {"ETag": ETAG})
            if "partNumber" in query:
                return "part"
            return "manifest" if path.endswith(MANIFEST) else "stored"
        if self.command == "POST" and "uploads" in query:
            self._send_xml(200, "InitiateMultipartUploadResult", f"{upload}<UploadId>upload</UploadId>")
        elif self.command == "POST":
            self._send_xml(200, "CompleteMultipartUploadResult", f"{upload}<ETag>{ETAG}</ETag>")
            return "stored"
        elif "list-type" in query:
            self._send_xml(200, "ListBucketResult", f"<Name>{BUCKET}</Name><IsTruncated>false</IsTruncated>")
        else:
            self._send_xml(404, "Error", "<Code>NoSuchKey</Code><Message>The key does not exist.</Message>")
        return "s3"

    def _send_file(self, size: int) -> None:
        begin, end = 0, size
        if match := re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", self.headers.get("Range", "")):
            begin, end = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(end - begin))
        self.send_header("Content-Type", "application/gzip")
        self.send_header("ETag", ETAG)
        self.end_headers()
        network = self.server.network
        while begin < end:
            at = begin % len(network.member)
            piece = network.repeated[at : at + min(PIECE_BYTES, end - begin)]
            self.wfile.write(piece)
            self.wfile.flush()
            self._pace(len(piece))
            begin += len(piece)

    def _send_xml(self, status: int, name: str, content: str) -> None:
        self._send(status, f'<?xml version="1.0"?><{name}>{content}</{name}>', {"Content-Type": "application/xml"})

    def _send(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    def _discard_body(self) -> bool:
        """Read the body of the request, and return whether the request has a body."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            length = int(self.headers.get("Content-Length", 0))
            self._discard(length)
            return length > 0
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            self._discard(size + len(b"\r\n"))
        while self.rfile.readline().strip():
            pass  # trailers, such as a checksum
        return True

    def _discard(self, count: int) -> None:
        while count:
            received = self.rfile.readinto1(self.buffer[: min(count, len(self.buffer))])
            if not received:
                raise ConnectionError("the function closed the connection")
            self._pace(received)
            count -= received

    def _pace(self, count: int) -> None:
        """Wait until a connection of the limited rate would have transferred the bytes."""
        if not self.server.network.shaped:
            return
        now = time.monotonic()
        self.due = max(self.due, now - 0.005) + count / RATE_BYTES_PER_SECOND
        if self.due > now + 0.002:
            time.sleep(self.due - now)


@contextmanager
def serving(certificate: Path, key: Path, network: Network) -> Iterator[int]:
    """Serve in threads of this process, and return the port."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server = Server(tls, network)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
