"""Preview a restore of users, like ``meibo restore --preview``. The later run replaces the state of the tenant."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from meibo_cli.restore.archived_rows import archived_users
from meibo_cli.restore.import_files import write_files
from meibo_cli.restore.live_users import LiveUsers
from meibo_cli.restore.user_preview import ComparedFields, preview_users
from meibo_cli.selection import named_run, open_archive
from tests.support.archives import EARLIER, RUN


def main(location: str) -> None:
    """Preview the earlier run against the later run of an archive, and print the number of users in each state."""
    reader = open_archive(location)
    (export,), (live_export,) = (named_run(reader, run_id).exports for run_id in (EARLIER, RUN))
    with tempfile.TemporaryDirectory(prefix="meibo-bench-") as name:
        folder = Path(name)
        with archived_users(reader, export) as archived:
            written = write_files(archived.rows, folder / "preview", names=archived.names, text_only=False)
        fields = ComparedFields.of_export(archived.names, ())
        (connection,) = written.connections
        with archived_users(reader, live_export) as live_rows:
            live = LiveUsers.of_export(folder / "live.ndjson", live_rows.path, fields.names, connection)
        preview = preview_users(written, fields, live, id_column="user_id", upsert=True)
    print(", ".join(f"{count:,} {state}" for state, count in preview.counts.items()))


if __name__ == "__main__":
    main(sys.argv[1])
