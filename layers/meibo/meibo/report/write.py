"""Write the page of a run into the bucket, beside the runs before it."""

from __future__ import annotations

from datetime import datetime

from meibo.archive.reading import ArchiveReader
from meibo.archive.store import ArchiveStore
from meibo.observability import logger
from meibo.report.page import render, report_key
from meibo.report.state import gather


def write_report(archive: ArchiveReader, store: ArchiveStore, run_id: str, attempt: int, now: datetime) -> None:
    """Write the page that an attempt of a run ends with.

    Never raises: the run is archived and announced already, and a page that could not be written must not make it
    look failed. The log says so.
    """
    try:
        page = render(gather(archive, now)).encode()
        store.put_bytes(report_key(run_id, attempt), page, content_type="text/html; charset=utf-8")
    except Exception as error:  # noqa: BLE001  # see above
        # The class only: what an error says of itself is not known to be quiet about people.
        logger.warning("the report could not be written", extra={"run_id": run_id, "error": type(error).__name__})
