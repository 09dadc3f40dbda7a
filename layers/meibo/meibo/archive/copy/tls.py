"""TLS over a socket in large pieces.

Python's SSLSocket makes two system calls for each record of 16 KiB that it reads. Here those of many records are made
at once. What is sent is small, requests only.
"""

from __future__ import annotations

import io
import ssl
from typing import TYPE_CHECKING, Any, cast

from urllib3.connection import HTTPConnection

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from typing_extensions import Buffer


class TlsSocket:
    """As much of a socket as http.client needs, with the TLS of a context that verifies."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str, wire_bytes: int) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._wire = memoryview(bytearray(wire_bytes))  # what one system call receives
        self._readers = 0
        self._closed = False
        # With a buffer, read counts the bytes that it put there.
        self._read = cast("Callable[[int, Buffer], int]", self._tls.read)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._receive()
        self._flush()

    def _receive(self) -> None:
        """Wait for bytes of the peer."""
        self._flush()
        count = self._sock.recv_into(self._wire)
        if count:
            self._incoming.write(self._wire[:count])
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._sock.sendall(self._outgoing.read())

    def recv_into(self, view: memoryview) -> int:
        """Read at least one byte; 0 where the peer closed in good order."""
        while True:
            try:
                return self._read(len(view), view)
            except ssl.SSLWantReadError:
                self._receive()
            except ssl.SSLZeroReturnError:
                return 0

    def sendall(self, data: Buffer) -> None:
        """Write everything."""
        self._tls.write(data)
        self._flush()

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002  (http.client only ever reads)
        """Return a reader, which keeps the socket open until it is closed as well."""
        self._readers += 1
        return io.BufferedReader(RawReader(self))

    def reader_closed(self) -> None:
        """Forget a reader."""
        self._readers -= 1
        self._end()

    def settimeout(self, seconds: float | None) -> None:
        """Limit the wait for a byte."""
        self._sock.settimeout(seconds)

    def fileno(self) -> int:
        """Return the descriptor of the socket below."""
        return self._sock.fileno()

    def shutdown(self, how: int) -> None:
        """Make whoever waits for a byte see the end."""
        self._sock.shutdown(how)

    def close(self) -> None:
        """Close the socket when its readers are closed."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        if self._closed and self._readers <= 0:
            self._sock.close()


class RawReader(io.RawIOBase):
    """What a response reads its headers from."""

    def __init__(self, sock: TlsSocket) -> None:
        self._sock: TlsSocket | None = sock

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is there."""
        return 0 if self._sock is None else self._sock.recv_into(memoryview(buffer))

    def close(self) -> None:
        """Let go of the socket."""
        if self._sock is not None:
            self._sock.reader_closed()
            self._sock = None
        super().close()


class TlsConnection(HTTPConnection):
    """urllib3's connection over such a socket."""

    default_port = 443  # type: ignore[misc]  # http.client's stubs have it as an instance's; Host leaves it out

    def __init__(self, host: str, port: int, context: ssl.SSLContext, *, timeout: float, wire_bytes: int) -> None:
        super().__init__(host, port, timeout=timeout)
        self._context = context
        self._wire_bytes = wire_bytes

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        try:
            return cast("socket.socket", TlsSocket(sock, self._context, self.host, self._wire_bytes))
        except BaseException:
            sock.close()
            raise
