"""The description of a dataset, and the defaults of exports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ExportFormat = Literal["ndjson", "csv"]
# Auth0 deletes a job 24 hours after its creation, so the deadline of a job must be shorter than a day.
DEFAULT_JOB_DEADLINE_SECONDS = 21_600
DEFAULT_SUSPECT_SHARE = 0.5

# job: the provider creates a file asynchronously. pages: read page by page, over several invocations if needed.
# stream: read as a stream of bytes within an invocation.
Reading = Literal["job", "pages", "stream"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One dataset of a provider, as Meibo uses it.

    An export without rows is suspect unless the dataset ``may_be_empty``. ``row_noun`` names rows in messages. ``keys``
    are alternatives for the columns that identify a row; the first alternative whose columns exist in a file counts.
    ``csv_columns`` are the columns of a CSV file that has no header row; ``csv_ragged`` states that its records
    differ in length, ``csv_apostrophe`` that strings in a CSV file begin with an apostrophe. ``blank_is_null`` states
    that an empty string means the same as null. In a dataset about users, ``user_ids`` are the columns with the ids of
    the user of a row, and ``user_names`` other columns by which users are searched. ``table`` maps the columns of the
    SQL table to their Athena types; None means no table.
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
