"""Measure how fast large archives are verified and compared: ``make bench-read``, 1,000,000 users per format.

The commands run as people run them, in processes of their own, whose time and peak memory are measured. Ends with
status 1 where one takes more than the promised minute or 1 GiB.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from isal import igzip

from meibo.archive.copy.content import Inspection
from meibo.archive.copy.model import Content, Format
from meibo.archive.keys import ExportAddress, run_manifest_key
from meibo.providers.auth0.fields import DEFAULT_FIELDS
from meibo_local.template import ROOT
from meibo_simulators.auth0.export_rows import Field, Layout
from meibo_simulators.profiles import auth0_person
from tests.support.archives import EARLIER, RUN, USERS, USERS_CSV

MAX_SECONDS = 60
MAX_BYTES = 1024**3
BLOCK = 20_000
MARK = "(the id)"


def lines(format: str, count: int, *, later: bool) -> Iterator[bytes]:
    """Yield an export's lines, a header before a CSV's.

    Of the later run one user in fifty is changed, one in a thousand gone, as many new, all in reverse.
    """
    layout = Layout(format, tuple(Field(**field) for field in DEFAULT_FIELDS[format]))
    # The same few people again and again under other ids: making a million would take the minutes.
    people = [{**auth0_person(1, number, "c"), "user_id": MARK} for number in range(2000)]
    rows = [layout.row(person) for person in people]
    changed = [layout.row({**person, "nickname": f"x{person['nickname']}"}) for person in people]
    if header := layout.header():
        yield header
    for number in range(count - 1, -1, -1) if later else range(count):
        shapes = changed if later and number % 50 == 3 else rows
        somebody_else = later and number % 1000 == 7
        user_id = f"auth0|{number + count if somebody_else else number:024x}"
        yield shapes[number % len(shapes)].replace(MARK.encode(), user_id.encode())


def archive(folder: Path, address: ExportAddress, count: int, run_id: str, *, later: bool) -> int:
    """Write a run with one export and return its uncompressed bytes."""
    path = folder / address.object_key(run_id, gzip=True)
    path.parent.mkdir(parents=True)
    with igzip.open(path, "wb", compresslevel=1) as out:  # type: ignore[no-untyped-call]  # isal has no types
        block: list[bytes] = []
        for line in lines(address.format, count, later=later):
            block.append(line)
            if len(block) == BLOCK:
                out.write(b"".join(block))
                block.clear()
        out.write(b"".join(block))
    digest, inspection = hashlib.sha256(), Inspection(Content(format=cast("Format", address.format), header=True))
    with path.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            digest.update(chunk)
            inspection.feed(memoryview(chunk))
    facts = inspection.finish()
    sha256, size = digest.hexdigest(), path.stat().st_size
    names = ("provider", "source", "dataset", "format", "scope")
    manifest: dict[str, Any] = {
        "run_id": run_id,
        "export_id": address.export_id,
        **{name: getattr(address, name) for name in names},
        "request": {},
        "object": {"key": address.object_key(run_id, gzip=True), "version_id": None, "bytes": size, "sha256": sha256},
        "content": {
            "gzip": True,
            "rows": facts.rows,
            "uncompressed_bytes": facts.expanded_bytes,
            "columns": list(facts.columns) if isinstance(facts.columns, tuple) else None,
        },
        "sanity": {"verdict": "ok"},
    }
    (folder / address.manifest_key(run_id)).write_text(json.dumps(manifest), encoding="utf-8")
    entry = {
        "export_id": address.export_id,
        "manifest_key": address.manifest_key(run_id),
        "key": manifest["object"]["key"],
        "bytes": size,
        "sha256": sha256,
        "rows": facts.rows,
        "verdict": "ok",
    }
    counts = {"archived": 1, "missing": 0, "suspect": 0, "bytes": size, "rows": facts.rows}
    run = {"run_id": run_id, "counts": counts, "exports": [entry], "missing": []}
    key = folder / run_manifest_key(run_id, 1)
    key.parent.mkdir(parents=True)
    key.write_text(json.dumps(run), encoding="utf-8")
    return facts.expanded_bytes or 0


def measure(*arguments: str) -> tuple[int, str, float, float, int]:
    """Run the command and return its status, output, seconds, seconds of processor and peak bytes of memory."""
    began = time.monotonic()
    with subprocess.Popen(  # our own command
        [sys.executable, "-m", "meibo_cli.main", *arguments],
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
            expanded = archive(Path(name), address, users, run_id, later=later)
            print(f"{run_id}: {users:,} users, {expanded / 1e6:,.0f} MB of {address.format}")
        for arguments in (("verify",), ("verify", "--quick"), ("diff", EARLIER, RUN, "--json")):
            status, output, seconds, busy, peak = measure(*arguments, "--archive", name)
            well = status == 0 and seconds < MAX_SECONDS and peak < MAX_BYTES
            command = " ".join(argument for argument in arguments if argument != "--json")
            told = f"{seconds:.1f} s ({busy:.1f} s of processor)"
            if arguments[0] == "diff":
                (one,) = json.loads(output)["exports"]
                counts = {kind: one[kind] for kind in ("added", "removed", "changed", "unchanged")}
                well &= counts == expected(users)
                command += f" ({', '.join(f'{count:,} {kind}' for kind, count in counts.items())})"
            good &= well
            print(f"meibo {command}: {told}, {peak / 2**20:,.0f} MiB{'' if well else '  NOT AS PROMISED'}", flush=True)
    return good


def expected(users: int) -> dict[str, int]:
    """Return what a comparison has to count."""
    replaced = len(range(7, users, 1000))
    changed = len(range(3, users, 50))
    return {"added": replaced, "removed": replaced, "changed": changed, "unchanged": users - replaced - changed}


def main() -> int:
    """Return 0 where everything keeps to the promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    users = parser.parse_args().users
    results = [compare(address, users) for address in (USERS, USERS_CSV)]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
