"""The texts of the report, one table per language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from meibo.settings import ReportLanguage


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The texts of one language.

    Names in braces are placeholders. Fields whose names end in ``_one`` are used for the number 1.
    """

    # The state of the archive
    no_run: str
    run_complete: str
    run_incomplete: str
    run_suspect: str
    run_damaged: str
    written: str
    # Numbers with nouns
    exports_one: str
    exports: str
    objects_one: str
    objects: str
    hours: str
    minutes: str
    seconds: str
    # States
    ok: str
    missing: str
    suspect: str
    complete: str
    incomplete: str
    # The row at the top
    latest_run: str
    duration: str
    cost: str
    archived_exports: str
    archived_size: str
    attention: str
    no_attention: str
    rows: str
    changes: str
    no_changes: str
    changes_summary: str
    changes_since: str
    changes_period: str
    last_verification: str
    never: str
    verified: str
    unchecked: str
    # Titles of sections and tables
    problems: str
    sources: str
    runs: str
    changes_of_run: str
    changes_of_days: str
    source_title: str
    table: str
    exports_of: str
    # Columns
    export: str
    source: str
    state: str
    reason: str
    latest: str
    rows_over_time: str
    size: str
    size_over_time: str
    export_count: str
    run: str
    time: str
    archived: str
    applied: str
    rejected: str
    dry_run: str
    # Cells and notes
    not_counted: str
    rows_of: str
    bytes_of: str
    chart: str
    more_problems: str
    charts_note: str
    cost_note: str
    changes_note: str
    zones: str
    footer: str


ENGLISH: Final = Texts(
    no_run="No run has ended yet",
    run_complete="The latest run is complete: {exports}",
    run_incomplete="The latest run is incomplete: {exports} missing",
    run_suspect="The latest run is complete, {exports} suspect",
    run_damaged="The latest run is complete, but the last verification found {objects}",
    written="Written {time}",
    exports_one="{count} export",
    exports="{count} exports",
    objects_one="{count} damaged object",
    objects="{count} damaged objects",
    hours="{count} h",
    minutes="{count} min",
    seconds="{count} s",
    ok="OK",
    missing="missing",
    suspect="suspect",
    complete="complete",
    incomplete="incomplete",
    latest_run="Latest run",
    duration="Duration",
    cost="cost: about ${usd}",
    archived_exports="Exports archived",
    archived_size="{rows} rows, {size}",
    attention="Needs attention",
    no_attention="nothing",
    rows="Rows",
    changes="Membership changes",
    no_changes="none",
    changes_summary="{applied} applied, {rejected} rejected",
    changes_since="since the previous run",
    changes_period="in {days} days",
    last_verification="Last verification",
    never="never",
    verified="{count} OK",
    unchecked="{count} not checked",
    problems="Missing and suspect exports",
    sources="Sources",
    runs="Latest runs",
    changes_of_run="Membership changes since the previous run",
    changes_of_days="Membership changes of the last {days} days",
    source_title="{name} ({provider})",
    table="Table: {name}",
    exports_of="exports of {name}",
    export="Export",
    source="Source",
    state="State",
    reason="Reason",
    latest="Latest",
    rows_over_time="Rows over time",
    size="Size",
    size_over_time="Size over time",
    export_count="Exports",
    run="Run",
    time="Time",
    archived="Archived",
    applied="Applied",
    rejected="Rejected",
    dry_run="Dry run",
    not_counted="not counted",
    rows_of="rows of {export}",
    bytes_of="bytes of {export}",
    chart="{name}: {first} to {last} over {count} runs, lowest {lowest}, highest {highest}",
    more_problems="{count} more are listed in {key}.",
    charts_note="The charts show up to {count} runs.",
    cost_note="The cost is an estimate from the list prices of us-east-1, without storage.",
    changes_note="Not all outcomes are counted; the newest of each source are counted first.",
    zones="{zone} and UTC",
    footer="This page contains counts and sizes, but no user data. Times are in {zone}. It shows the archive at the"
    " time when it was written.",
)

JAPANESE: Final = Texts(
    no_run="終了した実行はまだありません",
    run_complete="最新の実行は正常に完了しました（エクスポート {exports}）",
    run_incomplete="最新の実行は未完了です（欠落 {exports}）",
    run_suspect="最新の実行は完了しましたが、要確認のエクスポートが {exports}あります",
    run_damaged="最新の実行は完了しましたが、直近の検証で破損が見つかりました（{objects}）",
    written="作成日時: {time}",
    exports_one="{count} 件",
    exports="{count} 件",
    objects_one="破損したオブジェクト {count} 件",
    objects="破損したオブジェクト {count} 件",
    hours="{count} 時間",
    minutes="{count} 分",
    seconds="{count} 秒",
    ok="正常",
    missing="欠落",
    suspect="要確認",
    complete="完了",
    incomplete="未完了",
    latest_run="最新の実行",
    duration="所要時間",
    cost="費用: 約 {usd} 米ドル",
    archived_exports="保存済みエクスポート",
    archived_size="{rows} 行、{size}",
    attention="要対応",
    no_attention="なし",
    rows="行数",
    changes="メンバー変更",
    no_changes="なし",
    changes_summary="適用 {applied} 件、拒否 {rejected} 件",
    changes_since="前回の実行以降",
    changes_period="過去 {days} 日間",
    last_verification="直近の検証",
    never="未実施",
    verified="{count} 件正常",
    unchecked="{count} 件未検証",
    problems="欠落および要確認のエクスポート",
    sources="ソース",
    runs="最近の実行",
    changes_of_run="前回の実行以降のメンバー変更",
    changes_of_days="過去 {days} 日間のメンバー変更",
    source_title="{name}（{provider}）",
    table="表: {name}",
    exports_of="{name} のエクスポート",
    export="エクスポート",
    source="ソース",
    state="状態",
    reason="理由",
    latest="最新の保存日時",
    rows_over_time="行数の推移",
    size="サイズ",
    size_over_time="サイズの推移",
    export_count="エクスポート数",
    run="実行 ID",
    time="日時",
    archived="保存",
    applied="適用",
    rejected="拒否",
    dry_run="ドライラン",
    not_counted="未集計",
    rows_of="{export} の行数",
    bytes_of="{export} のバイト数",
    chart="{name}: 直近 {count} 回で {first} から {last} に推移（最小 {lowest}、最大 {highest}）",
    more_problems="ほか {count} 件は {key} を参照してください。",
    charts_note="グラフには直近の最大 {count} 回分を表示しています。",
    cost_note="費用は us-east-1 の料金に基づく概算です（ストレージ料金は含みません）。",
    changes_note="集計したのは一部の結果のみです（ソースごとに新しい順）。",
    zones="{zone} と UTC",
    footer="このページに含まれるのは件数とサイズのみで、ユーザーデータは含まれません。時刻は {zone} で表示しています。"
    "内容はページ作成時点のものです。",
)

TEXTS: Final[dict[ReportLanguage, Texts]] = {"en": ENGLISH, "ja": JAPANESE}
