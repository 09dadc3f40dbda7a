"""Measure how fast large archives are verified, compared and previewed: ``make bench-read``, with 1,000,000 users.

Each command runs in a separate process, whose time and peak memory are measured. The exit status is 1 if a command
takes a minute or more, or uses 1 GiB of memory or more.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from isal import igzip

from meibo.archive.keys import ExportAddress
from meibo.providers.auth0.fields import DEFAULT_FIELDS
from meibo_local.template import ROOT
from meibo_simulators.auth0.export_rows import Field, Layout
from meibo_simulators.profiles import auth0_user
from tests.support.archives import EARLIER, RUN, USERS, USERS_CSV, ArchiveBuilder, FolderArchive

MAX_SECONDS = 60
# Commands that a user could run instead. They do not report changed fields, and do not compare rows by their key.
DUCKDB = """
import duckdb, sys
for minuend, subtrahend in ((sys.argv[1], sys.argv[2]), (sys.argv[2], sys.argv[1])):
    query = "SELECT count(*) FROM (SELECT json FROM {} EXCEPT ALL SELECT json FROM {})"
    files = (f"read_ndjson_objects('{path}')" for path in (minuend, subtrahend))
    print(duckdb.sql(query.format(*files)).fetchall())
"""
COMM = 'comm -3 <(gunzip -c "$0" | LC_ALL=C sort) <(gunzip -c "$1" | LC_ALL=C sort) | wc -l'
MAX_BYTES = 1024**3
BLOCK = 20_000
MARK = "(the id)"


def person(number: int) -> dict[str, Any]:
    """Return a user whose id, e-mail address and identity contain the placeholder."""
    user = auth0_user(1, number, "c")
    (identity,) = user["identities"]
    return {
        **{name: user[name] for name in user if name not in ("username", "phone_number")},
        "user_id": f"auth0|{MARK}",
        "email": f"{MARK}@example.jp",
        "identities": [{**identity, "user_id": MARK}],
    }


def lines(format: str, count: int, *, later: bool) -> Iterator[bytes]:
    """Yield the lines of an export. A CSV begins with a header.

    In the later run, one in 50 users is changed, one in 1,000 is replaced by a new user, and the order is reversed.
    """
    layout = Layout(format, tuple(Field(**field) for field in DEFAULT_FIELDS[format]))
    # The same 2,000 profiles are repeated with different ids, because generating 1,000,000 profiles takes minutes.
    people = [person(number) for number in range(2000)]
    rows = [layout.row(person) for person in people]
    changed = [layout.row({**person, "nickname": f"x{person['nickname']}"}) for person in people]
    if header := layout.header():
        yield header
    for number in range(count - 1, -1, -1) if later else range(count):
        shapes = changed if later and number % 50 == 3 else rows
        is_replaced = later and number % 1000 == 7
        user_id = f"{number + count if is_replaced else number:024x}"
        yield shapes[number % len(shapes)].replace(MARK.encode(), user_id.encode())


def archive(folder: Path, address: ExportAddress, count: int, run_id: str, *, later: bool) -> None:
    """Write a run with one export."""
    body = io.BytesIO()
    with igzip.open(body, "wb", compresslevel=1) as out:  # type: ignore[no-untyped-call]  # isal has no types
        rows = lines(address.format, count, later=later)
        while block := b"".join(islice(rows, BLOCK)):
            out.write(block)
    files = {address: body.getvalue()}
    ArchiveBuilder(FolderArchive(folder)).run(files, run_id, header=address.format == "csv")


def measure(*command: str) -> tuple[int, str, float, float, int]:
    """Run a command, and return its status, output, seconds, CPU seconds, and peak memory in bytes."""
    began = time.monotonic()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'layers' / 'meibo'}{os.pathsep}{ROOT / 'src'}{os.pathsep}{ROOT}"},
        text=True,
    ) as process:
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    busy = usage.ru_utime + usage.ru_stime
    return process.returncode, output, time.monotonic() - began, busy, usage.ru_maxrss * 1024


def compare(address: ExportAddress, users: int) -> bool:
    """Generate two exports, run the commands on them, and return whether all limits are met."""
    good = True
    with tempfile.TemporaryDirectory(prefix="meibo-read-") as name:
        for run_id, later in ((EARLIER, False), (RUN, True)):
            # The peak memory of a command includes the memory of the process that starts it.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                pool.submit(archive, Path(name), address, users, run_id, later=later).result()
            print(f"{run_id}: {users:,} users as {address.format}", flush=True)
        for arguments in (("verify",), ("verify", "--quick"), ("diff", EARLIER, RUN, "--json")):
            meibo = (sys.executable, "-m", "meibo_cli", *arguments, "--archive", name)
            status, output, seconds, busy, peak = measure(*meibo)
            is_good = status == 0 and seconds < MAX_SECONDS and peak < MAX_BYTES
            command = "meibo " + " ".join(argument for argument in arguments if argument != "--json")
            if arguments[0] == "diff":
                (export,) = json.loads(output)["exports"]
                counts = {kind: export[kind] for kind in ("added", "removed", "changed", "unchanged")}
                is_good &= counts == expected(users)
                command += f" ({', '.join(f'{count:,} {kind}' for kind, count in counts.items())})"
            good &= is_good
            report(command + ("" if is_good else "  LIMIT EXCEEDED"), seconds, busy, peak)
        if address.format == "ndjson":
            status, output, seconds, busy, peak = measure(sys.executable, "-m", "tests.bench.preview", name)
            is_good = status == 0 and seconds < MAX_SECONDS and peak < MAX_BYTES
            good &= is_good
            command = f"meibo restore --preview ({output.strip()})"
            report(command + ("" if is_good else "  LIMIT EXCEEDED"), seconds, busy, peak)
        files = [str(Path(name) / address.object_key(run_id, gzip=True)) for run_id in (EARLIER, RUN)]
        for command, peer in (
            ("DuckDB, EXCEPT of the lines", (sys.executable, "-c", DUCKDB, *files)),
            ("gunzip, sort and comm", ("bash", "-c", COMM, *files)),
        ):
            if "DuckDB" not in command or address.format == "ndjson":
                _, _, seconds, busy, peak = measure(*peer)
                report(command, seconds, busy, peak)
    return good


def report(command: str, seconds: float, busy: float, peak: int) -> None:
    """Print a measurement. The peak memory is that of the largest process."""
    print(f"{command}: {seconds:.1f} s ({busy:.1f} s of CPU), {peak / 2**20:,.0f} MiB", flush=True)


def expected(users: int) -> dict[str, int]:
    """Return the expected counts of a comparison."""
    replaced = len(range(7, users, 1000))
    changed = len(range(3, users, 50))
    return {"added": replaced, "removed": replaced, "changed": changed, "unchanged": users - replaced - changed}


def main() -> int:
    """Return 0 if all limits are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    users = parser.parse_args().users
    results = [compare(address, users) for address in (USERS, USERS_CSV)]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
