"""The report as one HTML file, without scripts and without external resources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from importlib.resources import files
from typing import Final

from meibo.archive.catalog import Run
from meibo.archive.keys import run_moment
from meibo.formatting import format_bytes, format_count
from meibo.providers import provider_title
from meibo.report import charts
from meibo.report.state import RUNS_SHOWN, ExportHistory, ReportState

_RUNS_LISTED: Final = 10
_UNITS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


_FOOTER: Final = (
    "<footer><p>This page contains counts and sizes, but no user data. Times are UTC. It shows the archive at the time"
    " when it was written.</p></footer>"
)


def render(state: ReportState) -> str:
    """Return the HTML of the report."""
    style = files("meibo.report").joinpath("style.css").read_text(encoding="utf-8")
    body = [
        _header(state),
        "<main>",
        _tiles(state),
        _trouble(state),
        *(_source(name, series, state) for name, series in _by_source(state.series).items()),
        _runs(state),
        _changes(state),
        "</main>",
        _FOOTER,
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="robots" content="noindex">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline';"
        ' img-src data:">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>Meibo: {escape(_verdict(state)[1])}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _header(state: ReportState) -> str:
    kind, words = _verdict(state)
    return (
        f'<header><h1>Meibo <span lang="ja">名簿</span></h1><p class="state {kind}">{escape(words)}</p>'
        f'<p class="soft">Written {_time(state.written_at)}</p></header>'
    )


def _verdict(state: ReportState) -> tuple[str, str]:
    if not state.runs:
        return "missing", "No run has ended yet"
    run = state.runs[0]
    missing = len(run.missing)
    suspect = len(run.manifest.suspects)
    if missing:
        return "missing", f"The latest run is incomplete: {format_count(missing, 'export')} missing"
    if suspect:
        return "suspect", f"The latest run is complete, {format_count(suspect, 'export')} suspect"
    return "ok", f"The latest run is complete: {format_count(len(run.exports), 'export')}"


def _tiles(state: ReportState) -> str:
    tiles: list[tuple[str, str]] = []
    if state.runs:
        run = state.runs[0]
        tiles = [
            ("Latest run", _ago(state.written_at, run.run_id)),
            ("Exports archived", f"{len(run.exports):,}"),
            ("Rows", f"{sum(export.rows or 0 for export in run.exports):,}"),
            ("Size", format_bytes(sum(export.bytes for export in run.exports))),
        ]
    tiles.append(("Last verification", _verification(state)))
    return (
        '<dl class="tiles">'
        + "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in tiles)
        + "</dl>"
    )


def _verification(state: ReportState) -> str:
    record = state.verification
    if record is None:
        return '<span class="soft">never</span>'
    kind, words = "ok", f"{record.exports:,} OK"
    if record.damaged:
        kind, words = "missing", format_count(record.damaged, "damaged object")
    elif record.unchecked:
        kind, words = "suspect", f"{record.unchecked:,} not checked"
    return f'<span class="{kind}">{escape(words)}</span><small class="soft">{escape(record.at)}</small>'


def _trouble(state: ReportState) -> str:
    if not state.runs:
        return ""
    run = state.runs[0]
    rows = [
        (_head(export.export_id), _state("missing"), _cell("Reason", f"{export.error}: {export.reason}"))
        for export in run.missing
    ]
    rows += [
        (_head(export.export_id), _state("suspect"), _cell("Reason", state.suspect_reasons.get(export.export_id, "")))
        for export in run.manifest.suspects
    ]
    if not rows:
        return ""
    return _section("Missing and suspect exports", "trouble", _table("trouble", ("Export", "State", "Reason"), rows))


def _by_source(series: Iterable[ExportHistory]) -> Mapping[str, list[ExportHistory]]:
    sources: dict[str, list[ExportHistory]] = {}
    for history in series:
        sources.setdefault(history.address.source, []).append(history)
    return sources


def _source(name: str, series: Sequence[ExportHistory], state: ReportState) -> str:
    missing = {export.export_id for export in (state.runs[0].missing if state.runs else ())}
    rows = []
    for history in series:
        latest = history.latest
        address = history.address
        over_time = [point.rows for point in history.points if point.rows is not None]
        rows.append(
            (
                _head(f"{address.dataset} · {address.format} · {address.scope}"),
                _state("missing" if address.export_id in missing else latest.verdict),
                _cell("Latest", _ago(state.written_at, latest.folder.run_id)),
                _number("Rows", "not counted" if latest.rows is None else f"{latest.rows:,}"),
                _raw("Rows over time", charts.line(over_time, f"rows of {address.export_id}")),
                _number("Size", format_bytes(latest.bytes)),
                _raw(
                    "Size over time",
                    charts.line([point.bytes for point in history.points], f"bytes of {address.export_id}"),
                ),
            )
        )
    title = provider_title(series[0].address.provider)
    names = ("Export", "State", "Latest", "Rows", "Rows over time", "Size", "Size over time")
    return _section(f"{name} ({title})", f"source {name}", _table(f"exports of {name}", names, rows))


def _runs(state: ReportState) -> str:
    if not state.runs:
        return ""
    rows = [_run(run) for run in state.runs[:_RUNS_LISTED]]
    note = f'<p class="soft">The charts show up to {RUNS_SHOWN} runs.</p>'
    names = ("Run", "State", "Archived", "Missing", "Suspect", "Rows", "Size")
    return _section("Latest runs", "runs", _table("latest runs", names, rows) + note)


def _run(run: Run) -> tuple[str, ...]:
    exports = run.exports
    return (
        _head(f"{run_moment(run.run_id):%Y-%m-%d %H:%M}"),
        _state("missing" if run.missing else "ok", "incomplete" if run.missing else "complete"),
        _number("Archived", f"{len(exports):,}"),
        _number("Missing", f"{len(run.missing):,}"),
        _number("Suspect", f"{len(run.manifest.suspects):,}"),
        _number("Rows", f"{sum(export.rows or 0 for export in exports):,}"),
        _number("Size", format_bytes(sum(export.bytes for export in exports))),
    )


def _changes(state: ReportState) -> str:
    changes = state.changes
    if not changes.outcomes:
        return ""
    rows = [
        (
            _head(source),
            _number("Applied", f"{counts['applied']:,}"),
            _number("Rejected", f"{counts['rejected']:,}"),
            _number("Dry run", f"{counts['dry_run']:,}"),
        )
        for source, counts in sorted(changes.outcomes.items())
    ]
    more = (
        '<p class="soft">Not all outcomes are counted; the newest of each source are counted first.</p>'
        if changes.more
        else ""
    )
    table = _table("membership changes by outcome", ("Source", "Applied", "Rejected", "Dry run"), rows)
    return _section(f"Membership changes of the last {changes.days} days", "changes", table + more)


def _section(title: str, name: str, inner: str) -> str:
    identity = "".join(character if character.isalnum() else "-" for character in name)
    return f'<section aria-labelledby="{identity}"><h2 id="{identity}">{escape(title)}</h2>{inner}</section>'


def _table(caption: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    numbers = {"Rows", "Size", "Archived", "Missing", "Suspect", "Applied", "Rejected", "Dry run"}
    head = "".join(f'<th scope="col"{" class=number" if name in numbers else ""}>{escape(name)}</th>' for name in names)
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    # A region that scrolls must be reachable by keyboard.
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="Table: {escape(caption)}"><table class="cards">'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _head(text: str) -> str:
    return f'<th scope="row">{escape(text)}</th>'


def _cell(name: str, text: str) -> str:
    return _raw(name, f"<span>{escape(text)}</span>")


def _raw(name: str, html: str) -> str:
    return f'<td data-name="{escape(name)}">{html}</td>'


def _number(name: str, text: str) -> str:
    return f'<td class="number" data-name="{escape(name)}">{escape(text)}</td>'


_MARKS: Final = {"ok": "✓", "suspect": "!", "missing": "✕"}


def _state(kind: str, words: str | None = None) -> str:
    known = kind if kind in _MARKS else "suspect"
    mark = f'<span aria-hidden="true">{_MARKS[known]}</span>'
    return f'<td data-name="State"><span class="state {known}">{mark} {escape(words or kind)}</span></td>'


def _time(moment: datetime) -> str:
    return f'<time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}">{moment:%Y-%m-%d %H:%M}</time>'


def _ago(now: datetime, run_id: str) -> str:
    seconds = int((now - run_moment(run_id)).total_seconds())
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{format_count(seconds // length, unit)} ago"
    return "just now"
