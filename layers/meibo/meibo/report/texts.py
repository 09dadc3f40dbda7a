"""The texts of the report in English and Japanese."""

from __future__ import annotations

from dataclasses import dataclass

from meibo.settings import ReportLanguage


@dataclass(frozen=True)
class _Text:
    """An English and a Japanese text. An attribute of ``Texts`` returns the text in the language of the page."""

    en: str
    ja: str

    def __get__(self, texts: Texts, owner: type[Texts]) -> str:
        text: str = getattr(self, texts.language)
        return text


@dataclass(frozen=True)
class Texts:
    """The texts of a page in one language.

    Names in braces are placeholders. Texts whose names end with ``_one`` are used if the number is 1.
    """

    language: ReportLanguage

    # The state of the archive
    no_run = _Text("No run has ended yet", "終了した実行はまだありません")
    run_complete = _Text(
        "The latest run is complete: {exports}", "最新の実行は正常に完了しました（エクスポート {exports}）"
    )
    run_incomplete = _Text(
        "The latest run is incomplete: {exports} missing", "最新の実行は未完了です（欠落 {exports}）"
    )
    run_suspect = _Text(
        "The latest run is complete, {exports} suspect",
        "最新の実行は完了しましたが、要確認のエクスポートが {exports}あります",
    )
    run_damaged = _Text(
        "The latest run is complete, but the last verification found {objects}",
        "最新の実行は完了しましたが、直近の検証で破損が見つかりました（{objects}）",
    )
    written = _Text("Created {time}", "作成日時: {time}")
    # Numbers with nouns
    exports_one = _Text("{count} export", "{count} 件")
    exports = _Text("{count} exports", "{count} 件")
    objects_one = _Text("{count} damaged object", "破損したオブジェクト {count} 件")
    objects = _Text("{count} damaged objects", "破損したオブジェクト {count} 件")
    hours = _Text("{count} h", "{count} 時間")
    minutes = _Text("{count} min", "{count} 分")
    seconds = _Text("{count} s", "{count} 秒")
    # States
    ok = _Text("OK", "正常")
    missing = _Text("missing", "欠落")
    suspect = _Text("suspect", "要確認")
    complete = _Text("complete", "完了")
    incomplete = _Text("incomplete", "未完了")
    # The row at the top
    latest_run = _Text("Latest run", "最新の実行")
    duration = _Text("Duration", "所要時間")
    cost = _Text("cost: about ${usd}", "費用: 約 {usd} 米ドル")
    archived_exports = _Text("Exports archived", "保存済みエクスポート")
    archived_size = _Text("{rows} rows, {size}", "{rows} 行、{size}")
    attention = _Text("Needs attention", "要対応")
    no_attention = _Text("nothing", "なし")
    rows = _Text("Rows", "行数")
    changes = _Text("Membership changes", "メンバー変更")
    no_changes = _Text("none", "なし")
    changes_summary = _Text("{applied} applied, {rejected} rejected", "適用 {applied} 件、拒否 {rejected} 件")
    changes_since = _Text("since the previous run", "前回の実行以降")
    changes_period = _Text("in {days} days", "過去 {days} 日間")
    last_verification = _Text("Last verification", "直近の検証")
    never = _Text("never", "未実施")
    verified = _Text("{count} OK", "{count} 件正常")
    unchecked = _Text("{count} not checked", "{count} 件未検証")
    # Titles of sections and tables
    problems = _Text("Missing and suspect exports", "欠落および要確認のエクスポート")
    sources = _Text("Sources", "ソース")
    runs = _Text("Latest runs", "最近の実行")
    changes_of_run = _Text("Membership changes since the previous run", "前回の実行以降のメンバー変更")
    changes_of_days = _Text("Membership changes of the last {days} days", "過去 {days} 日間のメンバー変更")
    source_title = _Text("{name} ({provider})", "{name}（{provider}）")
    table = _Text("Table: {name}", "表: {name}")
    exports_of = _Text("exports of {name}", "{name} のエクスポート")
    # Columns
    export = _Text("Export", "エクスポート")
    source = _Text("Source", "ソース")
    state = _Text("State", "状態")
    reason = _Text("Reason", "理由")
    latest = _Text("Latest", "最新の保存日時")
    rows_over_time = _Text("Rows over time", "行数の推移")
    size = _Text("Size", "サイズ")
    size_over_time = _Text("Size over time", "サイズの推移")
    export_count = _Text("Exports", "エクスポート数")
    run = _Text("Run", "実行 ID")
    time = _Text("Time", "日時")
    archived = _Text("Archived", "保存")
    applied = _Text("Applied", "適用")
    rejected = _Text("Rejected", "拒否")
    dry_run = _Text("Dry run", "ドライラン")
    # Cells and notes
    not_counted = _Text("not counted", "未集計")
    rows_of = _Text("rows of {export}", "{export} の行数")
    bytes_of = _Text("bytes of {export}", "{export} のバイト数")
    chart = _Text(
        "{name}: {first} to {last} over {count} runs, lowest {lowest}, highest {highest}",
        "{name}: 直近 {count} 回で {first} から {last} に推移（最小 {lowest}、最大 {highest}）",
    )
    more_problems = _Text("{count} more are listed in {key}.", "ほか {count} 件は {key} を参照してください。")
    charts_note = _Text("The charts show up to {count} runs.", "グラフには直近の最大 {count} 回分を表示しています。")
    cost_note = _Text(
        "The cost is an estimate from the list prices of us-east-1, without storage.",
        "費用は us-east-1 の料金に基づく概算です（ストレージ料金は含みません）。",
    )
    changes_note = _Text(
        "Not all outcomes are counted; the newest of each source are counted first.",
        "集計したのは一部の結果のみです（ソースごとに新しい順）。",
    )
    zones = _Text("{zone} and UTC", "{zone} と UTC")
    footer = _Text(
        "This page contains counts and sizes, but no user data. Times are in {zone}. The page shows the state of the"
        " archive at the time of its creation.",
        "このページに含まれるのは件数とサイズのみで、ユーザーデータは含まれません。時刻は {zone} で表示しています。"
        "内容はページ作成時点のものです。",
    )
