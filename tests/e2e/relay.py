#!/var/lang/bin/python3.13
"""Let a Lambda container reach ports of the host's loopback, through sockets in the function's folder.

``sam local`` gives each container a network of its own, in which 127.0.0.1 is the container. The host listens on
``<port>.sock`` in the folder that is mounted as the function's code; in the container this file runs as a Lambda
extension and listens on the port. All processes listen only on loopback, and the functions use the same addresses as
on the host.

Extensions: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path

NAME = Path(__file__).name
TASK_ROOT = Path("/var/task")
_CHUNK = 1 << 16

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await source.read(_CHUNK):
            target.write(chunk)
            await target.drain()
        target.write_eof()


async def _join(near: Streams, far: Streams) -> None:
    try:
        await asyncio.gather(_pump(near[0], far[1]), _pump(far[0], near[1]))
    finally:
        await _close(far[1])


def _leading_to(connect: Callable[[], Awaitable[Streams]]) -> Callable[..., Awaitable[None]]:
    # asyncio has only a weak reference to the task of a connection, so it could be garbage collected.
    running: set[asyncio.Task[None] | None] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        running.add(task)
        try:
            await _join((reader, writer), await connect())
        finally:
            running.discard(task)
            await _close(writer)

    return accept


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _socket_of(folder: Path, port: int) -> Path:
    return folder / f"{port}.sock"


@contextlib.asynccontextmanager
async def _listening_in_folder(folder: Path, port: int) -> AsyncIterator[None]:
    accept = _leading_to(lambda: asyncio.open_connection("127.0.0.1", port))
    # The path of a socket is limited to about 100 characters; a path through a file descriptor is always short.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _socket_of(folder, port).unlink(missing_ok=True)
        path = f"/proc/self/fd/{descriptor}/{_socket_of(folder, port).name}"
        async with await asyncio.start_unix_server(accept, path):
            yield
    finally:
        os.close(descriptor)
        _socket_of(folder, port).unlink(missing_ok=True)


@contextlib.contextmanager
def relayed(folders: Iterable[Path], ports: list[int]) -> Iterator[None]:
    """Relay ports of this machine's loopback to sockets in each of the folders."""
    ready = threading.Event()
    ends: list[Callable[[], object]] = []

    async def serve() -> None:
        end = asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            for folder in folders:
                for port in ports:
                    await stack.enter_async_context(_listening_in_folder(folder, port))
            loop = asyncio.get_running_loop()
            ends.append(lambda: loop.call_soon_threadsafe(end.set))
            ready.set()
            await end.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    if not ready.wait(10):
        raise RuntimeError("the relay did not start")
    try:
        yield
    finally:
        ends[0]()
        thread.join(10)


async def _serve_container() -> None:
    async def listen(path: Path) -> None:
        accept = _leading_to(lambda: asyncio.open_unix_connection(str(path)))
        await asyncio.start_server(accept, "127.0.0.1", int(path.stem))

    for path in TASK_ROOT.glob("*.sock"):
        await listen(path)
    # Lambda starts the function when its extensions request the next event. This extension never receives an event.
    await asyncio.to_thread(_be_an_extension)


def _be_an_extension() -> None:
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    connection.request(
        "POST", "/2020-01-01/extension/register", body='{"events": []}', headers={"Lambda-Extension-Name": NAME}
    )
    answer = connection.getresponse()
    answer.read()
    identifier = answer.headers["Lambda-Extension-Identifier"]
    connection.request("GET", "/2020-01-01/extension/event/next", headers={"Lambda-Extension-Identifier": identifier})
    connection.getresponse().read()


if __name__ == "__main__":
    sys.exit(asyncio.run(_serve_container()))
