"""Run ``meibo run`` in a separate process against simulators."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from meibo.archive.storage import TEMPORARY_PREFIX
from meibo.providers import clear_clients
from meibo_simulators import SimulatedDomain, SimulatedTenant, Simulators
from meibo_simulators.cybozu.secure_access import SecureAccess

ROOT = Path(__file__).parents[2]

# SIGINT is ignored in a process that a shell without job control started in the background.
_MAIN = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
killed_at = int(os.environ.get("KILLED_AT_LINK", 0))
links = 0
def kill(event, arguments):
    global links
    if event == "os.link":
        links += 1
        if links == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
if killed_at:
    sys.addaudithook(kill)
from meibo_cli.main import app
try:
    app()
finally:
    roots = {name.partition(".")[0] for name in sys.modules}
    if os.environ.get("PRINT_PACKAGES"):
        print("packages:", *sorted(roots), file=sys.stderr)
"""


@dataclass
class LocalRuns:
    """A folder with a configuration, the credentials of the sources in ``.env``, and an archive."""

    folder: Path
    simulators: Simulators
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def tenant(self) -> SimulatedTenant:
        return self.simulators.auth0["acme"]

    @property
    def domain(self) -> SimulatedDomain:
        return self.simulators.cybozu["example"]

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    def configure(
        self, auth0: list[dict[str, Any]], cybozu: list[dict[str, Any]], **credentials: Mapping[str, str]
    ) -> None:
        """Write the configuration and the credentials. ``credentials`` replaces the credentials of sources."""
        sources = [source for source in (self.tenant.source(*auth0), self.domain.source(*cybozu)) if source["exports"]]
        (self.folder / "sources.json").write_text(json.dumps({"sources": sources}), encoding="utf-8")
        secrets = {"acme": self.tenant.credentials(), "example": self.domain.credentials(), **credentials}
        lines = [
            f"MEIBO_{name.upper()}_{key.upper()}={value}\n"
            for name, keys in secrets.items()
            for key, value in keys.items()
        ]
        env_file = self.folder / ".env"
        env_file.touch(0o600)
        env_file.write_text("".join(lines), encoding="utf-8")

    def environment(self) -> dict[str, str]:
        paths = [ROOT / "layers" / "meibo", ROOT / "src"]
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MEIBO_"))},
            **self.simulators.environment(),
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "AWS_EC2_METADATA_DISABLED": "true",
            **self.variables,
        }

    def start(self, *arguments: str, command: str = "run") -> subprocess.Popen[str]:
        """Start a command of ``meibo`` in the folder."""
        return subprocess.Popen(  # noqa: S603  # a program of the tests
            [sys.executable, "-c", _MAIN, command, *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, command: str = "run") -> subprocess.CompletedProcess[str]:
        """Run a command of ``meibo`` and return its result."""
        with self.start(*arguments, command=command) as process:
            output, errors = process.communicate(timeout=100)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def documents(self, pattern: str) -> list[Any]:
        """Return the JSON documents of the archive whose paths match a pattern."""
        return [json.loads(path.read_bytes()) for path in sorted(self.archive.glob(pattern))]

    def assert_complete_or_absent(self) -> int:
        """Assert that each manifest matches its file, and return the number of manifests."""
        manifests = self.documents("archive/**/_manifest.json")
        for manifest in manifests:
            body = (self.archive / manifest["object"]["key"]).read_bytes()
            assert hashlib.sha256(body).hexdigest() == manifest["object"]["sha256"]
        for run in self.documents("runs/**/_manifest*.json"):
            assert {export["key"] for export in run["exports"]} <= {manifest["object"]["key"] for manifest in manifests}
        return len(manifests)

    def temporary_files(self) -> list[Path]:
        return [path for path in self.archive.rglob(f"{TEMPORARY_PREFIX}*/*") if path.is_file()]


@contextmanager
def local_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, secure_access: SecureAccess | None = None
) -> Iterator[LocalRuns]:
    """Serve a small tenant and a small domain, change to the folder, and remove the AWS settings."""
    tenant = SimulatedTenant("acme", users=300, organizations=6)
    tenant.switches.polls_until_completed = 0
    domain = SimulatedDomain("example", users=40, secure_access=secure_access)
    for name in [name for name in os.environ if name.startswith(("AWS_", "MEIBO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(folder)
    with Simulators([tenant], [domain]) as simulators:
        for name, value in simulators.environment().items():
            monkeypatch.setenv(name, value)
        yield LocalRuns(folder, simulators)
    clear_clients()
