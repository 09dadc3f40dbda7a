#!/var/lang/bin/python3.13
"""Lets what runs in a Lambda container reach ports of the host's loopback, through sockets in the function's folder.

``sam local`` gives each container a network of its own, in which 127.0.0.1 is the container. The host listens on
``<port>.sock`` in the folder that is mounted as the function's code; in the container this file runs as a Lambda
extension and listens on the port. Nothing listens beyond loopback, and the function needs no other addresses.

Extensions: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
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
        for _, writer in (near, far):
            writer.close()


def _socket_of(folder: Path, port: int) -> Path:
    return folder / f"{port}.sock"


@contextlib.asynccontextmanager
async def _listening_in_folder(folder: Path, port: int) -> AsyncIterator[None]:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join((reader, writer), await asyncio.open_connection("127.0.0.1", port))

    # A socket's path may have some 100 characters only; one that goes through a descriptor is always short.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        path = f"/proc/self/fd/{descriptor}/{_socket_of(folder, port).name}"
        async with await asyncio.start_unix_server(accept, path):
            yield
    finally:
        os.close(descriptor)
        _socket_of(folder, port).unlink(missing_ok=True)


async def _serve_host(folders: Iterable[Path], ports: Iterable[int], ready: threading.Event) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for folder in folders:
            for port in ports:
                _socket_of(folder, port).unlink(missing_ok=True)
                await stack.enter_async_context(_listening_in_folder(folder, port))
        ready.set()
        await asyncio.Event().wait()


@contextlib.contextmanager
def relayed(folders: list[Path], ports: list[int]) -> Iterator[None]:
    """Offer ports of this machine's loopback in each of the folders."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    task = loop.create_task(_serve_host(folders, ports, ready))

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    if not ready.wait(10):
        raise RuntimeError("the relay did not start")
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)


async def _serve_container() -> None:
    async def listen(path: Path) -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _join((reader, writer), await asyncio.open_unix_connection(str(path)))

        await asyncio.start_server(accept, "127.0.0.1", int(path.stem))

    for path in TASK_ROOT.glob("*.sock"):
        await listen(path)
    # Lambda starts the function when its extensions ask for the next event, which for this one never comes.
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
