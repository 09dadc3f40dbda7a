"""The report page: exports, charts, changes and verifications, without user data."""

from __future__ import annotations

import re
from dataclasses import asdict, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter
from typing import get_args

import pytest

from meibo.archive.keys import report_key, run_manifest_key, run_moment
from meibo.archive.manifest import ArchivedExport, MissingExport, RunCounts, RunManifest
from meibo.archive.outcomes import Outcome, OutcomeKind, OutcomeRecord, format_records
from meibo.archive.runs import Run
from meibo.archive.scheduled_verification import VerificationRecord
from meibo.exports.finish import write_report
from meibo.report.html import line_chart
from meibo.report.page import estimated_usd, render
from meibo.report.state import ExportHistory, RunSummary, gather
from meibo.report.texts import Texts
from meibo.settings import MIB, ReportLanguage
from tests.support.archives import EARLIER, RUN, STAFF, USERS, ArchiveBuilder, FolderArchive, export_manifest, ndjson
from tests.support.memory_archive import MemoryStorage

NOW = datetime(2026, 11, 21, 21, 0, tzinfo=UTC)


@pytest.fixture
def builder(tmp_path: Path) -> ArchiveBuilder:
    return ArchiveBuilder(FolderArchive(tmp_path))


def page(builder: ArchiveBuilder) -> str:
    return render(gather(builder.storage.reader(), NOW))


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL))


def users(count: int) -> bytes:
    return ndjson([{"user_id": f"auth0|{n}", "email": f"secret{n}@example.jp"} for n in range(count)])


def test_every_export_has_its_latest_archive_and_its_history(builder: ArchiveBuilder) -> None:
    builder.run({USERS: users(2), STAFF: users(1)}, EARLIER)
    builder.run({USERS: users(3), STAFF: users(1)})

    html = page(builder)

    assert "The latest run is complete: 2 exports" in html
    assert "acme (Auth0)" in html
    assert "example (cybozu.com)" in html
    assert "2026-11-21 18:00 UTC" in words(html)
    assert "rows of acme/users/ndjson/all: 2 to 3 over 2 runs, lowest 2, highest 3" in html


def verification(*, exports: int, damaged: int = 0, unchecked: int = 0) -> VerificationRecord:
    return VerificationRecord(
        at="2026-11-21T20:00:00Z",
        meibo_version="0",
        runs=1,
        exports=exports,
        quick=0,
        damaged=damaged,
        unchecked=unchecked,
        damage=(),
        could_not_check=(),
    )


def test_missing_and_suspect_exports_are_listed_first(builder: ArchiveBuilder) -> None:
    missing = [{"export_id": STAFF.export_id, "error": "ScopeMissingError", "reason": "needs <Administrator>"}]
    builder.run({USERS: users(3)}, suspect={USERS: "60 % fewer users than in the last export: 5 → 2"}, missing=missing)

    html = page(builder)

    assert "The latest run is incomplete: 1 export missing" in html
    assert "needs &lt;Administrator&gt;" in html
    assert "acme/users/ndjson/all ! suspect 60 % fewer users than in the last export: 5 → 2" in words(html)
    assert html.index("Missing and suspect exports") < html.index("acme (Auth0)")


def test_export_that_the_latest_run_lacks_is_missing(builder: ArchiveBuilder) -> None:
    missing = [{"export_id": STAFF.export_id, "error": "ScopeMissingError", "reason": "needs it"}]
    builder.run({USERS: users(1), STAFF: users(1)}, EARLIER)
    builder.run({USERS: users(1)}, missing=missing)

    assert "users · ndjson · all ✕ missing 2026-11-20 18:00 UTC" in words(page(builder))


def test_export_that_is_no_longer_archived_shows_its_age(builder: ArchiveBuilder) -> None:
    builder.run({STAFF: users(1)}, "20261001T210000Z")
    builder.run({USERS: users(1)})

    assert "users · ndjson · all ✓ OK 2026-10-01 21:00 UTC" in words(page(builder))


def test_changes_are_counted_by_outcome(builder: ArchiveBuilder) -> None:
    builder.run({USERS: users(1)})
    kinds: list[OutcomeKind] = ["applied", "applied", "rejected"]
    body = format_records(
        OutcomeRecord(outcome=Outcome("auth0|secret", kind, NOW), message_id="1", source="acme", sent_at=NOW)
        for kind in kinds
    )
    builder.storage.put("changes/source=acme/dt=2026-11-20/a.ndjson", body)
    builder.storage.put("changes/source=acme/dt=2026-11-20/b.ndjson", b"{broken")
    builder.storage.put("changes/source=acme/dt=2026-11-01/old.ndjson", body)

    html = page(builder)

    assert "acme 2 1 0" in words(html)
    assert "auth0|" not in html


def outcomes(*moments: datetime) -> bytes:
    return format_records(
        OutcomeRecord(outcome=Outcome("auth0|secret", "applied", moment), message_id="1", source="acme", sent_at=moment)
        for moment in moments
    )


def test_changes_of_the_run_are_those_since_the_previous_run(builder: ArchiveBuilder) -> None:
    previous = run_moment(EARLIER)
    builder.run({USERS: users(1)}, EARLIER)
    builder.run({USERS: users(1)})
    body = outcomes(previous - timedelta(minutes=1), previous, previous + timedelta(hours=3))
    builder.storage.put("changes/source=acme/dt=2026-11-20/a.ndjson", body)

    text = words(page(builder))

    assert "Membership changes 2 applied, 0 rejected since the previous run" in text
    assert "Membership changes since the previous run" in text.partition("Latest runs")[2]
    assert "acme 2 0 0" in text
    assert "acme 3 0 0" in text.partition("Membership changes of the last 7 days")[2]


def test_run_without_changes_says_so(builder: ArchiveBuilder) -> None:
    builder.run({USERS: users(1)}, EARLIER)
    builder.run({USERS: users(1)})

    text = words(page(builder))

    assert "Membership changes none since the previous run" in text
    assert "Source Applied" not in text


def test_row_at_the_top_shows_the_run_its_duration_and_its_cost(builder: ArchiveBuilder) -> None:
    builder.run({USERS: users(1), STAFF: users(1)})

    text = words(page(builder))

    assert f"Needs attention nothing Latest run 2026-11-21 18:00 UTC {RUN} Duration" in text
    assert "cost: about $0.0012 Exports archived 2 2 rows," in text


@pytest.mark.parametrize("language", get_args(ReportLanguage))
def test_times_are_in_the_time_zone_and_in_utc(builder: ArchiveBuilder, language: ReportLanguage) -> None:
    builder.run({USERS: users(1)})

    text = words(render(gather(builder.storage.reader(), NOW), language=language, timezone="Asia/Tokyo"))

    assert "2026-11-22 03:00 JST 2026-11-21 18:00 UTC" in text
    assert "2026-11-22 06:00 JST (2026-11-21 21:00 UTC)" in text


@pytest.mark.parametrize(
    ("timezone", "expected"),
    [
        ("UTC", "Times are in UTC."),
        ("Asia/Bangkok", "2026-11-22 01:00 UTC+07"),
        ("No/Such_Zone", "Times are in UTC."),
    ],
)
def test_zone_without_abbreviation_or_database_is_shown(builder: ArchiveBuilder, timezone: str, expected: str) -> None:
    builder.run({USERS: users(1)})

    assert expected in words(render(gather(builder.storage.reader(), NOW), timezone=timezone))


def test_report_is_in_the_language_of_the_settings(builder: ArchiveBuilder) -> None:
    missing = [{"export_id": STAFF.export_id, "error": "ScopeMissingError", "reason": "needs it"}]
    builder.run({USERS: users(1)}, missing=missing)

    html = render(gather(builder.storage.reader(), NOW), language="ja", timezone="Asia/Tokyo")

    assert '<html lang="ja">' in html
    assert "最新の実行は未完了です（欠落 1 件）" in words(html)
    assert '<span lang="en">ScopeMissingError: needs it</span>' in html
    # Everything except names, ids, units and messages is Japanese.
    assert not re.search(r"\b(Run|Export|State|Latest|Rows|Size|Source|missing|suspect)\b", words(html))


def test_both_languages_have_the_same_texts_with_the_same_placeholders() -> None:
    def placeholders(text: str) -> set[str]:
        return {name for _, name, _, _ in Formatter().parse(text) if name}

    texts = {
        name: asdict(text) for name, text in vars(Texts).items() if is_dataclass(text) and not isinstance(text, type)
    }
    english = {name: languages["en"] for name, languages in texts.items()}
    japanese = {name: languages["ja"] for name, languages in texts.items()}

    assert texts
    assert all(set(languages) == set(get_args(ReportLanguage)) for languages in texts.values())
    assert all(getattr(Texts("ja"), name) == text for name, text in japanese.items())
    assert {name: placeholders(text) for name, text in english.items()} == {
        name: placeholders(text) for name, text in japanese.items()
    }
    assert all(english.values())
    untranslated = {name for name, text in japanese.items() if not re.search(r"[ぁ-んァ-ヶ一-龠]", text)}
    assert untranslated == {"source_title"}


def test_estimated_cost_is_that_of_the_measured_exports() -> None:
    # given: the exports that docs/performance.md lists
    counts = RunCounts(planned=1, archived=1, missing=0, suspect=0, bytes=586 * MIB, rows=10_000_000)

    assert estimated_usd(counts) == pytest.approx(0.0012, rel=0.1)
    assert estimated_usd(replace(counts, bytes=6 * MIB)) == pytest.approx(0.0006, rel=0.1)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (verification(exports=1200), "1,200 OK"),
        (verification(exports=3, damaged=2, unchecked=1), "2 damaged objects"),
        (verification(exports=3, unchecked=1), "1 not checked"),
    ],
)
def test_latest_verification_is_shown(builder: ArchiveBuilder, record: VerificationRecord, expected: str) -> None:
    builder.run({USERS: users(1)})
    assert "never" in words(page(builder))
    builder.put_json("verifications/dt=2026-11-20/20261120T000000Z.json", verification(exports=9, damaged=1).to_json())
    builder.put_json("verifications/dt=2026-11-21/20261121T000000Z.json", record.to_json())

    html = page(builder)

    assert expected in html
    assert record.at in html


def test_page_has_no_user_data_and_loads_nothing(builder: ArchiveBuilder) -> None:
    builder.run({USERS: users(3)})

    html = page(builder)

    assert "secret" not in html
    assert "@example" not in html
    assert "<script" not in html
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", html)
    assert "url(" not in html


def test_elements_are_nested_correctly(builder: ArchiveBuilder) -> None:
    builder.run({USERS: users(3)}, EARLIER)
    builder.run({USERS: users(3)}, suspect={USERS: "no users"})
    opened: list[str] = []

    class Nesting(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "link", "br"):
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            pass

    Nesting().feed(page(builder))

    assert opened == []


def test_archive_without_runs_has_a_page(builder: ArchiveBuilder) -> None:
    assert "No run has ended yet" in page(builder)


def test_long_history_is_cut(builder: ArchiveBuilder) -> None:
    for day in range(100):
        moment = datetime(2026, 7, 1, tzinfo=UTC) + timedelta(days=day)
        builder.run({USERS: users(1 + day % 3)}, moment.strftime("%Y%m%dT%H%M%SZ"))

    assert "over 90 runs" in page(builder)


@pytest.mark.parametrize("values", [[], [5], [5, 5, 5], [0, 10**12], list(range(90))])
def test_chart_stays_within_its_frame(values: list[int]) -> None:
    drawn = line_chart(values, "rows of a<b")

    for x, y in re.findall(r"([\d.]+),([\d.]+)[ \"]", drawn.partition("points=")[2]):
        assert 0 <= float(x) <= 120
        assert 0 <= float(y) <= 28
    assert "a<b" not in drawn


def test_every_attempt_writes_its_own_page_and_overwrites_none(builder: ArchiveBuilder) -> None:
    builder.run({USERS: users(1)})
    storage = builder.storage.reader()

    for attempt in (1, 2, 2):
        write_report(storage, RUN, attempt, NOW)

    assert list(storage.keys("reports/")) == [report_key(RUN, 2), report_key(RUN, 1)]
    assert report_key(RUN, 2) == f"reports/dt=2026-11-21/run={RUN}/index-2.html"


def test_page_that_cannot_be_written_does_not_fail_the_run(builder: ArchiveBuilder) -> None:
    class Broken(MemoryStorage):
        def put_bytes(self, key: str, body: bytes, *, content_type: str) -> bool:
            raise OSError("full")

    write_report(Broken(), RUN, 1, NOW)


def test_more_than_200_exports_are_grouped_by_source(builder: ArchiveBuilder) -> None:
    addresses = [replace(USERS, source=f"tenant{number // 10:04}", scope=f"s{number % 10}") for number in range(10_000)]
    latest = [ArchivedExport.of(export_manifest(address, rows=3)) for address in addresses]
    missing = tuple(
        MissingExport(export_id=address.export_id, error="ScopeMissingError", reason="needs it")
        for address in addresses[:2000]
    )
    manifest = RunManifest(
        run_id=RUN,
        attempt=1,
        scheduled_time="2026-11-21T18:00:00+00:00",
        finished_at="2026-11-21T18:01:05Z",
        meibo_version="0",
        complete=False,
        counts=RunCounts.of(latest, missing),
        exports=tuple(latest),
        missing=missing,
    )
    key = run_manifest_key(RUN, 1)
    state = replace(
        gather(builder.storage.reader(), NOW),
        latest=Run(RUN, key, manifest),
        runs=tuple(RunSummary(RUN, 65, manifest.counts) for _ in range(90)),
        histories=tuple(
            ExportHistory(export.folder.address, export, list(range(90)), list(range(90))) for export in latest
        ),
    )

    html = render(state)

    assert len(html.encode()) < 1024 * 1024
    assert "tenant0999 (Auth0) ✓ OK 2026-11-21 18:00 UTC 10 30 10 B" in words(html)
    assert "tenant0000 (Auth0) ✕ missing" in words(html)
    assert f"1,500 more are listed in {key}." in words(html)
    assert "1 min 5 s" in words(html)


def test_damaged_archive_is_not_reported_as_complete_only(builder: ArchiveBuilder) -> None:
    builder.run({USERS: users(1)})
    record = verification(exports=3, damaged=2)
    builder.put_json("verifications/dt=2026-11-21/20261121T000000Z.json", record.to_json())

    assert "The latest run is complete, but the last verification found 2 damaged objects" in words(page(builder))
