"""Which runs and exports a command is about."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from meibo.archive.catalog import ArchivedExport, Run, find_run, runs
from meibo.archive.keys import run_moment
from meibo.archive.reader import ArchiveReader
from meibo.errors import ConfigurationError, EventError

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
        run = find_run(archive, checked_id(name))
    if run is None:
        what = {LATEST: "no run that ended", PREVIOUS: "no run before the latest one"}.get(name, f"no run {name}")
        raise ConfigurationError(f"{archive.name} holds {what}; `meibo ls` lists the runs")
    return run


def checked_id(name: str) -> str:
    """Return the id of a run as it is, raising ConfigurationError where it is none."""
    try:
        run_moment(name)
    except EventError:
        raise ConfigurationError(
            f"{name!r} is no run; name one by its id, which is a time like 20261121T180000Z, or latest, or previous"
        ) from None
    return name


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
