"""Measure the import time of each function, compared with boto3 and one client."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.contenders import ENVIRONMENT, OURS, ROOT

if TYPE_CHECKING:
    from pathlib import Path

CLIENT = "import boto3; boto3.client('s3')"
TIMED = "import time; begun = time.process_time(); {}; print(time.process_time() - begun)"


@dataclass(frozen=True)
class Import:
    """CPU milliseconds with and without bytecode, and the ratio to boto3 with one client.

    Imports wait for nothing but the CPU, and its time is less disturbed by what else runs.
    """

    name: str
    compiled: float
    source: float
    ratio: float


def stage(folder: Path) -> Path:
    """Install what the layer holds for this machine's Python, as the layer's build does, without bytecode."""
    site = folder / "layer"
    command = [
        str(OURS), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps",
        "--require-hashes", "--requirement", str(ROOT / "layers/meibo/requirements.txt"), "--target", str(site),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    shutil.copytree(ROOT / "layers/meibo/meibo", site / "meibo", ignore=shutil.ignore_patterns("__pycache__"))
    for function in (ROOT / "functions").iterdir():
        shutil.copytree(function, folder / "functions" / function.name, ignore=shutil.ignore_patterns("__pycache__"))
    return site


def once(site: Path, function: Path | None) -> float:
    """Return the CPU milliseconds of one fresh interpreter: the function's module and one S3 client."""
    work = CLIENT if function is None else f"import app; {CLIENT}"
    path = str(site) if function is None else f"{function}{os.pathsep}{site}"
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "POWERTOOLS_SERVICE_NAME": "meibo",
        **ENVIRONMENT,
    }
    # -S: nothing of this machine's own packages is found.
    command = [str(OURS), "-S", "-c", TIMED.format(work)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1]) * 1000


def imports(folder: Path, rounds: int) -> list[Import]:
    """Measure every function, interleaved, without bytecode and then with it."""
    site = stage(folder)
    names = sorted(path.name for path in (folder / "functions").iterdir() if (path / "app.py").exists())
    whats = [None, *(folder / "functions" / name for name in names)]
    medians: list[dict[Path | None, float]] = []
    for compiled in (False, True):
        if compiled:
            mode = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
            subprocess.run([str(OURS), *mode, str(site), str(folder / "functions")], check=False)
        times: dict[Path | None, list[float]] = {what: [] for what in whats}
        for _ in range(rounds):
            for what in whats:
                times[what].append(once(site, what))
        medians.append({what: statistics.median(values) for what, values in times.items()})
    source, bytecode = medians
    return [
        Import(
            "boto3 + one client" if what is None else what.name,
            bytecode[what],
            source[what],
            bytecode[what] / bytecode[None],
        )
        for what in whats
    ]
