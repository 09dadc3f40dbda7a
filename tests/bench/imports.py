"""Measure the import time of each function, and compare it with the import of boto3 and the creation of one client."""

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
TIMED = "import time; start = time.process_time(); {}; print(time.process_time() - start)"


@dataclass(frozen=True)
class Import:
    """The CPU milliseconds of an import with and without bytecode, and the ratio to boto3 with one client.

    CPU time is measured, because imports are CPU-bound and other processes affect it less than the elapsed time.
    """

    name: str
    compiled: float
    source: float
    ratio: float


def stage(folder: Path) -> Path:
    """Install the content of the layer for the Python of this machine, without bytecode, and return the folder."""
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
    """Return the CPU milliseconds that a new interpreter needs to import a function and to create an S3 client."""
    work = CLIENT if function is None else f"import app; {CLIENT}"
    path = str(site) if function is None else f"{function}{os.pathsep}{site}"
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "POWERTOOLS_SERVICE_NAME": "meibo",
        **ENVIRONMENT,
    }
    # -S: packages that are installed on this machine are not imported.
    command = [str(OURS), "-S", "-c", TIMED.format(work)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1]) * 1000


def imports(folder: Path, rounds: int) -> list[Import]:
    """Measure all functions in turn, first without and then with bytecode."""
    site = stage(folder)
    names = sorted(path.name for path in (folder / "functions").iterdir() if (path / "app.py").exists())
    modules = [None, *(folder / "functions" / name for name in names)]
    medians: list[dict[Path | None, float]] = []
    for compiled in (False, True):
        if compiled:
            mode = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
            subprocess.run([str(OURS), *mode, str(site), str(folder / "functions")], check=False)
        times: dict[Path | None, list[float]] = {module: [] for module in modules}
        for _ in range(rounds):
            for module in modules:
                times[module].append(once(site, module))
        medians.append({module: statistics.median(values) for module, values in times.items()})
    source, bytecode = medians
    return [
        Import(
            "boto3 + one client" if module is None else module.name,
            bytecode[module],
            source[module],
            bytecode[module] / bytecode[None],
        )
        for module in modules
    ]
