"""One table on the terminal, and docs/performance.md."""

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

COLUMNS = ["", "MiB/s, median (range)", "× fastest peer", "CPU s/GiB", "servers'", "peak RSS MiB", "what it verified"]


@dataclass
class Results:
    """Everything that was measured."""

    size: int
    rounds: int
    servers_share: bool = False
    shaped: dict[str, Series] | None = None
    unlimited: dict[str, Series] | None = None
    seaweed: dict[str, Series] | None = None
    decode: dict[tuple[str, bool], Series] = field(default_factory=dict)
    bytes_a_user: dict[str, float] = field(default_factory=dict)
    expansion: dict[str, float] = field(default_factory=dict)
    slow: Series | None = None
    large: Series | None = None
    imports: list[Import] = field(default_factory=list)

    @property
    def networks(self) -> list[tuple[str, dict[str, Series]]]:
        """The comparisons that were made, with what to call them."""
        named = [
            ("Shaped: 80 MB/s a connection each way, 60 ms to acknowledge a part", self.shaped),
            ("Unlimited, null sink, one CPU for the client", self.unlimited),
            ("Unlimited, SeaweedFS", self.seaweed),
        ]
        return [(name, series) for name, series in named if series]


def measured(series: dict[str, Series]) -> list[tuple[Contender, Series]]:
    """The contenders that have at least one run, fastest first, the floor last."""
    found = [(c, series[c.name]) for c in CONTENDERS if c.name in series and series[c.name].runs]
    return sorted(found, key=lambda pair: (pair[0].floor, -pair[1].rate))


def fastest(series: dict[str, Series], *, sha256: bool = False, single: bool = False) -> Series | None:
    """The fastest peer, of all or of those that compute SHA-256 or use one stream."""
    peers = [
        runs
        for contender, runs in measured(series)
        if not contender.ours
        and not contender.floor
        and (contender.sha256 or not sha256)
        and (contender.streams == 1 or not single)
    ]
    return max(peers, key=lambda runs: runs.rate, default=None)


def rows(series: dict[str, Series]) -> list[list[str]]:
    """Write one comparison as rows of text."""
    best = fastest(series)
    lines = []
    for contender, runs in measured(series):
        ratio = f"{runs.rate / best.rate:.2f}" if best else "–"
        spent = [f"{runs.cpu:.2f}", f"{runs.servers:.2f}", f"{runs.rss:.0f}"]
        lines.append([contender.name, spread(runs.rates), ratio, *spent, contender.verifies])
    lines += [[name, "failed", *["–"] * (len(COLUMNS) - 2)] for name, runs in series.items() if not runs.runs]
    return lines


def ours(series: dict[str, Series] | None) -> Series | None:
    """Our own runs in a comparison."""
    found = (series or {}).get("meibo")
    return found if found and found.runs else None


def verdict(met: bool) -> str:
    return "reached" if met else "**missed**"


def targets(results: Results) -> list[list[str]]:
    """Hold what was measured against the targets."""
    lines = []
    mine, peers = ours(results.shaped), results.shaped or {}
    many, single = fastest(peers), fastest(peers, single=True)
    if mine and many and single:
        to_many, to_single = mine.rate / many.rate, mine.rate / single.rate
        lines.append(
            ["shaped, fastest peer of up to 16 streams", "≥ 1.5 ×", f"{to_many:.2f} ×", verdict(to_many >= 1.5)]
        )
        lines.append(["shaped, every single-stream peer", "≥ 4 ×", f"{to_single:.2f} ×", verdict(to_single >= 4)])
        cpus = len(os.sched_getaffinity(0))
        most = cpus * GIB / MIB / (many.cpu + many.servers)
        text = f"{most:.0f} MiB/s for that peer, which had {many.rate:.0f}"
        lines.append([f"shaped, what {cpus} CPUs allow when never idle", "", text, f"{most / many.rate:.2f} ×"])
    mine, hashing = ours(results.unlimited), fastest(results.unlimited or {}, sha256=True)
    if mine and hashing:
        wall = hashing.rate / mine.rate
        lines.append(
            ["one CPU: wall to the fastest peer with SHA-256", "≤ 0.9 ×", f"{wall:.2f} ×", verdict(wall <= 0.9)]
        )
        least = min(run.cpu for run in mine.runs) / (mine.size / GIB)
        floor = (results.unlimited or {}).get("curl | curl")
        beside = f"; curl to curl, which digests nothing: {floor.cpu:.2f}" if floor and floor.runs else ""
        alone = mine.told("cpu") / (mine.size / GIB)
        text = f"{mine.cpu:.2f} (least {least:.2f}{beside})"
        lines.append(["one CPU: CPU s a GiB, start and imports included", "≤ 2.7", text, verdict(mine.cpu <= 2.7)])
        lines.append(["one CPU: CPU s a GiB of the copy alone", "≤ 2.7", f"{alone:.2f}", verdict(alone <= 2.7)])
    if results.large and results.large.runs:
        all_cpus = results.large.cpu
        lines.append(["20 GiB, all CPUs: CPU s a GiB", "≤ 2.7", f"{all_cpus:.2f}", verdict(all_cpus <= 2.7)])
    for form in ("ndjson", "csv"):
        on, off = results.decode.get((form, True)), results.decode.get((form, False))
        if on and off and on.runs and off.runs:
            text = f"{on.rate:.0f} MiB/s, {on.rate / off.rate:.2f} × decoding off"
            lines.append([f"decoding {form} and counting its rows", "≥ 75 MiB/s", text, verdict(on.rate >= 75)])
    peaks = [found.rss for found in (ours(results.shaped), ours(results.unlimited), ours(results.seaweed)) if found]
    others = [
        (name, series)
        for name, series in (("slow sink", results.slow), ("20 GiB", results.large))
        if series and series.runs
    ]
    if peaks:
        most = max([*peaks, *(series.rss for _, series in others)])
        text = ", ".join([f"{max(peaks):.0f} MiB", *(f"{name} {series.rss:.0f}" for name, series in others)])
        lines.append(["peak RSS", "≤ 200 MiB", text, verdict(most <= 200)])
    lines += [
        [f"imports of {found.name}", "≤ 1.25 ×", f"{found.ratio:.2f} ×", verdict(found.ratio <= 1.25)]
        for found in results.imports[1:]
    ]
    return lines


def import_rows(results: Results) -> list[list[str]]:
    """Write the imports as rows of text."""
    return [
        [
            found.name,
            f"{found.compiled:.0f}",
            f"{found.ratio:.2f}",
            f"{found.source:.0f}",
            f"{found.source / found.compiled:.2f}",
        ]
        for found in results.imports
    ]


def cost_rows(results: Results) -> list[list[str]]:
    """Write what a run takes on one vCPU, from the CPU time of the costlier format."""
    spent = [series.cpu for (_, on), series in results.decode.items() if on and series.runs]
    if not spent:
        return []
    rate, size = GIB / MIB / max(spent), max(results.bytes_a_user.values())
    lines = []
    for users in costs.USERS:
        cost = costs.cost(users, size, rate)
        lines.append([f"{users:,}", f"{cost.bytes / MIB:,.0f}", f"{cost.seconds:,.0f}", f"{cost.usd:.4f}"])
    return lines


def machine() -> str:
    """Name the machine."""
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


def tables(results: Results) -> Iterable[tuple[str, Sequence[str], list[list[str]]]]:
    """Everything as titled tables."""
    yield "Targets", ["target", "wanted", "measured", ""], targets(results)
    for name, series in results.networks:
        yield name, COLUMNS, rows(series)
    if results.decode:
        header = ["users as", "decoding", "MiB/s compressed", "CPU s/GiB", "peak RSS MiB", "× expanded", "bytes a user"]
        lines = [
            [
                form,
                "on" if on else "off",
                spread(series.rates),
                f"{series.cpu:.2f}",
                f"{series.rss:.0f}",
                f"{results.expansion[form]:.1f}",
                f"{results.bytes_a_user[form]:.0f}",
            ]
            for (form, on), series in results.decode.items()
            if series.runs
        ]
        yield "Decoding to the trailer and counting rows, all CPUs, null sink", header, lines
    if results.imports:
        header = ["imports + one S3 client", "CPU ms with bytecode", "× boto3", "without", "bytecode saves ×"]
        yield "Imports", header, import_rows(results)
    if lines := cost_rows(results):
        yield "One run of one export", ["users", "MiB compressed", "seconds of archive_export", "USD"], lines


def show(results: Results) -> None:
    """Print it."""
    console = Console()
    for title, header, lines in tables(results):
        table = Table(title=title, title_justify="left")
        for column in header:
            table.add_column(column, overflow="fold")
        for line in lines:
            table.add_row(*line)
        console.print(table)


def markdown(header: Sequence[str], lines: list[list[str]]) -> str:
    """Write a table for a page."""
    text = [[cell.replace("|", "\\|") for cell in line] for line in [list(header), *lines]]
    rule = ["---"] * len(header)
    return "\n".join("| " + " | ".join(line) + " |" for line in [text[0], rule, *text[1:]])


def write(results: Results, path: Path) -> None:
    """Write the page."""
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
    """Return the spread of the runs of one contender, which shows the influence of other work on the machine."""
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
