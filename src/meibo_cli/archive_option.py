"""Where the archive is: the option that every reading command shares."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import boto3
import typer
from botocore.config import Config

from meibo.archive.reader import ArchiveReader, DiskReader, S3Reader
from meibo.errors import ConfigurationError

_PARALLEL_READS = 32

ArchiveOption = Annotated[
    str,
    typer.Option(
        "--archive", "-a", envvar="MEIBO_ARCHIVE", help="The archive: s3://BUCKET, or a folder.", show_default=True
    ),
]
DEFAULT_ARCHIVE = "./archive"


def open_archive(location: str) -> ArchiveReader:
    """Return the archive at ``s3://bucket`` or in a folder, raising ConfigurationError where there is no folder."""
    if location.startswith("s3://"):
        bucket = location.removeprefix("s3://").rstrip("/")
        if not re.fullmatch(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]", bucket):
            raise ConfigurationError("an archive in S3 is named s3://BUCKET, without a prefix")
        retries = Config(retries={"mode": "standard", "total_max_attempts": 10}, max_pool_connections=_PARALLEL_READS)
        return S3Reader(boto3.client("s3", config=retries), bucket)
    folder = Path(location)
    if not folder.is_dir():
        raise ConfigurationError(
            f"there is no folder {location}; name the archive with --archive or MEIBO_ARCHIVE,"
            " or make one with `make run`"
        )
    return DiskReader(folder)
