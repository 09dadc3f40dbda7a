"""Measure runs with many exports on the local system: ``make bench-scale``.

Each function runs in separate processes, so that its CPU time, requests to AWS and peak memory can be measured. The
exports are those of hundreds of small sources, which one simulated tenant and one simulated domain serve. The exit
status is 1 if the cost per export of the largest run is more than 1.2 times that of the smallest run.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import boto3

from meibo.archive.keys import plan_key, report_key, run_manifest_key
from meibo_local.aws import LocalAws, local_aws
from meibo_local.lambda_service import InvocationResult, LambdaService, LocalFunction
from meibo_local.template import ROOT, of_type, read_template
from meibo_simulators import FIRST_CONNECTION, SECOND_CONNECTION, SimulatedDomain, SimulatedTenant, Simulators

MAX_RATIO: Final = 1.2
MIB: Final = 1024**2
# A pair of sources, one of each provider, has ten exports.
PAIR_EXPORTS: Final = 10
# An SSM parameter contains at most 8 KB.
PAIRS_PER_PARAMETER: Final = 5
ROW: Final = "{:<16} {:>12} {:>16} {:>16} {:>14} {:>14}"


@dataclass
class Usage:
    """The measurements of one function. ``peak_bytes`` is the peak memory of its largest process."""

    invocations: int = 0
    cpu_seconds: float = 0.0
    max_seconds: float = 0.0
    requests: int = 0
    peak_bytes: int = 0

    def add(self, reply: dict[str, Any]) -> None:
        """Add the measurement of one invocation."""
        self.invocations += 1
        self.cpu_seconds += reply["cpu_seconds"]
        self.requests += reply["requests"]
        self.max_seconds = max(self.max_seconds, reply["seconds"])
        self.peak_bytes = max(self.peak_bytes, reply["peak_bytes"])


class Worker:
    """A process that runs one function."""

    def __init__(self, function: LocalFunction, code_uri: str, handler: str, environment: dict[str, str], log: Path):
        self._log = log.open("a", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.scale_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env={**environment, **function.environment},
        )
        self._lines: tuple[IO[str], IO[str]] = (self._process.stdin, self._process.stdout)  # type: ignore[assignment]  # pipes
        setup = {name: getattr(function, name) for name in ("name", "arn", "memory_mb", "timeout_seconds")}
        self._write({**setup, "code_uri": code_uri, "handler": handler})

    def call(self, event: Any) -> dict[str, Any]:
        """Invoke the function once, and return its result with the measurement."""
        self._write(event)
        reply: dict[str, Any] = json.loads(self._lines[1].readline())
        return reply

    def stop(self) -> None:
        """End the process."""
        self._lines[0].close()
        self._process.wait()
        self._log.close()

    def _write(self, document: Any) -> None:
        self._lines[0].write(json.dumps(document) + "\n")
        self._lines[0].flush()


class MeasuredFunctions(LambdaService):
    """Invokes each function in warm processes, one for each concurrent invocation."""

    def __init__(self, functions: list[LocalFunction], environment: dict[str, str], log: Path) -> None:
        super().__init__(functions)
        self.usage: dict[str, Usage] = defaultdict(Usage)
        self._environment = environment
        self._log = log
        self._sources = of_type(read_template(), "AWS::Serverless::Function")
        self._idle: dict[str, queue.SimpleQueue[Worker]] = defaultdict(queue.SimpleQueue)
        self._workers: list[Worker] = []
        self._mutex = threading.Lock()

    def stop(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.stop()

    def _call(self, function: LocalFunction, event: Any) -> InvocationResult:
        idle = self._idle[function.logical_id]
        try:
            worker = idle.get_nowait()
        except queue.Empty:
            properties = self._sources[function.logical_id]["Properties"]
            worker = Worker(function, properties["CodeUri"], "app.handler", self._environment, self._log)
            self._workers.append(worker)
        reply = worker.call(event)
        idle.put(worker)
        with self._mutex:
            self.usage[function.logical_id].add(reply)
        return InvocationResult(reply["payload"], failed=reply["failed"])


@dataclass
class Measurement:
    """The measurements of a run."""

    exports: int
    wall_seconds: float
    usage: dict[str, Usage]
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def cpu_per_export(self) -> float:
        """CPU seconds of all functions per export."""
        return sum(usage.cpu_seconds for usage in self.usage.values()) / self.exports

    @property
    def requests_per_export(self) -> float:
        """Requests to AWS of all functions per export."""
        return sum(usage.requests for usage in self.usage.values()) / self.exports


@contextmanager
def simulators() -> Iterator[dict[str, Any]]:
    """Serve the simulators from a separate process; the value describes them."""
    command = [sys.executable, "-m", "tests.bench.scale", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield json.loads(process.stdout.readline())
        process.stdin.close()


def serve() -> None:
    """Serve a small tenant and a small domain until standard input is closed."""
    tenant, domain = SimulatedTenant("acme", users=20), SimulatedDomain("example", users=20)
    # Jobs are completed at once, because the waits between polls would dominate the measured time.
    tenant.switches.polls_until_completed = 0
    with Simulators([tenant], [domain]) as running:
        description = {
            "environment": running.environment(),
            "auth0": tenant.source(
                *(
                    {"dataset": "users", "format": format_, "connection_id": connection}
                    for format_ in ("ndjson", "csv")
                    for connection in (FIRST_CONNECTION, SECOND_CONNECTION)
                )
            ),
            "cybozu": domain.source(
                *(
                    {"dataset": dataset, "format": "csv"}
                    for dataset in ("users", "organizations", "groups", "titles", "user_organizations", "user_groups")
                )
            ),
            "credentials": {"auth0": tenant.credentials(), "cybozu": domain.credentials()},
        }
        print(json.dumps(description), flush=True)
        sys.stdin.read()


def configure(aws: LocalAws, description: dict[str, Any], pairs: int) -> None:
    """Write a configuration with two sources for each pair, and a secret for each source."""
    ssm, secrets = boto3.client("ssm"), boto3.client("secretsmanager")
    sources = []
    for pair in range(pairs):
        for kind, prefix in (("auth0", "tenant"), ("cybozu", "domain")):
            name = f"{prefix}-{pair:04}"
            secrets.create_secret(Name=f"meibo/{name}", SecretString=json.dumps(description["credentials"][kind]))
            sources.append({**description[kind], "name": name, "secret": f"meibo/{name}"})
    step = 2 * PAIRS_PER_PARAMETER
    for first in range(0, len(sources), step):
        name = f"{aws.configuration_parameter}/{first:05}"
        value = json.dumps({"sources": sources[first : first + step]}, separators=(",", ":"))
        ssm.put_parameter(Name=name, Value=value, Type="String", Tier="Advanced")


def measure(exports: int, log: Path) -> Measurement:
    """Execute a run with ``exports`` exports, and return its measurement."""
    with ExitStack() as stack:
        description = stack.enter_context(simulators())
        services: list[MeasuredFunctions] = []

        def functions(local: list[LocalFunction], endpoint: str) -> MeasuredFunctions:
            environment = {
                **os.environ,
                **description["environment"],
                "AWS_ENDPOINT_URL": endpoint,
                "PYTHONPATH": os.pathsep.join(str(ROOT / path) for path in ("layers/meibo", "src", ".")),
            }
            services.append(MeasuredFunctions(local, environment, log))
            stack.callback(services[0].stop)
            return services[0]

        aws = stack.enter_context(local_aws(environment=description["environment"], serve=functions))
        configure(aws, description, exports // PAIR_EXPORTS)
        start = time.monotonic()
        outcome = aws.tick(datetime.now(UTC))
        if outcome.failed or outcome.payload["not_created"]:
            raise SystemExit(f"create_exports failed: {json.dumps(outcome.payload)[:2000]}; see {log}")
        run_id = outcome.payload["run_id"]
        while aws.execution(run_id)["status"] == "RUNNING":
            time.sleep(0.2)
        seconds = time.monotonic() - start
        manifest = aws.read_json(run_manifest_key(run_id, 1))
        if manifest["counts"]["archived"] != exports:
            raise SystemExit(f"expected {exports} archived exports, found {manifest['counts']}; see {log}")
        keys = {"plan": plan_key(run_id, 1), "manifest": run_manifest_key(run_id, 1), "page": report_key(run_id, 1)}
        sizes = {name: len(aws.read(key)) for name, key in keys.items()}
        return Measurement(exports, seconds, dict(services[0].usage), sizes)


def show(measurement: Measurement) -> None:
    """Print one measurement."""
    count = measurement.exports
    print(
        f"\n{count:,} exports of {count // PAIR_EXPORTS * 2:,} sources: {measurement.wall_seconds:.0f} s,"
        f" {1000 * measurement.wall_seconds / count:.0f} ms per export (with the local workflow and the simulators)"
    )
    print(f"functions: {1000 * measurement.cpu_per_export:.1f} ms of CPU and", end=" ")
    print(f"{measurement.requests_per_export:.2f} requests to AWS per export")
    for name, size in measurement.sizes.items():
        print(f"{name}: {size:,} bytes, {size / count:,.0f} per export")
    print(ROW.format("function", "invocations", "CPU ms/export", "requests/export", "longest, s", "peak, MiB"))
    for name, usage in measurement.usage.items():
        print(
            ROW.format(
                name,
                f"{usage.invocations:,}",
                f"{1000 * usage.cpu_seconds / count:.2f}",
                f"{usage.requests / count:.2f}",
                f"{usage.max_seconds:.1f}",
                f"{usage.peak_bytes / MIB:.0f}",
            ),
            flush=True,
        )


def main() -> int:
    """Return 0 if the cost per export does not grow by more than MAX_RATIO."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exports", type=int, nargs="+", default=[200, 2_000, 10_000], help="exports of each run")
    parser.add_argument("--log", type=Path, default=Path(".local/bench-scale.log"), help="log file of the functions")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return 0
    options.log.parent.mkdir(parents=True, exist_ok=True)
    # moto logs an error for each JSON path that does not exist. The workflow branches on such paths.
    logging.getLogger("moto").setLevel(logging.CRITICAL)
    # A worker of moto's distributed map is recursive, and the depth is the number of exports.
    sys.setrecursionlimit(100_000)
    measurements = []
    for exports in options.exports:
        measurements.append(measure(exports, options.log))
        show(measurements[-1])
    fewest, most = measurements[0], measurements[-1]
    flat = True
    print()
    for name in ("cpu_per_export", "requests_per_export"):
        ratio = getattr(most, name) / getattr(fewest, name)
        flat &= ratio <= MAX_RATIO
        print(f"{name}: {ratio:.2f} × from {fewest.exports:,} to {most.exports:,} exports (at most {MAX_RATIO} ×)")
    print(f"load average: {os.getloadavg()[0]:.1f}")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
