"""The report as one HTML file, without scripts and without external resources."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from importlib.resources import files
from typing import Final

from meibo.archive.keys import run_moment
from meibo.formatting import format_bytes, format_count, format_duration
from meibo.providers import provider_title
from meibo.report import charts
from meibo.report.state import RUNS_SHOWN, ExportHistory, ReportState, RunSummary

_RUNS_LISTED: Final = 10
# With more exports, the page has one row per source and lists only the exports that need attention.
_MAX_EXPORTS_LISTED: Final = 200
_MAX_PROBLEMS_LISTED: Final = 500
_MARKS: Final = {"ok": "✓", "suspect": "!", "missing": "✕"}
_NUMBERS: Final = frozenset(
    {"Exports", "Rows", "Size", "Archived", "Missing", "Suspect", "Duration", "Applied", "Rejected", "Dry run"}
)

_FOOTER: Final = (
    "<footer><p>This page contains counts and sizes, but no user data. Times are UTC. It shows the archive at the time"
    " when it was written.</p></footer>"
)


def render(state: ReportState) -> str:
    """Return the HTML of the report."""
    style = files("meibo.report").joinpath("style.css").read_text(encoding="utf-8")
    is_long = len(state.histories) > _MAX_EXPORTS_LISTED
    body = [
        _header(state),
        "<main>",
        _tiles(state),
        _problems(state),
        _sources(state) if is_long else _exports(state),
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
    kind, text = _verdict(state)
    return (
        f'<header><h1>Meibo <span lang="ja">名簿</span></h1><p class="state {kind}">{_MARKS[kind]} {escape(text)}</p>'
        f'<p class="soft">Written {_time(state.written_at)}</p></header>'
    )


def _verdict(state: ReportState) -> tuple[str, str]:
    if not state.runs:
        return "missing", "No run has ended yet"
    counts = state.runs[0].counts
    if counts.missing:
        return "missing", f"The latest run is incomplete: {format_count(counts.missing, 'export')} missing"
    if state.verification and state.verification.damaged:
        damaged = format_count(state.verification.damaged, "damaged object")
        return "missing", f"The latest run is complete, but the last verification found {damaged}"
    if counts.suspect:
        return "suspect", f"The latest run is complete, {format_count(counts.suspect, 'export')} suspect"
    return "ok", f"The latest run is complete: {format_count(counts.archived, 'export')}"


def _tiles(state: ReportState) -> str:
    tiles: list[tuple[str, str]] = []
    if state.runs:
        run = state.runs[0]
        problems = run.counts.missing + run.counts.suspect
        attention = f'<span class="suspect">{problems:,}</span>' if problems else '<span class="ok">0</span>'
        tiles = [
            ("Latest run", _date(run_moment(run.run_id))),
            ("Duration", format_duration(run.seconds)),
            ("Exports archived", f"{run.counts.archived:,}"),
            ("Need attention", attention),
            ("Rows", f'{run.counts.rows:,}<small class="soft">{format_bytes(run.counts.bytes)}</small>'),
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
    kind, text = "ok", f"{record.exports:,} OK"
    if record.damaged:
        kind, text = "missing", format_count(record.damaged, "damaged object")
    elif record.unchecked:
        kind, text = "suspect", f"{record.unchecked:,} not checked"
    time = _time(datetime.fromisoformat(record.at))
    return f'<span class="{kind}">{escape(text)}</span><small class="soft">{time}</small>'


def _problems(state: ReportState) -> str:
    if state.latest is None:
        return ""
    rows = [
        (_head(export.export_id), _state("missing"), _cell("Reason", f"{export.error}: {export.reason}"))
        for export in state.latest.missing
    ]
    rows += [
        (_head(export.export_id), _state("suspect"), _cell("Reason", state.suspect_reasons.get(export.export_id, "")))
        for export in state.latest.manifest.suspects
    ]
    if not rows:
        return ""
    table = _table("problems", ("Export", "State", "Reason"), rows[:_MAX_PROBLEMS_LISTED])
    if len(rows) > _MAX_PROBLEMS_LISTED:
        more = len(rows) - _MAX_PROBLEMS_LISTED
        table += f'<p class="soft">{more:,} more are listed in {escape(state.latest.manifest_key)}.</p>'
    return _section("Missing and suspect exports", "problems", table)


def _exports(state: ReportState) -> str:
    missing = _missing(state)
    return "\n".join(_source(name, histories, missing) for name, histories in _by_source(state.histories).items())


def _by_source(histories: Iterable[ExportHistory]) -> Mapping[str, list[ExportHistory]]:
    sources: dict[str, list[ExportHistory]] = {}
    for history in histories:
        sources.setdefault(history.address.source, []).append(history)
    return sources


def _source(name: str, histories: Sequence[ExportHistory], missing: Collection[str]) -> str:
    rows = []
    for history in histories:
        latest, address = history.latest, history.address
        rows.append(
            (
                _head(f"{address.dataset} · {address.format} · {address.scope}"),
                _state("missing" if address.export_id in missing else latest.verdict),
                _raw("Latest", _time(run_moment(latest.folder.run_id))),
                _number("Rows", "not counted" if latest.rows is None else f"{latest.rows:,}"),
                _raw("Rows over time", charts.line(history.rows, f"rows of {address.export_id}")),
                _number("Size", format_bytes(latest.bytes)),
                _raw("Size over time", charts.line(history.bytes, f"bytes of {address.export_id}")),
            )
        )
    title = provider_title(histories[0].address.provider)
    names = ("Export", "State", "Latest", "Rows", "Rows over time", "Size", "Size over time")
    return _section(f"{name} ({title})", f"source {name}", _table(f"exports of {name}", names, rows))


def _sources(state: ReportState) -> str:
    missing = _missing(state)
    rows = []
    for name, histories in _by_source(state.histories).items():
        latest = [history.latest for history in histories]
        lacking = sum(export.export_id in missing for export in latest)
        suspect = sum(export.verdict == "suspect" and export.export_id not in missing for export in latest)
        rows.append(
            (
                _head(f"{name} ({provider_title(histories[0].address.provider)})"),
                _state("missing" if lacking else "suspect" if suspect else "ok"),
                _raw("Latest", _time(run_moment(max(export.folder.run_id for export in latest)))),
                _number("Exports", f"{len(latest):,}"),
                _number("Rows", f"{sum(export.rows or 0 for export in latest):,}"),
                _number("Size", format_bytes(sum(export.bytes for export in latest))),
            )
        )
    names = ("Source", "State", "Latest", "Exports", "Rows", "Size")
    return _section("Sources", "sources", _table("sources", names, rows))


def _missing(state: ReportState) -> frozenset[str]:
    return frozenset(export.export_id for export in (state.latest.missing if state.latest else ()))


def _runs(state: ReportState) -> str:
    if not state.runs:
        return ""
    rows = [_run(run) for run in state.runs[:_RUNS_LISTED]]
    note = f'<p class="soft">The charts show up to {RUNS_SHOWN} runs.</p>'
    names = ("Run", "State", "Time", "Duration", "Archived", "Missing", "Suspect", "Rows", "Size")
    return _section("Latest runs", "runs", _table("latest runs", names, rows) + note)


def _run(run: RunSummary) -> tuple[str, ...]:
    counts = run.counts
    return (
        _head(run.run_id),
        _state("missing" if counts.missing else "ok", "incomplete" if counts.missing else "complete"),
        _raw("Time", _time(run_moment(run.run_id))),
        _number("Duration", format_duration(run.seconds)),
        _number("Archived", f"{counts.archived:,}"),
        _number("Missing", f"{counts.missing:,}"),
        _number("Suspect", f"{counts.suspect:,}"),
        _number("Rows", f"{counts.rows:,}"),
        _number("Size", format_bytes(counts.bytes)),
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
    note = "Not all outcomes are counted; the newest of each source are counted first."
    more = f'<p class="soft">{note}</p>' if changes.more else ""
    table = _table("membership changes by outcome", ("Source", "Applied", "Rejected", "Dry run"), rows)
    return _section(f"Membership changes of the last {changes.days} days", "changes", table + more)


def _section(title: str, name: str, inner: str) -> str:
    identity = "".join(character if character.isalnum() else "-" for character in name)
    return f'<section aria-labelledby="{identity}"><h2 id="{identity}">{escape(title)}</h2>{inner}</section>'


def _table(caption: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(
        f'<th scope="col"{" class=number" if name in _NUMBERS else ""}>{escape(name)}</th>' for name in names
    )
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


def _state(kind: str, text: str | None = None) -> str:
    mark = f'<span aria-hidden="true">{_MARKS[kind]}</span>'
    return f'<td data-name="State"><span class="state {kind}">{mark} {escape(text or kind)}</span></td>'


def _date(moment: datetime) -> str:
    return f'<time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}">{moment:%Y-%m-%d} <small>{moment:%H:%M} UTC</small></time>'


def _time(moment: datetime) -> str:
    return f'<time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}">{moment:%Y-%m-%d %H:%M} UTC</time>'
