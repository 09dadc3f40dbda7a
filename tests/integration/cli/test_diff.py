"""``meibo diff``: differences are counted and named regardless of the order of rows and keys."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meibo_cli.comparison import Comparison
from meibo_cli.rows import RowFile
from tests.integration.cli.conftest import Meibo
from tests.support.archives import (
    EARLIER,
    RUN,
    STAFF,
    STAFF_CSV,
    USERS,
    USERS_CSV,
    ArchiveBuilder,
    FolderArchive,
    ndjson,
)

pytestmark = pytest.mark.usefixtures("account")


@pytest.fixture
def storage(tmp_path: Path) -> Any:
    return FolderArchive(tmp_path / "archive")


def people(count: int = 20) -> list[dict[str, Any]]:
    return [
        {
            "user_id": f"auth0|{n}",
            "email": f"{n}@example.jp",
            "name": f"名 {n}\u2028",
            "user_metadata": {"country": "JP", "n": n},
            "identities": [{"connection": "c"}],
        }
        for n in range(count)
    ]


def counts(export: dict[str, Any]) -> tuple[int, ...]:
    return tuple(export[name] for name in ("added", "removed", "changed", "unchanged", "duplicates"))


def test_rows_are_counted_and_changed_fields_are_named(builder: ArchiveBuilder, meibo: Meibo) -> None:
    before = people()
    after = people(22)[1:]
    after[4]["email"] = "new@example.jp"
    after[5]["user_metadata"] = {"country": "BR", "n": 6, "new": None}
    after[6]["email"] = ""
    del after[7]["name"]
    after = after[7:] + after[:7]
    after = [dict(reversed(row.items())) for row in after]
    builder.run({USERS: ndjson(before)}, EARLIER)
    builder.run({USERS: ndjson(after, compress=False)})

    result = meibo("diff", EARLIER, RUN, "--json")

    (export,) = result.json()["exports"]
    assert counts(export) == (2, 1, 4, 15, 0)
    assert export["fields"] == {"email": 2, "user_metadata.country": 1, "name": 1}
    output = meibo("diff", "previous", "latest", "--fields").output
    assert "2 added, 1 removed, 4 changed, 15 unchanged" in output
    assert "user_metadata.country" in output
    assert "new@example.jp" not in output


def test_every_changed_row_is_written_as_csv(builder: ArchiveBuilder, meibo: Meibo) -> None:
    builder.run({USERS: ndjson(people(3))}, EARLIER)
    builder.run({USERS: ndjson([*people(2), {"user_id": "auth0|x"}, {**people(3)[2], "name": "1", "email": "2"}][1:])})

    result = meibo("diff", EARLIER, RUN, "--csv", "changes.csv")

    assert result.status == 0
    rows = list(csv.reader(Path("changes.csv").read_text(encoding="utf-8").splitlines()))
    assert rows == [
        ["export", "change", "key", "fields"],
        ["acme/users/ndjson/all", "removed", "auth0|0", ""],
        ["acme/users/ndjson/all", "added", "auth0|x", ""],
        ["acme/users/ndjson/all", "changed", "auth0|2", "email name"],
    ]
    assert meibo("diff", EARLIER, RUN, "--csv", "changes.csv").status == 2


@pytest.mark.parametrize("address", [STAFF, USERS])
def test_null_and_an_empty_string_are_equal_only_for_cybozu(
    builder: ArchiveBuilder, meibo: Meibo, address: Any
) -> None:
    name = "id" if address is STAFF else "user_id"
    builder.run({address: ndjson([{name: "9223372036854775807", "phone": None, "url": ""}])}, EARLIER)
    builder.run({address: ndjson([{name: "9223372036854775807", "phone": "", "url": None}])})

    (export,) = meibo("diff", EARLIER, RUN, "--json").json()["exports"]

    assert export["changed"] == (0 if address is STAFF else 1)


def test_auth0_csv_is_compared_by_its_columns(builder: ArchiveBuilder, meibo: Meibo) -> None:
    def file(*rows: str) -> bytes:
        return gzip.compress(("\r\n".join(("user_id,email,name", *rows)) + "\r\n").encode())

    builder.run(
        {USERS_CSV: file('\'auth0|1,\'a@x.jp,"\'two\nlines, ""q"""', "'auth0|2,'b@x.jp,")}, EARLIER, header=True
    )
    builder.run({USERS_CSV: file("'auth0|2,'c@x.jp,", '\'auth0|1,\'a@x.jp,"\'two\nlines, ""q"""')}, header=True)

    (export,) = meibo("diff", EARLIER, RUN, "--json").json()["exports"]

    assert counts(export) == (0, 0, 1, 1, 0)
    assert export["fields"] == {"email": 1}


@pytest.mark.parametrize(
    "spoiled",
    ["'auth0|1,'a@x.jp\n", "'auth0|1,'a@x.jp,,'more\n", "'auth0|1,'a@x.jp,'" + "long" * 1_000_000 + "\n"],
    ids=["a short row", "a long row", "a very long value"],
)
def test_csv_that_duckdb_rejects_is_compared(builder: ArchiveBuilder, meibo: Meibo, spoiled: str) -> None:
    # The archive rejects a file if its last record has another number of fields than the first.
    head, row, last = "user_id,email,name\n", "'auth0|2,'b@x.jp,'b\n", "'auth0|3,'d@x.jp,'d\n"
    builder.run({USERS_CSV: gzip.compress(f"{head}{spoiled}{row}{last}".encode())}, EARLIER, header=True)
    builder.run({USERS_CSV: gzip.compress(f"{head}{row.replace('b@', 'c@')}{spoiled}{last}".encode())}, header=True)

    (export,) = meibo("diff", EARLIER, RUN, "--json").json()["exports"]

    assert counts(export) == (0, 0, 1, 2, 0)
    assert export["fields"] == {"email": 1}


def test_csv_that_is_not_utf_8_is_compared(builder: ArchiveBuilder, meibo: Meibo) -> None:
    builder.run({USERS_CSV: b"user_id,email\n'auth0|1,'a\n"}, EARLIER, header=True)
    builder.run({USERS_CSV: b"user_id,email\n'auth0|1,'\xff\n"}, header=True)

    (export,) = meibo("diff", EARLIER, RUN, "--json").json()["exports"]

    assert counts(export) == (0, 0, 1, 0, 0)
    assert export["fields"] == {"email": 1}


def test_change_in_deeply_nested_metadata_is_counted_without_names(builder: ArchiveBuilder, meibo: Meibo) -> None:
    for value, run_id in ((b"1", EARLIER), (b"2", RUN)):
        nested = b'{"a":' * 50_000 + value + b"}" * 50_000
        builder.run({USERS: gzip.compress(b'{"user_id":"auth0|1","user_metadata":' + nested + b"}\n")}, run_id)

    (export,) = meibo("diff", EARLIER, RUN, "--json").json()["exports"]

    assert counts(export) == (0, 0, 1, 0, 0)
    assert export["fields"] == {"(nested too deeply)": 1}


def test_cybozu_csv_without_header_and_with_ragged_rows_is_compared(builder: ArchiveBuilder, meibo: Meibo) -> None:
    builder.run({STAFF_CSV: '\ufeff"u1","名",""\r\n"u2","b"\r\n'.encode()}, EARLIER)
    builder.run({STAFF_CSV: b'"u2","b","",""\r\n"u1","other","",""\r\n'})

    (export,) = meibo("diff", EARLIER, RUN, "--json").json()["exports"]

    assert counts(export) == (0, 0, 1, 1, 0)
    assert export["fields"] == {"name": 1}


def test_rows_with_the_same_key_are_paired(builder: ArchiveBuilder, meibo: Meibo) -> None:
    row = {"user_id": "auth0|1"}
    builder.run({USERS: ndjson([{**row, "n": 1}, {**row, "n": 2}])}, EARLIER)
    builder.run({USERS: ndjson([{**row, "n": 2}, {**row, "n": 1}, {**row, "n": 3}])})

    (export,) = meibo("diff", EARLIER, RUN, "--json").json()["exports"]

    assert export["duplicates"] == 3
    assert export["added"] + export["changed"] >= 1


def test_key_that_no_row_has_is_an_error(builder: ArchiveBuilder, meibo: Meibo) -> None:
    builder.run({USERS: ndjson(people(2))}, EARLIER)
    builder.run({USERS: ndjson(people(3))})

    result = meibo("diff", EARLIER, RUN, "--key", "emial")

    assert result.status == 2
    assert "has no column emial; its columns are user_id, email" in result.errors
    assert meibo("diff", EARLIER, RUN, "--key", "email").status == 0


def test_export_of_only_one_run_is_reported(builder: ArchiveBuilder, meibo: Meibo) -> None:
    builder.run({USERS: ndjson(people(1))}, EARLIER)
    builder.run({STAFF: ndjson([{"id": "1"}])})

    assert f"acme/users/ndjson/all: only in {EARLIER}" in meibo("diff", EARLIER, RUN).output
    assert meibo("diff", EARLIER, RUN, "unknown").status == 2


def test_file_of_changes_does_not_appear_if_the_comparison_fails(builder: ArchiveBuilder, meibo: Meibo) -> None:
    builder.run({USERS: ndjson(people(2))}, EARLIER)
    builder.run({USERS: ndjson(people(3))})
    builder.storage.put(USERS.object_key(RUN, gzip=True), b"truncated")

    result = meibo("diff", EARLIER, RUN, "--csv", "changes.csv")

    assert result.status == 2
    assert "CorruptFileError" in result.errors
    assert list(Path().iterdir()) == []


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2))
KEYS = st.text(alphabet="ab名 '\"\\\u2028", max_size=2)
ROWS = st.lists(
    st.tuples(KEYS, st.dictionaries(st.sampled_from(["x", "y", "z w", "user_id"]), VALUES, max_size=3)), max_size=7
)
CELLS = st.text(alphabet="a名 '\",;\n\r|=", max_size=4)
TABLE = st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=7)

Pairs = list[tuple[str, dict[str, Any], bytes]]


def json_lines(data: st.DataObject, rows: list[tuple[str, dict[str, Any]]]) -> Pairs:
    """Return keys, values, and lines of JSON. The members of each object are in random order."""
    lines = []
    for key, values in rows:
        row = {"user_id": key, "inner": values}
        names = data.draw(st.permutations(sorted(row)))
        separators = data.draw(st.sampled_from([(",", ":"), (", ", ": ")]))
        line = json.dumps(
            {name: row[name] for name in names}, ensure_ascii=data.draw(st.booleans()), separators=separators
        )
        lines.append((key, row, line.encode()))
    return lines


def csv_lines(rows: list[tuple[str, str, str]]) -> Pairs:
    """Return keys, values, and CSV records in the format of Auth0: text begins with an apostrophe; null is empty."""

    def quoted(cell: str) -> str:
        return f'"\'{cell.replace(chr(34), chr(34) * 2)}"' if cell else ""

    return [
        (
            row[0],
            {name: cell for name, cell in zip("uxy", row, strict=True) if cell},
            ",".join(map(quoted, row)).encode(),
        )
        for row in rows
        if any(row)  # an empty record is a blank line
    ]


def write(data: st.DataObject, path: Path, pairs: Pairs, header: bytes = b"") -> None:
    """Write lines with blank lines between them. The last newline and the compression with gzip are random."""
    line_end = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    lines = [header] if header else []
    for _, _, line in pairs:
        lines += [line] + [b""] * data.draw(st.integers(0, 1))
    body = line_end.join(lines) + data.draw(st.sampled_from([b"", line_end]))
    path.write_bytes(gzip.compress(body) if data.draw(st.booleans()) else body)


def expected_changes(before: Pairs, after: Pairs) -> tuple[list[tuple[str, str, tuple[str, ...]]], int, int]:
    """Return the changes, the number of unchanged rows and the number of duplicates, by comparing all rows in memory.

    Rows of the same key are paired if they are identical, and otherwise in their order.
    """
    changes: list[tuple[str, str, tuple[str, ...]]] = []
    unchanged = 0
    for key in {pair[0] for pair in (*before, *after)}:
        old = [pair for pair in before if pair[0] == key]
        new = [pair for pair in after if pair[0] == key]
        for pair in list(old):
            identical = next((other for other in new if other[2] == pair[2]), None)
            if identical is not None:
                old.remove(pair)
                new.remove(identical)
                unchanged += 1
        for (_, a, _), (_, b, _) in zip(old, new, strict=False):
            fields = sorted(changed_fields(a, b))
            unchanged += not fields
            changes += [("changed", key, tuple(fields))] if fields else []
        changes += [("removed", key, ())] * (len(old) - len(new)) + [("added", key, ())] * (len(new) - len(old))
    duplicates = sum(len(pairs) - len({pair[0] for pair in pairs}) for pairs in (before, after))
    return sorted(changes), unchanged, duplicates


def changed_fields(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    for name in {*before, *after}:
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from (f"{name}.{inner}" for inner in changed_fields(old, new))
        elif json.dumps(old) != json.dumps(new):
            yield name


def compare(before: RowFile, after: RowFile, folder: Path, *, blank_is_null: bool) -> Any:
    comparison = Comparison(before, after, folder, blank_is_null=blank_is_null)
    changes = [(change.kind, change.key, tuple(sorted(change.fields))) for change in comparison.changes()]
    counts = comparison.counts
    assert counts.added + counts.removed + counts.changed == len(changes)
    return sorted(changes), counts.unchanged, counts.duplicates


@settings(max_examples=15, deadline=None)
@given(data=st.data(), before=ROWS, after=ROWS)
def test_json_lines_are_compared_as_in_memory(
    tmp_path_factory: pytest.TempPathFactory, data: Any, before: Any, after: Any
) -> None:
    folder = tmp_path_factory.mktemp("json")
    sides = [json_lines(data, before), json_lines(data, after)]
    files = [RowFile(folder / name, ("user_id",)) for name in ("before", "after")]
    for file, side in zip(files, sides, strict=True):
        write(data, file.path, side)

    assert compare(files[0], files[1], folder, blank_is_null=False) == expected_changes(sides[0], sides[1])


@settings(max_examples=15, deadline=None)
@given(data=st.data(), before=TABLE, after=TABLE, key=st.sampled_from(["u", "y"]))
def test_csv_is_compared_as_in_memory(
    tmp_path_factory: pytest.TempPathFactory, data: Any, before: Any, after: Any, key: str
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    sides = [csv_lines(before), csv_lines(after)]
    if key == "y":
        sides = [[(row.get("y", ""), row, line) for _, row, line in side] for side in sides]
    files = [RowFile(folder / name, (key,), ("u", "x", "y"), "csv") for name in ("before", "after")]
    for file, side in zip(files, sides, strict=True):
        write(data, file.path, side, b"u,x,y")

    assert compare(files[0], files[1], folder, blank_is_null=True) == expected_changes(sides[0], sides[1])


def test_csv_columns_in_another_order_are_compared_by_their_names(tmp_path: Path) -> None:
    files = [
        RowFile(tmp_path / name, ("u",), columns, "csv") for name, columns in (("a", ("u", "x")), ("b", ("u", "y")))
    ]
    for file in files:
        file.path.write_bytes(",".join(file.columns).encode() + b"\n'1,'v\n'2,\n")

    changes, unchanged, _ = compare(files[0], files[1], tmp_path, blank_is_null=True)

    assert (changes, unchanged) == ([("changed", "1", ("x", "y"))], 1)


@pytest.mark.parametrize("first", [b'"user_id":"auth0|1"', b'"a":1'], ids=["key first", "key last"])
def test_key_of_a_row_that_is_nested_too_deeply(tmp_path: Path, first: bytes) -> None:
    files = [RowFile(tmp_path / name, ("user_id",)) for name in ("a", "b")]
    for number, file in enumerate(files):
        deep = b'{"a":' * 50_000 + b"%d" % number + b"}" * 50_000
        file.path.write_bytes(b"{" + first + b',"m":' + deep + b',"user_id":"auth0|1"}\n')

    changes, _, _ = compare(files[0], files[1], tmp_path, blank_is_null=False)

    assert changes == [("changed", "auth0|1", ("(nested too deeply)",))]
