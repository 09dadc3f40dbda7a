"""Compare an archived run with the tenant to which it was restored, and report the differences."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final, Literal

import typer

from meibo.formatting import format_count, format_number
from meibo_cli.comparison import Comparison, RowChange
from meibo_cli.encoding import json_bytes
from meibo_cli.restore.archived_rows import DatasetRows
from meibo_cli.restore.directory_planner import DATASETS
from meibo_cli.restore.import_schema import Skipped
from meibo_cli.restore.restorable_rows import (
    USERS,
    Omitted,
    Reference,
    RestorableDirectory,
    RestorableRow,
    RestorableUsers,
    connection_of,
    users_of,
)
from meibo_cli.rows import RowFile
from meibo_cli.terminal import Column, TextConsole, escape_control_characters, print_table, printable

REPORT: Final = "report.json"
DIFFERENCES: Final = "differences.ndjson"
_MAX_LINES_SHOWN: Final = 20

State = Literal["missing", "unexpected", "different"]
_STATES: Final[Mapping[str, State]] = {"removed": "missing", "added": "unexpected", "changed": "different"}


@dataclass
class GroupResult:
    """The numbers of rows of a dataset, or of the users of a connection.

    ``impossible`` rows cannot be restored, and ``unexpected`` rows are only in the tenant.
    """

    expected: int = 0
    different: int = 0
    missing: int = 0
    impossible: int = 0
    unexpected: int = 0
    fields: Counter[str] = field(default_factory=Counter)

    @property
    def equal(self) -> int:
        """The number of rows whose restorable values were all restored."""
        return self.expected - self.different - self.missing - self.impossible

    def add(self, change: RowChange) -> None:
        """Count a row that differs, and its fields."""
        state = _STATES[change.kind]
        setattr(self, state, getattr(self, state) + 1)
        self.fields.update(change.fields)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers by name, and the number of different rows by field."""
        return {**vars(self), "equal": self.equal, "fields": dict(self.fields.most_common())}


@dataclass
class DrillReport:
    """The result of a drill.

    ``omitted`` are the numbers of rows and parts of rows that cannot be restored, by name and reason. ``skipped``
    contains the fields of users that an import does not accept, and other values that are not restored.
    """

    run_id: str
    domain: str
    allow_existing: bool
    started_at: datetime
    finished_at: datetime | None = None
    groups: defaultdict[str, GroupResult] = field(default_factory=lambda: defaultdict(GroupResult))
    omitted: Omitted = field(default_factory=Counter)
    missing_datasets: list[str] = field(default_factory=list)
    skipped: Skipped = field(default_factory=Skipped)

    @property
    def seconds(self) -> int:
        """The duration of the restore and the comparison, including interruptions."""
        return round(((self.finished_at or self.started_at) - self.started_at).total_seconds())

    @property
    def passed(self) -> bool:
        """True if every restorable value was restored.

        An unexpected row also counts as a failure, unless the tenant was allowed to have other objects.
        """
        return not any(
            group.different or group.missing or (group.unexpected and not self.allow_existing)
            for group in self.groups.values()
        )

    def to_json(self) -> dict[str, Any]:
        """Return the document ``report.json``, which contains no user data."""
        return {
            "run_id": self.run_id,
            "domain": self.domain,
            "passed": self.passed,
            "started_at": self.started_at.isoformat(timespec="seconds"),
            "seconds": self.seconds,
            "groups": {name: group.to_json() for name, group in self.groups.items()},
            "impossible": [
                {"name": name, "reason": reason, "count": count} for (name, reason), count in self.omitted.most_common()
            ],
            "datasets_not_in_the_run": self.missing_datasets,
            "fields_not_restorable": dict(self.skipped.fields),
            "losses": dict(+self.skipped.losses),
        }


@dataclass
class DrillComparison:
    """The comparison of two archives: of the run, and of the tenant after the restore.

    ``connections`` are the names of the tenant's database connections, and ``impossible`` contains the reasons for the
    objects that the plan cannot restore. Each row that differs is written to ``differences``, without its values.
    """

    archive: DatasetRows
    live: DatasetRows
    connections: Collection[str]
    impossible: Mapping[Reference, str]
    differences: IO[bytes]
    report: DrillReport

    def run(self) -> None:
        """Compare all datasets of the run, and add the results to the report."""
        report = self.report
        if self._has(USERS):
            users = RestorableUsers(self.archive, self.connections, report.omitted, report.skipped)
            self._compare(USERS, users.archived(), users.restored(self.live))
        archived = RestorableDirectory(self.archive, report.omitted, self.impossible)
        restored = RestorableDirectory(self.live)
        for dataset in filter(self._has, DATASETS):
            report.groups[dataset] = GroupResult()
            self._compare(dataset, archived.of(dataset), restored.of(dataset))

    def _has(self, dataset: str) -> bool:
        exists = bool(self.archive.exports(dataset))
        if not exists:
            self.report.missing_datasets.append(dataset)
        return exists

    def _compare(self, dataset: str, archived: Iterable[RestorableRow], restored: Iterable[RestorableRow]) -> None:
        groups = self.report.groups
        with tempfile.TemporaryDirectory(prefix="meibo-drill-") as name:
            folder = Path(name)
            files = [RowFile(folder / f"{side}.ndjson", ("key",)) for side in ("archived", "restored")]
            with files[0].path.open("xb") as file:
                for row in archived:
                    file.write(row.line())
                    groups[_group(dataset, row.key)].expected += 1
            with files[1].path.open("xb") as file:
                file.writelines(row.line() for row in restored)
            for change in Comparison(files[0], files[1], folder, blank_is_null=False).changes():
                group = _group(dataset, change.key)
                groups[group].add(change)
                line = {"name": group, "state": _STATES[change.kind], "key": change.key, "fields": change.fields}
                self.differences.write(json_bytes(line) + b"\n")
        for (name, _), count in self.report.omitted.items():
            if name == dataset or (dataset == USERS and name.startswith(USERS)):
                groups[name].expected += count
                groups[name].impossible += count


def _group(dataset: str, key: str) -> str:
    """Return the name of the group in which the report counts a row."""
    return users_of(connection_of(key)) if dataset == USERS else dataset


def print_report(report: DrillReport) -> None:
    """Print the numbers of rows of each dataset, and the reasons why rows or values were not restored."""
    numbers = ("expected", "equal", "different", "missing", "impossible", "unexpected")
    columns = (Column("dataset"), *(Column(name, number=True) for name in numbers))
    rows = [
        [printable(name), *(format_number(getattr(group, number)) for number in numbers)]
        for name, group in report.groups.items()
    ]
    print_table(TextConsole(), columns, rows)
    lines = [
        f"different, {format_number(count)} {name}: {field_name}"
        for name, group in report.groups.items()
        for field_name, count in group.fields.most_common()
    ]
    lines += [
        f"impossible, {format_number(count)} {name}: {reason}" for (name, reason), count in report.omitted.items()
    ]
    lines += [
        f"not restored for {format_count(count, 'user')}: {loss}" for loss, count in (+report.skipped.losses).items()
    ]
    for line in lines[:_MAX_LINES_SHOWN]:
        typer.echo(f"  {escape_control_characters(line)}")
    if len(lines) > _MAX_LINES_SHOWN:
        typer.echo(f"  {len(lines) - _MAX_LINES_SHOWN} more lines are in {REPORT}")
    if report.skipped.fields:
        names = ", ".join(sorted(report.skipped.fields))
        typer.echo(escape_control_characters(f"  not restorable, fields of users: {names}"))
    for dataset in report.missing_datasets:
        typer.echo(f"  not in run {report.run_id}: {dataset}")
