"""Compare the copy with other programs on this machine, and write docs/performance.md.

``make bench`` runs it in a separate environment. It sends traffic to loopback only, and removes its files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.contenders import CONTENDERS, ENVIRONMENT, ROOT, WARM_CONTENDERS
from tests.bench.costs import transitions
from tests.bench.imports import imports
from tests.bench.measure import GIB, MIB, Series, run
from tests.bench.report import Results, show, write
from tests.bench.servers import running

if TYPE_CHECKING:
    from tests.bench.contenders import Contender
    from tests.bench.servers import Servers

DISK_SPARE = 12 * GIB
LARGE = 20 * GIB
# The compressed export of a million users.
SMALL = 59 * MIB
# More runs, because a copy takes less than a second.
SMALL_ROUNDS = 5
# On a busy machine, the results depend on the other programs.
MAX_LOAD = 0.5


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=float, default=1, help="size of the file in GiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", default="shaped,unlimited,small,seaweed,decode,memory,imports", help="the measurements"
    )
    parser.add_argument(
        "--peers", default="", help="only contenders whose name contains one of these words, separated by commas"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs/performance.md")
    parser.add_argument("--no-write", action="store_true")
    return parser.parse_args()


class Bench:
    """Runs contenders one after the other, round by round."""

    def __init__(self, servers: Servers, size: int, digest: str, contenders: list[Contender]) -> None:
        self.servers = servers
        self.size = size
        self.digest = digest
        self.contenders = contenders
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            **ENVIRONMENT,
            "AWS_CA_BUNDLE": str(servers.ca),
            "PYTHONPATH": str(ROOT / "layers/meibo"),
        }
        self.number = 0

    def one(
        self, contender: Contender, series: Series, source: str, sink: str, cpus: str | None, file: str = "noise"
    ) -> None:
        """Add one run. A failure is reported, and the contender is run again in the next round."""
        self.number += 1
        command = contender.line(source=source, sink=sink, ca=self.servers.ca, file=file, key=f"bench-{self.number}")
        before = self.servers.cpu()
        try:
            done = run(command, self.environment, cpus, seconds=60 + self.size / MIB / 5)
        except RuntimeError as error:
            series.failure = str(error)
            print(f"  {contender.name}: {error}", file=sys.stderr)
            return
        if contender.sha256 and file == "noise" and self.digest not in done.output:
            raise SystemExit(f"{contender.name} expected the SHA-256 of the file, found a different SHA-256")
        series.runs.append(replace(done, servers=self.servers.cpu() - before))
        print(
            f"  {contender.name:24} {series.rates[-1]:8.0f} MiB/s {done.cpu * GIB / self.size:6.2f} CPU s/GiB",
            flush=True,
        )

    def compare(
        self, source: str, sink: str, cpus: str | None, rounds: int, *, s3_only: bool = False
    ) -> dict[str, Series]:
        """Run all contenders in turn. Each round begins with the next contender."""
        rows = [contender for contender in self.contenders if contender.s3 or not s3_only]
        all_series = {contender.name: Series(self.size) for contender in rows}
        for number in range(rounds):
            print(f" round {number + 1}")
            for contender in rows[number % len(rows) :] + rows[: number % len(rows)]:
                self.one(contender, all_series[contender.name], source, sink, cpus)
        return all_series


def make(path: Path, what: str, size: int) -> Any:
    """Write a file in a separate process, and return the JSON document that the process prints."""
    command = [sys.executable, str(Path(__file__).parent / "files.py"), str(path), what, str(size)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def decode(bench: Bench, folder: Path, rounds: int, results: Results) -> None:
    """Copy users in each format, with and without decoding and counting rows."""
    ours = next(contender for contender in CONTENDERS if contender.ours)
    for form in ("ndjson", "csv"):
        path = folder / "files" / f"users.{form}.gz"
        users, expanded = make(path, form, min(bench.size, GIB))
        size = path.stat().st_size
        results.bytes_per_user[form], results.expansion[form] = size / users, expanded / size
        for flag in ("", " --no-decode"):
            results.decode[form, not flag] = Series(size)
        for _ in range(rounds):
            for flag in ("", " --no-decode"):
                line = type(ours)(**{**vars(ours), "command": f"{ours.command} --format {form}{flag}", "sha256": False})
                series = results.decode[form, not flag]
                bench.one(line, series, bench.servers.source, bench.servers.sink, None, path.name)
                rows = json.loads(series.runs[-1].output)["rows"] if series.runs else None
                if not flag and rows != users - (form == "csv"):  # one line is the header
                    raise SystemExit(f"expected the rows of {users} {form} users, counted {rows} rows")
        path.unlink()


def main() -> None:
    arguments = parse()
    transitions(0)  # fails early if the workflow has changed
    load = os.getloadavg()[0]
    if load > MAX_LOAD * len(os.sched_getaffinity(0)):
        print(
            f"the load of this machine is {load:.1f}, so the results will vary; wait until the machine is idle",
            file=sys.stderr,
        )
    only = set(arguments.only.split(","))
    names = [name for name in arguments.peers.split(",") if name]
    contenders = [c for c in CONTENDERS if c.ours or not names or any(name in c.name for name in names)]
    size = int(arguments.size * GIB)
    folder = Path(tempfile.mkdtemp(prefix="meibo-bench-"))
    folder.chmod(0o755)  # nginx reads the files as an unprivileged user if root starts it
    needed = size * (len(contenders) + 1 if "seaweed" in only else 2) + DISK_SPARE
    if shutil.disk_usage(folder).free < needed:
        raise SystemExit(
            f"expected {needed / GIB:.0f} GiB of free space in {folder.parent}, found less; set TMPDIR, or omit seaweed"
        )
    results = Results(size=size, rounds=arguments.rounds)

    def save() -> None:
        """Write the results so far."""
        if not arguments.no_write:
            write(results, arguments.out)

    try:
        (folder / "files").mkdir()
        noise = folder / "files" / "noise"
        digest = make(noise, "noise", size)
        cpus = sorted(os.sched_getaffinity(0))
        results.servers_share = len(cpus) < 2
        if "unlimited" in only:
            # The client runs on one CPU, and the servers on the other CPUs.
            rest = ",".join(map(str, cpus[1:] or cpus))
            print("unlimited network, null sink, one CPU")
            with running(folder, rest, weed=False) as servers:
                bench = Bench(servers, size, digest, contenders)
                results.unlimited = bench.compare(servers.source, servers.sink, str(cpus[0]), arguments.rounds)
            save()
        with running(folder, None, weed=False) as servers:
            bench = Bench(servers, size, digest, contenders)
            if "shaped" in only:
                print("shaped network: 80 MB/s per connection in each direction, 60 ms to acknowledge")
                results.shaped = bench.compare(servers.shaped_source, servers.shaped_sink, None, arguments.rounds)
                save()
            if "small" in only:
                print("59 MiB, shaped network, warm process")
                with (folder / "files" / "small").open("wb") as file, noise.open("rb") as source:
                    file.write(source.read(SMALL))
                small = Bench(servers, SMALL, digest, WARM_CONTENDERS)
                results.small = {contender.name: Series(SMALL) for contender in WARM_CONTENDERS}
                for _ in range(SMALL_ROUNDS):
                    for contender in WARM_CONTENDERS:
                        series = results.small[contender.name]
                        small.one(contender, series, servers.shaped_source, servers.shaped_sink, None, "small")
                save()
            if "decode" in only:
                print("decoding and counting rows")
                decode(bench, folder, arguments.rounds, results)
            if "memory" in only:
                print("a slow sink")
                ours = next(contender for contender in contenders if contender.ours)
                results.slow = Series(size)
                bench.one(ours, results.slow, servers.source, servers.slow_sink, None)
                print(f"{LARGE // GIB} GiB")
                with (folder / "files" / "large").open("wb") as file:
                    file.truncate(LARGE)  # a sparse file, which needs no disk space
                large = Bench(servers, LARGE, digest, contenders)
                results.large = Series(LARGE)
                large.one(ours, results.large, servers.source, servers.sink, None, "large")
        if "imports" in only:
            print("imports")
            results.imports = imports(folder, max(7, arguments.rounds))
        save()
        if "seaweed" in only:
            print("SeaweedFS")
            results.seaweed = {}
            for _ in range(arguments.rounds):
                with running(folder, None, weed=True) as servers:
                    bench = Bench(servers, size, digest, contenders)
                    assert servers.weed is not None
                    for name, series in bench.compare(servers.source, servers.weed, None, 1, s3_only=True).items():
                        results.seaweed.setdefault(name, Series(size)).runs.extend(series.runs)
                        results.seaweed[name].failure = series.failure
                save()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(results)
    save()


if __name__ == "__main__":
    main()
