"""Render the report as one HTML file without scripts or external resources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from html import escape
from importlib.resources import files
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from meibo.archive.keys import run_moment
from meibo.archive.manifest import RunCounts
from meibo.formatting import format_bytes, format_duration
from meibo.providers import provider_title
from meibo.report.html import Column, line_chart, note, section, table
from meibo.report.state import RUNS_SHOWN, ExportHistory, ReportState, RunSummary
from meibo.report.texts import Texts
from meibo.settings import GIB, ReportLanguage

_RUNS_LISTED: Final = 10
# If there are more exports, the page contains one row per source, and only exports that need attention are listed.
_MAX_EXPORTS_LISTED: Final = 200
_MAX_PROBLEMS_LISTED: Final = 500
_MARKS: Final = {"ok": "✓", "suspect": "!", "missing": "✕"}

# From the table "Duration and cost of one export" in docs/performance.md: the state transitions, requests and
# invocations of one export, and the duration of copying a GiB.
USD_PER_EXPORT: Final = 0.0006
USD_PER_GIB: Final = 0.001


def render(state: ReportState, *, language: ReportLanguage = "en", timezone: str = "UTC") -> str:
    """Return the HTML of the report. Times are shown in ``timezone`` and in UTC."""
    return _Page(state, Texts(language), _zone(timezone)).html()


def estimated_usd(counts: RunCounts) -> float:
    """Return the estimated cost of a run at the list prices of us-east-1, without storage."""
    return counts.planned * USD_PER_EXPORT + counts.bytes / GIB * USD_PER_GIB


def _zone(name: str) -> tzinfo:
    # A missing time zone database must not prevent the report.
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


@dataclass(frozen=True)
class _Page:
    state: ReportState
    texts: Texts
    zone: tzinfo

    def html(self) -> str:
        style = files("meibo.report").joinpath("style.css").read_text(encoding="utf-8")
        is_long = len(self.state.histories) > _MAX_EXPORTS_LISTED
        body = [
            self._header(),
            "<main>",
            self._tiles(),
            self._problems(),
            self._sources() if is_long else self._exports(),
            self._runs(),
            *self._changes(),
            "</main>",
            f"<footer><p>{escape(self.texts.footer.format(zone=self._zone_names()))}</p></footer>",
        ]
        return (
            f'<!doctype html>\n<html lang="{self.texts.language}">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="robots" content="noindex">\n'
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline';"
            ' img-src data:">\n'
            '<link rel="icon" href="data:,">\n'
            f"<title>Meibo: {escape(self._verdict()[1])}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
            + "\n".join(part for part in body if part)
            + "\n</body>\n</html>\n"
        )

    def _header(self) -> str:
        kind, text = self._verdict()
        written = escape(self.texts.written).format(time=self._inline_time(self.state.written_at))
        return (
            f'<header><h1>Meibo <span lang="ja">名簿</span></h1><p class="state {kind}">{_MARKS[kind]}'
            f' {escape(text)}</p><p class="soft">{written}</p></header>'
        )

    def _verdict(self) -> tuple[str, str]:
        texts, verification = self.texts, self.state.verification
        if not self.state.runs:
            return "missing", texts.no_run
        counts = self.state.runs[0].counts
        if counts.missing:
            return "missing", texts.run_incomplete.format(exports=self._exports_count(counts.missing))
        if verification and verification.damaged:
            return "missing", texts.run_damaged.format(objects=self._objects_count(verification.damaged))
        if counts.suspect:
            return "suspect", texts.run_suspect.format(exports=self._exports_count(counts.suspect))
        return "ok", texts.run_complete.format(exports=self._exports_count(counts.archived))

    def _tiles(self) -> str:
        texts = self.texts
        tiles: list[tuple[str, str]] = []
        if self.state.runs:
            run = self.state.runs[0]
            counts = run.counts
            problems = counts.missing + counts.suspect
            attention = self._exports_count(problems) if problems else texts.no_attention
            tiles = [
                (texts.attention, f'<span class="{"suspect" if problems else "ok"}">{escape(attention)}</span>'),
                (texts.latest_run, f"{self._stacked_time(run_moment(run.run_id))}{_small(run.run_id)}"),
                (texts.duration, escape(self._duration(run.seconds)) + _small(self._cost(counts))),
                (texts.archived_exports, f"{counts.archived:,}" + _small(self._size(counts))),
                (texts.changes, self._changes_tile()),
            ]
        tiles.append((texts.last_verification, self._verification()))
        return (
            '<dl class="tiles">'
            + "".join(f"<div><dt>{escape(name)}</dt><dd>{html}</dd></div>" for name, html in tiles)
            + "</dl>"
        )

    def _cost(self, counts: RunCounts) -> str:
        usd = estimated_usd(counts)
        return self.texts.cost.format(usd=f"{usd:.2f}" if usd >= 1 else f"{usd:.2g}")

    def _size(self, counts: RunCounts) -> str:
        return self.texts.archived_size.format(rows=f"{counts.rows:,}", size=format_bytes(counts.bytes))

    def _changes_tile(self) -> str:
        texts, changes = self.texts, self.state.changes
        total = sum(changes.of_run.values(), Counter())
        summary = texts.changes_summary.format(applied=f"{total['applied']:,}", rejected=f"{total['rejected']:,}")
        period = texts.changes_since if changes.run_since else texts.changes_period.format(days=changes.days)
        text = summary if total["applied"] or total["rejected"] else texts.no_changes
        return escape(text) + _small(period)

    def _verification(self) -> str:
        record, texts = self.state.verification, self.texts
        if record is None:
            return f'<span class="soft">{escape(texts.never)}</span>'
        kind, text = "ok", texts.verified.format(count=f"{record.exports:,}")
        if record.damaged:
            kind, text = "missing", self._objects_count(record.damaged)
        elif record.unchecked:
            kind, text = "suspect", texts.unchecked.format(count=f"{record.unchecked:,}")
        time = self._stacked_time(datetime.fromisoformat(record.at))
        return f'<span class="{kind}">{escape(text)}</span><small class="soft">{time}</small>'

    def _problems(self) -> str:
        latest, texts = self.state.latest, self.texts
        if latest is None:
            return ""
        reasons = self.state.suspect_reasons
        problems = [("missing", export.export_id, f"{export.error}: {export.reason}") for export in latest.missing]
        suspects = latest.manifest.suspects
        problems += [("suspect", export.export_id, reasons.get(export.export_id, "")) for export in suspects]
        if not problems:
            return ""
        # The reasons are English messages of Meibo.
        rows = [
            (escape(export_id), self._state(kind), f'<span lang="en">{escape(reason)}</span>')
            for kind, export_id, reason in problems[:_MAX_PROBLEMS_LISTED]
        ]
        columns = (Column(texts.export), Column(texts.state), Column(texts.reason))
        html = self._table(texts.problems, columns, rows)
        if len(problems) > _MAX_PROBLEMS_LISTED:
            more = f"{len(problems) - _MAX_PROBLEMS_LISTED:,}"
            html += note(texts.more_problems.format(count=more, key=latest.manifest_key))
        return section(texts.problems, "problems", html)

    def _exports(self) -> str:
        missing = self._missing()
        sources = _by_source(self.state.histories)
        return "\n".join(self._source(name, histories, missing) for name, histories in sources.items())

    def _source(self, name: str, histories: Sequence[ExportHistory], missing: Collection[str]) -> str:
        texts = self.texts
        rows = []
        for history in histories:
            latest, address = history.latest, history.address
            rows.append(
                (
                    escape(f"{address.dataset} · {address.format} · {address.scope}"),
                    self._state("missing" if address.export_id in missing else latest.verdict),
                    self._stacked_time(run_moment(latest.folder.run_id)),
                    escape(texts.not_counted if latest.rows is None else f"{latest.rows:,}"),
                    self._chart(history.rows, texts.rows_of.format(export=address.export_id)),
                    format_bytes(latest.bytes),
                    self._chart(history.bytes, texts.bytes_of.format(export=address.export_id)),
                )
            )
        columns = (
            Column(texts.export),
            Column(texts.state),
            Column(texts.latest, "time"),
            Column(texts.rows, "number"),
            Column(texts.rows_over_time),
            Column(texts.size, "number"),
            Column(texts.size_over_time),
        )
        title = texts.source_title.format(name=name, provider=provider_title(histories[0].address.provider))
        return section(title, f"source {name}", self._table(texts.exports_of.format(name=name), columns, rows))

    def _chart(self, values: Sequence[int], name: str) -> str:
        if not values:
            return ""
        label = self.texts.chart.format(
            name=name,
            first=f"{values[0]:,}",
            last=f"{values[-1]:,}",
            count=len(values),
            lowest=f"{min(values):,}",
            highest=f"{max(values):,}",
        )
        return line_chart(values, label)

    def _sources(self) -> str:
        texts, missing = self.texts, self._missing()
        rows = []
        for name, histories in _by_source(self.state.histories).items():
            latest = [history.latest for history in histories]
            lacking = any(export.export_id in missing for export in latest)
            suspect = any(export.verdict == "suspect" and export.export_id not in missing for export in latest)
            provider = provider_title(histories[0].address.provider)
            rows.append(
                (
                    escape(texts.source_title.format(name=name, provider=provider)),
                    self._state("missing" if lacking else "suspect" if suspect else "ok"),
                    self._stacked_time(run_moment(max(export.folder.run_id for export in latest))),
                    f"{len(latest):,}",
                    f"{sum(export.rows or 0 for export in latest):,}",
                    format_bytes(sum(export.bytes for export in latest)),
                )
            )
        columns = (
            Column(texts.source),
            Column(texts.state),
            Column(texts.latest, "time"),
            Column(texts.export_count, "number"),
            Column(texts.rows, "number"),
            Column(texts.size, "number"),
        )
        return section(texts.sources, "sources", self._table(texts.sources, columns, rows))

    def _missing(self) -> frozenset[str]:
        latest = self.state.latest
        return frozenset(export.export_id for export in (latest.missing if latest else ()))

    def _runs(self) -> str:
        if not self.state.runs:
            return ""
        texts = self.texts
        names = (texts.archived, texts.missing, texts.suspect, texts.rows, texts.size)
        columns = [Column(texts.run), Column(texts.state), Column(texts.time, "time"), Column(texts.duration, "number")]
        columns += [Column(_capitalized(name), "number") for name in names]
        rows = [self._run(run) for run in self.state.runs[:_RUNS_LISTED]]
        notes = note(texts.charts_note.format(count=RUNS_SHOWN)) + note(texts.cost_note)
        return section(texts.runs, "runs", self._table(texts.runs, columns, rows) + notes)

    def _run(self, run: RunSummary) -> tuple[str, ...]:
        counts, texts = run.counts, self.texts
        is_incomplete = counts.missing > 0
        return (
            escape(run.run_id),
            self._state("missing" if is_incomplete else "ok", texts.incomplete if is_incomplete else texts.complete),
            self._stacked_time(run_moment(run.run_id)),
            escape(self._duration(run.seconds)),
            f"{counts.archived:,}",
            f"{counts.missing:,}",
            f"{counts.suspect:,}",
            f"{counts.rows:,}",
            format_bytes(counts.bytes),
        )

    def _changes(self) -> Iterable[str]:
        texts, changes = self.texts, self.state.changes
        days = texts.changes_of_days.format(days=changes.days)
        for title, name, outcomes in (
            (texts.changes_of_run, "changes of the run", changes.of_run if changes.run_since else {}),
            (days, "changes", changes.outcomes),
        ):
            if outcomes:
                html = self._changes_table(title, outcomes)
                yield section(title, name, html + (note(texts.changes_note) if changes.more else ""))

    def _changes_table(self, title: str, outcomes: Mapping[str, Counter[str]]) -> str:
        kinds = {"applied": self.texts.applied, "rejected": self.texts.rejected, "dry_run": self.texts.dry_run}
        columns = [Column(self.texts.source), *(Column(name, "number") for name in kinds.values())]
        rows = [
            (escape(source), *(f"{counts[kind]:,}" for kind in kinds)) for source, counts in sorted(outcomes.items())
        ]
        return self._table(title, columns, rows)

    def _table(self, caption: str, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
        return table(caption, self.texts.table.format(name=caption), columns, rows)

    def _state(self, kind: str, text: str | None = None) -> str:
        names = {"ok": self.texts.ok, "missing": self.texts.missing, "suspect": self.texts.suspect}
        mark = f'<span aria-hidden="true">{_MARKS[kind]}</span>'
        return f'<span class="state {kind}">{mark} {escape(text or names[kind])}</span>'

    def _exports_count(self, count: int) -> str:
        return (self.texts.exports_one if count == 1 else self.texts.exports).format(count=f"{count:,}")

    def _objects_count(self, count: int) -> str:
        return (self.texts.objects_one if count == 1 else self.texts.objects).format(count=f"{count:,}")

    def _duration(self, seconds: int) -> str:
        return format_duration(seconds, (self.texts.hours, self.texts.minutes, self.texts.seconds))

    def _stacked_time(self, moment: datetime) -> str:
        """Return a time in the time zone of the page, and in UTC on a second line."""
        return self._element(moment, "<small>{}</small>")

    def _inline_time(self, moment: datetime) -> str:
        return self._element(moment, " ({})")

    def _element(self, moment: datetime, form: str) -> str:
        local, utc = _text(moment.astimezone(self.zone)), _text(moment.astimezone(UTC))
        text = utc if local == utc else f"{local}{form.format(utc)}"
        return f'<time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}">{text}</time>'

    def _zone_names(self) -> str:
        return "UTC" if str(self.zone) == "UTC" else self.texts.zones.format(zone=self.zone)


def _by_source(histories: Iterable[ExportHistory]) -> Mapping[str, list[ExportHistory]]:
    sources: dict[str, list[ExportHistory]] = {}
    for history in histories:
        sources.setdefault(history.address.source, []).append(history)
    return sources


def _small(text: str) -> str:
    return f'<small class="soft">{escape(text)}</small>'


def _text(moment: datetime) -> str:
    # The name of a time zone without an abbreviation is an offset such as "+07".
    zone = moment.tzname() or ""
    return f"{moment:%Y-%m-%d %H:%M} {zone if zone.isalpha() else f'UTC{zone}'}"


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
