"""Write the report of a month of generated runs in each language: ``python -m tests.browser.page FOLDER``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

from meibo.archive.keys import ExportAddress
from meibo.archive.outcomes import Outcome, OutcomeKind, OutcomeRecord, format_records
from meibo.archive.scheduled_verification import VerificationRecord
from meibo.report.page import render
from meibo.report.state import gather
from meibo.settings import ReportLanguage
from tests.support.archives import ArchiveBuilder, FolderArchive

DAYS = 30
LAST = datetime(2026, 11, 21, 18, 0, tzinfo=UTC)
# The number of rows on the first day, and the bytes of a row.
EXPORTS = {
    ("auth0", "acme", "users", "ndjson", "con_k3Jf8sLq0aWzP2xY"): (2400, b'{"user_id":"u"}\n'),
    ("auth0", "acme", "users", "ndjson", "con_b7Tn4RvC9mQe1HdU"): (900, b'{"user_id":"u"}\n'),
    ("auth0", "acme", "organizations", "ndjson", "all"): (40, b'{"id":"o"}\n'),
    ("auth0", "acme", "members", "ndjson", "all"): (3000, b'{"user_id":"u"}\n'),
    ("cybozu", "example", "users", "csv", "all"): (380, b'"u","n"\n'),
    ("cybozu", "example", "organizations", "csv", "all"): (22, b'"o","n"\n'),
    ("cybozu", "example", "user_organizations", "csv", "all"): (410, b'"u","o"\n'),
}


def write(folder: Path) -> Path:
    """Write the archive and its pages. On the last day an export is suspect and an export is missing."""
    builder = ArchiveBuilder(FolderArchive(folder))
    for day in range(DAYS):
        files, suspect, missing = {}, {}, []
        for number, (parts, (rows, row)) in enumerate(EXPORTS.items()):
            provider, source, dataset, format_, scope = parts
            address = ExportAddress(provider=provider, source=source, dataset=dataset, format=format_, scope=scope)
            count = int(rows * (1 + 0.012 * day + 0.01 * ((day * 7 + number * 3) % 5)))
            last = day == DAYS - 1
            if last and number == 3:
                reason = "acme needs the scope read:organization_members"
                missing = [{"export_id": address.export_id, "error": "ScopeMissingError", "reason": reason}]
                continue
            if last and number == 4:
                reason = f"66 % fewer users than in the last export: {count:,} → {count // 3:,}"
                suspect, count = {address: reason}, count // 3
            files[address] = row * count
        run_id = (LAST - timedelta(days=DAYS - 1 - day)).strftime("%Y%m%dT%H%M%SZ")
        builder.run(files, run_id, suspect=suspect, missing=missing)
    counts: dict[OutcomeKind, int] = {"applied": 412, "rejected": 3}
    records = [
        OutcomeRecord(outcome=Outcome(f"auth0|{number}", kind, LAST), message_id="1", source="acme", sent_at=LAST)
        for kind, count in counts.items()
        for number in range(count)
    ]
    builder.storage.put("changes/source=acme/dt=2026-11-20/1.ndjson", format_records(records))
    verification = VerificationRecord(
        at="2026-11-21T19:00:00Z",
        meibo_version="0",
        runs=3,
        exports=67,
        quick=0,
        damaged=0,
        unchecked=0,
        damage=(),
        could_not_check=(),
    )
    builder.put_json("verifications/dt=2026-11-21/20261121T190000Z.json", verification.to_json())
    state = gather(builder.storage.reader(), LAST + timedelta(hours=2))
    for language in get_args(ReportLanguage):
        html = render(state, language=language, timezone="Asia/Tokyo")
        (folder / f"{language}.html").write_text(html, encoding="utf-8")
    return folder


if __name__ == "__main__":
    sys.stdout.write(f"{write(Path(sys.argv[1]))}\n")
