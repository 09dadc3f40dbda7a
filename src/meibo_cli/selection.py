"""Options that select an archive, a run or exports, and functions that find them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final

import boto3
import typer
from botocore.config import Config

from meibo.archive.keys import run_moment
from meibo.archive.manifest import ArchivedExport
from meibo.archive.runs import Run, find_run, runs
from meibo.archive.storage import ArchiveReader, FolderReader, S3Reader
from meibo.errors import ConfigurationError, EventError

LATEST: Final = "latest"
PREVIOUS: Final = "previous"
DEFAULT_ARCHIVE: Final = "./archive"
MAX_PARALLEL_READS: Final = 32
MAX_IDS_SHOWN: Final = 10

ArchiveOption = Annotated[
    str, typer.Option("--archive", "-a", envvar="MEIBO_ARCHIVE", help="The archive: s3://BUCKET, or a folder.")
]
RunOption = Annotated[str, typer.Option("--run", "-r", help="The run: its id, `latest` or `previous`.")]
ExportsArgument = Annotated[
    str,
    typer.Argument(
        help="Only exports with this id or pattern, such as acme, acme/users or 'acme/users/ndjson/*'.",
        show_default=False,
    ),
]


@contextmanager
def reading_pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Return a pool of threads whose pending tasks are canceled if the command is interrupted."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def bucket_name(location: str) -> str | None:
    """Return the bucket of ``s3://BUCKET``, or None for a folder."""
    if not location.startswith("s3://"):
        return None
    bucket = location.removeprefix("s3://").rstrip("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]", bucket):
        raise ConfigurationError(
            f"--archive: expected s3:// and the name of a bucket in lower case, without a prefix, found {location!r}"
        )
    return bucket


def open_archive(location: str) -> ArchiveReader:
    """Return the archive at ``s3://BUCKET`` or in a folder. Raises ConfigurationError if the folder does not exist."""
    bucket = bucket_name(location)
    if bucket is not None:
        retries = Config(
            retries={"mode": "standard", "total_max_attempts": 10}, max_pool_connections=MAX_PARALLEL_READS
        )
        return S3Reader(boto3.client("s3", config=retries), bucket)
    if not Path(location).is_dir():
        raise ConfigurationError(
            f"the folder {location} does not exist; choose the archive with --archive or MEIBO_ARCHIVE, or create"
            " an archive with `meibo run`"
        )
    return FolderReader(Path(location))


def named_run(archive: ArchiveReader, name: str) -> Run:
    """Return the run with an id, ``latest`` or ``previous``. Raises ConfigurationError if it does not exist."""
    if name in (LATEST, PREVIOUS):
        finished = runs(archive)
        run = next(finished, None)
        if name == PREVIOUS:
            run = next(finished, None)
    else:
        run = find_run(archive, checked_id(name))
    if run is None:
        missing = {LATEST: "no finished run", PREVIOUS: "no finished run before the latest"}.get(name, f"no run {name}")
        raise ConfigurationError(f"{archive.name} contains {missing}; `meibo ls` lists the runs")
    return run


def checked_id(name: str) -> str:
    """Return the id of a run unchanged. Raises ConfigurationError if it is not a run id."""
    try:
        run_moment(name)
    except EventError:
        raise ConfigurationError(
            f"--run: expected a run id such as 20261121T180000Z, latest or previous, found {name!r}"
        ) from None
    return name


def matches(export_id: str, pattern: str) -> bool:
    """Return whether a pattern matches an export id (``acme/users/ndjson/all``) or its first parts."""
    pattern = pattern.strip("/")
    first_parts = "/".join(export_id.split("/")[: pattern.count("/") + 1])
    return not pattern or fnmatchcase(first_parts, pattern)


def matching(exports: Iterable[ArchivedExport], pattern: str) -> Iterator[ArchivedExport]:
    """Yield the exports whose ids match a pattern."""
    yield from (export for export in exports if matches(export.export_id, pattern))


def single_export(exports: Sequence[ArchivedExport], pattern: str) -> ArchivedExport:
    """Return the only export that matches a pattern. Raises ConfigurationError if none or several match."""
    matched = list(matching(exports, pattern))
    if len(matched) != 1:
        ids = ", ".join(export.export_id for export in (matched or exports)[:MAX_IDS_SHOWN]) or "none"
        count = "several exports" if matched else "no export"
        raise ConfigurationError(f"{pattern!r} matches {count} of the run; expected one of: {ids}")
    return matched[0]
