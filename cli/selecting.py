"""Which runs and exports a command is about."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from meibo.archive.catalog import ArchivedExport, Run, find_run, runs
from meibo.archive.keys import run_moment
from meibo.archive.reading import ArchiveReader
from meibo.errors import ConfigurationError

LATEST: Final = "latest"
PREVIOUS: Final = "previous"


def named_run(archive: ArchiveReader, name: str) -> Run:
    """Return the run of an id, of ``latest`` or of ``previous``, raising ConfigurationError where there is none."""
    if name in (LATEST, PREVIOUS):
        ended = runs(archive)
        run = next(ended, None)
        if name == PREVIOUS:
            run = next(ended, None)
    else:
        run_moment(name)
        run = find_run(archive, name)
    if run is None:
        raise ConfigurationError(f"{archive.name} holds no run {name} that ended; `meibo ls --archive …` lists them")
    return run


def matches(export_id: str, pattern: str) -> bool:
    """Tell whether a pattern names an export: its whole id (``acme/users/ndjson/all``), or its first parts."""
    wanted = pattern.strip("/")
    beginning = "/".join(export_id.split("/")[: wanted.count("/") + 1])
    return not wanted or fnmatchcase(beginning, wanted)


def matching(exports: list[ArchivedExport], pattern: str) -> Iterator[ArchivedExport]:
    """Yield the exports that a pattern names."""
    yield from (export for export in exports if matches(export.export_id, pattern))


def one_export(run: Run, pattern: str) -> ArchivedExport:
    """Return the one export of a run that a pattern names, raising ConfigurationError where it is not one."""
    found = list(matching(run.exports, pattern))
    if len(found) != 1:
        names = ", ".join(export.export_id for export in (found or run.exports)[:10]) or "none"
        what = "matches several exports" if found else "matches no export"
        raise ConfigurationError(f"{pattern!r} {what} of the run {run.run_id}; name one of: {names}")
    return found[0]
