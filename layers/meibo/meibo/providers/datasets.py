"""The properties of datasets, and the defaults of exports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ExportFormat = Literal["ndjson", "csv"]
# Auth0 deletes a job 24 hours after its creation, so the deadline must be shorter than a day.
DEFAULT_JOB_DEADLINE_SECONDS = 21_600
DEFAULT_SUSPECT_SHARE = 0.5

# job: the provider creates a file asynchronously. pages: the rows are read page by page, in one or more invocations.
# stream: a stream of bytes is read in one invocation.
Reading = Literal["job", "pages", "stream"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One dataset of a provider.

    An export without rows is suspect unless ``may_be_empty`` is true. ``row_noun`` names the rows in messages. ``keys``
    contains alternatives for the columns that identify a row: the first alternative whose columns exist in a file is
    used. ``csv_columns`` are the columns of a CSV file without a header row. ``csv_ragged`` is true if the records of a
    CSV file differ in length. ``csv_apostrophe`` is true if the provider adds an apostrophe to strings in a CSV file.
    ``blank_is_null`` is true if an empty string has the same meaning as null. ``user_ids`` are the columns that contain
    the id of a user, and ``user_names`` are other columns by which users are found. ``table`` maps the columns of the
    SQL table to their Athena types, and is None if there is no table.
    """

    name: str
    formats: tuple[ExportFormat, ...]
    reading: Reading
    may_be_empty: bool = False
    row_noun: str = "rows"
    keys: tuple[tuple[str, ...], ...] = (("id",), ("code",), ("user_id",))
    csv_columns: tuple[str, ...] = ()
    csv_ragged: bool = False
    csv_apostrophe: bool = False
    blank_is_null: bool = False
    user_ids: tuple[str, ...] = ()
    user_names: tuple[str, ...] = ()
    table: Mapping[str, str] | None = None


def string_columns(*names: str) -> dict[str, str]:
    """Return columns of a table with the Athena type ``string``."""
    return dict.fromkeys(names, "string")
