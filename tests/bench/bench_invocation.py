"""Compare the first invocation of ``archive_export`` with that of a function that a user would write instead.

Both are measured from a cold start to the response in the container of ``sam local invoke``: the same image, layer and
runtime interface emulator, the memory of the function in ``template.yaml``, and one CPU. The emulator is started
without ``sam local``, which needs several seconds for each invocation. The source and S3 are simulated on the other
CPUs. All traffic is TLS on loopback.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import certifi
import trustme

from tests.bench.files import MIB, user
from tests.bench.invocation_server import BUCKET, JOB_ID, Network, serving

ROOT = Path(__file__).parents[2]
LAYER = ROOT / ".aws-sam/build/MeiboLayer"
EMULATORS = ".venv-sam/lib/python*/site-packages/samcli/local/rapid/aws-lambda-rie-x86_64"
# The second image is used if it exists, as in tests/e2e, because some machines cannot pull images.
LAMBDA_IMAGE, SUBSTITUTE_IMAGE = "public.ecr.aws/lambda/python:3.13", "lambda-python:3.13"
MEMORY_MB = 1769
TIMEOUT_SECONDS = 900
START_SECONDS = 60

ARCHIVE_EXPORT, PEER = "archive_export", "upload_fileobj"
FUNCTIONS = {
    ARCHIVE_EXPORT: ROOT / "functions/archive_export/app.py",
    PEER: ROOT / "tests/bench/peers/lambda_function.py",
}
# The targets: the maximum ratio to the time of the peer for a small file and for large files.
SMALL_MIB, MAX_RATIO_SMALL = 1, 1.15
LARGE_MIB, MAX_RATIO_LARGE = 60, 1.0
VERDICTS = {True: "reached", False: "**missed**"}
QUIET_LOAD_PER_CPU = 0.5
# A gzip member has about 1 MiB. The file repeats the same member.
USERS_PER_MEMBER = 17_000

# The handler that Lambda calls. The import runs in the init phase, as it does without this module.
TIMED = """\
import time
from {module} import handler as timed
def handler(event, context):
    began, cpu = time.time(), time.process_time()
    result = timed(event, context)
    return {{"began": began, "init_cpu": cpu, "cpu": time.process_time(), "result": result}}
"""


@dataclass(frozen=True)
class Invocation:
    """The seconds of a first invocation by phase, and its CPU seconds before the handler and in total."""

    init: float
    first_request: float
    copy: float
    manifest: float
    init_cpu: float
    cpu: float

    @property
    def total(self) -> float:
        """Seconds from the invocation to its response."""
        return self.init + self.first_request + self.copy + self.manifest


class Container:
    """Starts functions in Lambda containers on one CPU, each for one invocation."""

    def __init__(self, folder: Path, image: str, cpu: int, network: Network, port: int) -> None:
        self._folder = folder
        self._image = image
        self._cpu = cpu
        self._network = network
        self._port = port
        self._ports = free_ports(2)
        self._runs = 0

    def prepare(self) -> None:
        """Write the code folder of each function: the function, its timed handler and the trusted certificates."""
        (emulator,) = ROOT.glob(EMULATORS)
        shutil.copy(emulator, self._folder / "aws-lambda-rie")
        for name, path in FUNCTIONS.items():
            code = self._folder / name
            code.mkdir()
            shutil.copy(path, code)
            (code / "timed.py").write_text(TIMED.format(module=path.stem))

    def invoke(self, function: str, size: int) -> Invocation:
        """Invoke a function in a new container, and split the time by the requests that the function sends."""
        self._runs += 1
        self._network.requests.clear()
        with self._started(function) as url:
            posted = time.time()
            body = json.dumps(self._event(size)).encode()
            with urllib.request.urlopen(url, data=body, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310  # loopback
                payload = json.load(response)
            returned = time.time()
        if "began" not in payload:
            raise SystemExit(f"{function} failed: {json.dumps(payload)[:2000]}")
        requests = self._network.requests
        requested = min(request.arrived for request in requests if request.kind == "file")
        stored = max(request.responded for request in requests if request.kind == "stored")
        return Invocation(
            init=payload["began"] - posted,
            first_request=requested - payload["began"],
            copy=stored - requested,
            manifest=returned - stored,
            init_cpu=payload["init_cpu"],
            cpu=payload["cpu"],
        )

    def _event(self, size: int) -> dict[str, Any]:
        event: dict[str, Any] = json.loads((ROOT / "events/archive_export.auth0_users.json").read_text())
        host = f"localhost:{self._port}"
        event["export"] |= {"endpoint": host, "options": {"location_hosts": [host]}}
        event["export"]["job"]["id"] = f"{JOB_ID}-{size}"
        return event

    @contextmanager
    def _started(self, function: str) -> Iterator[str]:
        """Start the emulator, which starts the function's process when it receives the invocation."""
        name = f"meibo-bench-{os.getpid()}-{self._runs}"
        port, api_port = self._ports
        environment = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"https://localhost:{self._port}",
            "AWS_CA_BUNDLE": "/ca/ca.pem",
            "REQUESTS_CA_BUNDLE": "/ca/ca.pem",
            "SSL_CERT_FILE": "/ca/ca.pem",
            "AWS_LAMBDA_FUNCTION_NAME": function,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MEMORY_MB),
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(TIMEOUT_SECONDS),
            "AWS_LAMBDA_LOG_GROUP_NAME": "bench",
            "POWERTOOLS_SERVICE_NAME": "meibo",
            "MEIBO_BUCKET": BUCKET,
        }
        command = [
            *("docker", "run", "--rm", "--name", name, "--network", "host"),
            *("--cpuset-cpus", str(self._cpu), "--memory", f"{MEMORY_MB}m"),
            *("--volume", f"{self._folder / function}:/var/task:ro", "--volume", f"{LAYER}:/opt:ro"),
            *("--volume", f"{self._folder / 'ca'}:/ca:ro"),
            *("--volume", f"{self._folder / 'aws-lambda-rie'}:/var/rapid/aws-lambda-rie:ro"),
            *(text for variable in environment.items() for text in ("--env", "=".join(variable))),
            *("--entrypoint", "/var/rapid/aws-lambda-rie", self._image, "--log-level", "error"),
            *("--runtime-interface-emulator-address", f"127.0.0.1:{port}"),
            *("--runtime-api-address", f"127.0.0.1:{api_port}"),
            *("/var/runtime/bootstrap", "timed.handler"),
        ]
        log = self._folder / "container.log"
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file)
        try:
            wait_for(port, process, log)
            yield f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
        finally:
            subprocess.run(["docker", "kill", name], capture_output=True, check=False)
            process.wait(START_SECONDS)


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the emulator listens."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the container did not start: {log.read_text()[-2000:]}")
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Return free ports of loopback."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


def certify(folder: Path) -> None:
    """Write a certificate for localhost, and a file with its CA and the public CAs, which functions on AWS load too."""
    ca = trustme.CA()
    certificate = ca.issue_cert("localhost")
    (folder / "ca").mkdir()
    (folder / "ca/ca.pem").write_bytes(Path(certifi.where()).read_bytes() + ca.cert_pem.bytes())
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))


def users_member() -> bytes:
    """Return users as a gzip member."""
    chance = random.Random(2)
    people = (user(number, chance) for number in range(USERS_PER_MEMBER))
    lines = b"".join(json.dumps(person, ensure_ascii=False).encode() + b"\n" for person in people)
    return gzip.compress(lines, 6)


def find_image() -> str:
    """Return the image of the Lambda runtime. Raise SystemExit if the layer, Docker or the image is missing."""
    if not LAYER.exists() or not list(ROOT.glob(EMULATORS)):
        raise SystemExit("the layer is not built; run: make build")
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        raise SystemExit("no Docker engine responds; start one")
    inspected = subprocess.run(["docker", "image", "inspect", SUBSTITUTE_IMAGE], capture_output=True, check=False)
    return LAMBDA_IMAGE if inspected.returncode else SUBSTITUTE_IMAGE


def measure(
    container: Container, sizes: dict[int, int], rounds: int, seconds: float
) -> dict[tuple[int, str], list[Invocation]]:
    """Invoke both functions in turn for each size, until the number of rounds or the time limit is reached."""
    begun = time.monotonic()
    for function in FUNCTIONS:
        container.invoke(function, min(sizes.values()))  # The first invocation fills the page cache.
    invocations: dict[tuple[int, str], list[Invocation]] = {(size, name): [] for size in sizes for name in FUNCTIONS}
    for number in range(rounds):
        for mib, size in sizes.items():
            names = list(FUNCTIONS)
            for name in names if number % 2 == 0 else reversed(names):
                invocation = container.invoke(name, size)
                invocations[mib, name].append(invocation)
                print(f"  {mib} MiB, {name}: {invocation.total:.2f} s, CPU {invocation.cpu:.2f} s", flush=True)
        elapsed = time.monotonic() - begun
        if number + 1 < rounds and elapsed * (number + 2) / (number + 1) > seconds:
            print(f"stopped after {number + 1} of {rounds} rounds, because another round would exceed {seconds:.0f} s")
            break
    return invocations


def spread(values: list[float]) -> str:
    """Return a median with its range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def table(header: list[str], lines: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *lines])


def page(invocations: dict[tuple[int, str], list[Invocation]], load: float, cpus: int, *, shaped: bool) -> str:
    """Return the results as Markdown: the targets first, then the medians of each phase."""

    def median(mib: int, name: str, phase: str) -> float:
        values: list[float] = [getattr(invocation, phase) for invocation in invocations[mib, name]]
        return statistics.median(values)

    sizes = sorted({mib for mib, _ in invocations})
    targets, phases = [], []
    for mib in sizes:
        ratio = median(mib, ARCHIVE_EXPORT, "total") / median(mib, PEER, "total")
        target, verdict = "–", ""
        if mib >= LARGE_MIB:
            target, verdict = f"< {MAX_RATIO_LARGE}", VERDICTS[ratio < MAX_RATIO_LARGE]
        elif mib == SMALL_MIB:
            target, verdict = f"≤ {MAX_RATIO_SMALL}", VERDICTS[ratio <= MAX_RATIO_SMALL]
        cpu = median(mib, ARCHIVE_EXPORT, "cpu") / median(mib, PEER, "cpu")
        totals = [spread([invocation.total for invocation in invocations[mib, name]]) for name in FUNCTIONS]
        targets.append([str(mib), *totals, f"{ratio:.2f}", target, verdict, f"{cpu:.2f}"])
        phases += [
            [str(mib), name]
            + [
                f"{median(mib, name, phase):.2f}"
                for phase in ("init", "first_request", "copy", "manifest", "total", "init_cpu", "cpu")
            ]
            for name in FUNCTIONS
        ]
    rounds = min(map(len, invocations.values()))
    is_quiet = load < QUIET_LOAD_PER_CPU * cpus
    warning = "" if is_quiet else " **The machine was not quiet: the times are not comparable with other runs.**"
    network = (
        "each connection is limited to 80 MB/s each way, and a body is acknowledged after 60 ms"
        if shaped
        else "unlimited"
    )
    return f"""# First invocation

Generated by `make bench-invocation`; do not edit. {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.

- **Measured**: seconds from the invocation to the response in a new container, both functions in turn, {rounds} rounds,
  medians (ranges). Both functions use the same image, layer, network, memory ({MEMORY_MB} MB) and CPU (one).
- **`{PEER}`** is what a user would write instead, without any check: `tests/bench/peers/lambda_function.py`.
- **Network**: TLS on loopback; {network}.
- **Load** before the start: {load:.1f} on {cpus} CPUs.{warning}

{table(["MiB", f"`{ARCHIVE_EXPORT}` s", f"`{PEER}` s", "ratio", "target", "", "ratio of CPU"], targets)}

## Phases

`init` is the start of Python and the imports. `first request` ends when the request of the file arrives at the source.
`copy` ends when S3 has confirmed the object. `manifest` ends with the response of the function.

{table(["MiB", "function", "init", "first request", "copy", "manifest", "total", "CPU of init", "CPU"], phases)}
"""


def main() -> None:
    """Measure and print the results, and write them to a page if its path is specified."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1,10,60,600", help="MiB of the files, separated by commas")
    parser.add_argument("--rounds", type=int, default=7, help="maximum number of rounds")
    parser.add_argument("--seconds", type=float, default=270, help="time limit in seconds")
    parser.add_argument("--unlimited", action="store_true", help="do not limit the rate of the connections")
    parser.add_argument("--out", type=Path, help="also write the results to this file, as Markdown")
    arguments = parser.parse_args()
    image = find_image()
    load, cpus = os.getloadavg()[0], sorted(os.sched_getaffinity(0))
    print(f"load before the start: {load:.1f} on {len(cpus)} CPUs")
    if len(cpus) > 1:
        os.sched_setaffinity(0, cpus[1:])  # The servers run in this process, and the functions on the first CPU.
    member = users_member()
    sizes = {int(mib): round(int(mib) * MIB / len(member)) * len(member) for mib in arguments.sizes.split(",")}
    network = Network(member, shaped=not arguments.unlimited)
    with tempfile.TemporaryDirectory(prefix="meibo-bench-") as name:
        folder = Path(name)
        certify(folder)
        with serving(folder / "cert.pem", folder / "key.pem", network) as port:
            container = Container(folder, image, cpus[0], network, port)
            container.prepare()
            invocations = measure(container, sizes, arguments.rounds, arguments.seconds)
    text = page(invocations, load, len(cpus), shaped=network.shaped)
    print(f"\n{text}")
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
