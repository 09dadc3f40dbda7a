"""Run a command, and measure its duration, CPU time and peak memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True)
class Run:
    """The duration of a run, its CPU seconds and those of the servers, and the peak memory of its largest process."""

    seconds: float
    cpu: float
    rss: int
    output: str
    servers: float = 0.0


@dataclass
class Series:
    """The runs of one contender."""

    size: int
    runs: list[Run] = field(default_factory=list)
    failure: str | None = None

    @property
    def rates(self) -> list[float]:
        """The MiB per second of each run."""
        return [self.size / MIB / run.seconds for run in self.runs]

    @property
    def rate(self) -> float:
        """The median MiB per second."""
        return statistics.median(self.rates) if self.runs else 0.0

    @property
    def cpu(self) -> float:
        """The median CPU seconds per GiB."""
        return statistics.median(run.cpu for run in self.runs) / (self.size / GIB)

    @property
    def servers(self) -> float:
        """The median CPU seconds per GiB of the servers."""
        return statistics.median(run.servers for run in self.runs) / (self.size / GIB)

    def printed(self, name: str) -> float:
        """Return the median of a number in the JSON document that the command prints."""
        return statistics.median(float(json.loads(run.output)[name]) for run in self.runs)

    @property
    def rss(self) -> float:
        """The highest peak memory in MiB."""
        return max(run.rss for run in self.runs) / MIB


def run(command: str, environment: Mapping[str, str], cpus: str | None, seconds: float) -> Run:
    """Run a shell command. Raise RuntimeError if it fails or takes longer than ``seconds``."""
    pinned = ["taskset", "-c", cpus] if cpus else []
    shell = [*pinned, "timeout", str(seconds), "bash", "-o", "pipefail", "-c", command]
    start = time.perf_counter()
    process = subprocess.Popen(shell, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(environment))
    output, errors = process.stdout, process.stderr
    assert output is not None
    assert errors is not None
    printed, messages = output.read(), errors.read()
    _, status, usage = os.wait4(process.pid, 0)
    duration = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(
            f"{command.split(maxsplit=1)[0]} ended with {process.returncode}: {messages.decode()[-500:]}"
        )
    return Run(duration, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, printed.decode())


def spread(values: Iterable[float], digits: int = 0) -> str:
    """Return a median with its range."""
    values = list(values)
    if not values:
        return "–"
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"
