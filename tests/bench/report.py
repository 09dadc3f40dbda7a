"""Print the results, and write docs/performance.md."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tests.bench import costs
from tests.bench.contenders import CONTENDERS
from tests.bench.measure import GIB, MIB, Series, spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.bench.contenders import Contender
    from tests.bench.imports import Import

COLUMNS = ["", "MiB/s, median (range)", "× fastest peer", "CPU s/GiB", "servers' CPU", "peak RSS MiB", "checks"]


@dataclass
class Results:
    """The measurements."""

    size: int
    rounds: int
    servers_share: bool = False
    shaped: dict[str, Series] | None = None
    small: dict[str, Series] | None = None
    unlimited: dict[str, Series] | None = None
    seaweed: dict[str, Series] | None = None
    decode: dict[tuple[str, bool], Series] = field(default_factory=dict)
    bytes_per_user: dict[str, float] = field(default_factory=dict)
    expansion: dict[str, float] = field(default_factory=dict)
    slow: Series | None = None
    large: Series | None = None
    imports: list[Import] = field(default_factory=list)

    @property
    def networks(self) -> list[tuple[str, dict[str, Series]]]:
        """The comparisons with results, and their titles."""
        named = [
            ("Shaped network: 80 MB/s per connection each way, 60 ms to acknowledge a part", self.shaped),
            ("Unlimited, null sink, one CPU for the client", self.unlimited),
            ("Unlimited, SeaweedFS", self.seaweed),
        ]
        return [(name, series) for name, series in named if series]


def measured(series: dict[str, Series]) -> list[tuple[Contender, Series]]:
    """Return the contenders with at least one run, in the order of their rates. The minimum is last."""
    pairs = [(c, series[c.name]) for c in CONTENDERS if c.name in series and series[c.name].runs]
    return sorted(pairs, key=lambda pair: (pair[0].floor, -pair[1].rate))


def peers_of(
    series: dict[str, Series], *, sha256: bool = False, single: bool = False
) -> list[tuple[Contender, Series]]:
    """Return the peers, optionally only those that compute SHA-256 or use one stream."""
    return [
        (contender, runs)
        for contender, runs in measured(series)
        if not contender.ours
        and not contender.floor
        and (contender.sha256 or not sha256)
        and (contender.streams == 1 or not single)
    ]


def fastest(series: dict[str, Series], *, sha256: bool = False, single: bool = False) -> Series | None:
    """Return the runs of the fastest peer, or None. The options are those of ``peers_of``."""
    peers = (runs for _, runs in peers_of(series, sha256=sha256, single=single))
    return max(peers, key=lambda runs: runs.rate, default=None)


def rows(series: dict[str, Series]) -> list[list[str]]:
    """Return the rows of a comparison."""
    best = fastest(series)
    lines = []
    for contender, runs in measured(series):
        ratio = f"{runs.rate / best.rate:.2f}" if best else "–"
        spent = [f"{runs.cpu:.2f}", f"{runs.servers:.2f}", f"{runs.rss:.0f}"]
        lines.append([contender.name, spread(runs.rates), ratio, *spent, contender.verifies])
    lines += [[name, "failed", *["–"] * (len(COLUMNS) - 2)] for name, runs in series.items() if not runs.runs]
    return lines


def ours(series: dict[str, Series] | None) -> Series | None:
    """Return the runs of Meibo in a comparison."""
    runs = (series or {}).get("meibo")
    return runs if runs and runs.runs else None


def verdict(met: bool) -> str:
    return "reached" if met else "**missed**"


def targets(results: Results) -> list[list[str]]:
    """Return the rows of the targets: comparison, target, measurement, and whether the target is reached."""
    lines: list[list[str]] = []

    def at_least(name: str, minimum: float, value: float) -> None:
        lines.append([name, f"≥ {minimum:g} ×", f"{value:.2f} ×", verdict(value >= minimum)])

    def at_most(name: str, maximum: float, value: float) -> None:
        lines.append([name, f"≤ {maximum:g} ×", f"{value:.2f} ×", verdict(value <= maximum)])

    mine, peers = ours(results.unlimited), results.unlimited or {}
    hashing, best = fastest(peers, sha256=True), fastest(peers)
    if mine and hashing and best:
        cheapest = min(series.cpu for _, series in peers_of(peers, sha256=True))
        at_most("one CPU: time, to the fastest peer that computes SHA-256", 1, hashing.rate / mine.rate)
        at_most("one CPU: CPU, to the cheapest peer that computes SHA-256", 1, mine.cpu / cheapest)
        warm = mine.printed("cpu") / (mine.size / GIB)
        at_most("one CPU: CPU without the start of Meibo's process, to this peer", 1, warm / cheapest)
        at_most("one CPU: time, to the fastest peer", 1.05, best.rate / mine.rate)
    mine, peers = ours(results.shaped), results.shaped or {}
    if mine:
        rclone = peers.get("rclone, 16 streams")
        single = fastest(peers, single=True)
        if rclone and rclone.runs:
            warm = mine.size / MIB / mine.printed("seconds")
            at_least("shaped network: rate, to rclone with 16 streams", 0.95, mine.rate / rclone.rate)
            at_least("shaped network: rate without the start of Meibo's process, to rclone", 0.95, warm / rclone.rate)
        if single:
            at_least("shaped network: rate, to the fastest peer with one stream", 3, mine.rate / single.rate)
    small = {name: series for name, series in (results.small or {}).items() if series.runs}
    if {"meibo, warm", "boto3 upload_fileobj, warm"} <= set(small):
        boto3 = small["boto3 upload_fileobj, warm"].printed("seconds")
        at_least(
            "59 MiB, shaped network, warm process: rate, to boto3", 2, boto3 / small["meibo, warm"].printed("seconds")
        )
    on = results.decode.get(("ndjson", True))
    if on and on.runs:
        met = verdict(on.rate >= 150)
        lines.append(
            ["decoding NDJSON and counting rows, 2 CPUs", "≥ 150 MiB/s compressed", f"{on.rate:.0f} MiB/s", met]
        )
    others = [("slow sink", results.slow), ("20 GiB", results.large)]
    peaks = {"1 GiB": max((run.rss for run in (ours(results.shaped), ours(results.unlimited)) if run), default=0)}
    peaks |= {name: series.rss for name, series in others if series and series.runs}
    if max(peaks.values()):
        text = ", ".join(f"{name} {peak:.0f}" for name, peak in peaks.items() if peak)
        lines.append(["peak memory", "≤ 200 MiB", f"{text} MiB", verdict(max(peaks.values()) <= 200)])
    return lines


def import_rows(results: Results) -> list[list[str]]:
    """Return the rows of the imports."""
    return [
        [
            function.name,
            f"{function.compiled:.0f}",
            f"{function.ratio:.2f}",
            f"{function.source:.0f}",
            f"{function.source / function.compiled:.2f}",
        ]
        for function in results.imports
    ]


def cost_rows(results: Results) -> list[list[str]]:
    """Return the duration and cost of an export on one vCPU, from the CPU time of the more expensive format."""
    spent = [series.cpu for (_, on), series in results.decode.items() if on and series.runs]
    if not spent:
        return []
    rate, size = GIB / MIB / max(spent), max(results.bytes_per_user.values())
    lines = []
    for users in costs.USERS:
        cost = costs.cost(users, size, rate)
        lines.append(
            [
                f"{users:,}",
                f"{cost.bytes / MIB:,.0f}",
                f"{cost.seconds:,.0f}",
                f"{cost.usd:.4f}",
                f"{cost.usd * 365:.2f}",
            ]
        )
    return lines


def machine() -> str:
    """Return a description of the machine."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    load = os.getloadavg()[0]
    return f"{model}, {os.cpu_count()} CPUs, {memory:.0f} GiB; Linux {platform.release()}; load at the end {load:.1f}"


def small_rows(results: Results) -> list[list[str]]:
    """Return the rows of the copies of a small file in a warm process."""
    return [
        [name, f"{series.size / MIB / series.printed('seconds'):.0f}", f"{series.printed('seconds'):.2f}"]
        for name, series in (results.small or {}).items()
        if series.runs
    ]


def tables(results: Results) -> Iterable[tuple[str, Sequence[str], list[list[str]]]]:
    """Yield the tables: title, header and rows."""
    if lines := cost_rows(results):
        yield (
            "Duration and cost of one export",
            ["users", "MiB compressed", "seconds of archive_export", "USD per run", "USD per year, daily"],
            lines,
        )
    yield "Targets", ["measurement", "target", "result", ""], targets(results)
    for name, series in results.networks:
        yield name, COLUMNS, rows(series)
    if results.small:
        yield "59 MiB (a million users), shaped network, warm process", ["", "MiB/s", "seconds"], small_rows(results)
    if results.decode:
        header = [
            "users as",
            "decoding",
            "MiB/s compressed",
            "CPU s/GiB",
            "peak RSS MiB",
            "× expanded",
            "bytes per user",
        ]
        lines = [
            [
                form,
                "on" if on else "off",
                spread(series.rates),
                f"{series.cpu:.2f}",
                f"{series.rss:.0f}",
                f"{results.expansion[form]:.1f}",
                f"{results.bytes_per_user[form]:.0f}",
            ]
            for (form, on), series in results.decode.items()
            if series.runs
        ]
        yield "Decoding and counting rows, all CPUs, null sink", header, lines
    if results.imports:
        header = [
            "imports and one S3 client",
            "CPU ms with bytecode",
            "× boto3",
            "without bytecode",
            "bytecode saves ×",
        ]
        yield "Imports", header, import_rows(results)


def show(results: Results) -> None:
    """Print the tables."""
    console = Console()
    for title, header, lines in tables(results):
        table = Table(title=title, title_justify="left")
        for column in header:
            table.add_column(column, overflow="fold")
        for line in lines:
            table.add_row(*line)
        console.print(table)


def markdown(header: Sequence[str], lines: list[list[str]]) -> str:
    """Return a table in Markdown."""
    text = [[cell.replace("|", "\\|") for cell in line] for line in [list(header), *lines]]
    rule = ["---"] * len(header)
    return "\n".join("| " + " | ".join(line) + " |" for line in [text[0], rule, *text[1:]])


def write(results: Results, path: Path) -> None:
    """Write docs/performance.md."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False, cwd=path.parent
    ).stdout.strip()
    text = (Path(__file__).parent / "performance.head.md").read_text()
    text = text.format(
        size=f"{results.size / GIB:g}",
        rounds=results.rounds,
        machine=machine(),
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        commit=commit,
        python=platform.python_version(),
        ready=costs.transitions(0),
        polled=costs.transitions(3),
        noise=noise(results),
    )
    for title, header, lines in tables(results):
        text += f"\n## {title}\n\n{markdown(header, lines)}\n"
    path.write_text(text)
    print(f"written to {path}")


def noise(results: Results) -> str:
    """Return the spread of the runs of a contender, which shows the influence of other programs on the machine."""
    spreads = [
        max(runs.rates) / min(runs.rates)
        for _, series in results.networks
        for runs in series.values()
        if len(runs.runs) > 1
    ]
    if not spreads:
        return "not known from single runs"
    return (
        f"the fastest run of a contender is {statistics.median(spreads):.2f} × its slowest (median of all contenders)"
    )
