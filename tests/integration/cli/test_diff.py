"""``meibo diff``: differences are counted and named regardless of the order of rows and keys."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meibo.providers import find_dataset
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


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2))
DIRECTORY = st.dictionaries(
    st.text(alphabet="abc名 '\"\\", min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(["x", "y", "z w"]), VALUES, max_size=3),
    max_size=6,
)


TEXTS = st.text(alphabet="a名 '\",;\n\r|", max_size=4)
TABLE = st.dictionaries(TEXTS.filter(bool), st.tuples(TEXTS, TEXTS), min_size=1, max_size=5)


@settings(max_examples=25)
@given(before=TABLE, after=TABLE, line_end=st.sampled_from(["\n", "\r\n"]))
def test_csv_is_compared_alike_by_duckdb_and_by_python(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, Any], after: dict[str, Any], line_end: str
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    sides = []
    for name, table in (("a", before), ("b", after)):
        path = folder / f"{name}.csv"
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(f"user_id,x,y{line_end}")
            # The format of Auth0: a string in quotes after an apostrophe, and nothing for a missing value.
            for cells in ((key, *values) for key, values in table.items()):
                quoted = (f'"\'{cell.replace(chr(34), chr(34) * 2)}"' if cell else "" for cell in cells)
                file.write(",".join(quoted) + line_end)
        sides.append(
            RowFile(path, ("user_id",), ("user_id", "x", "y"), find_dataset("auth0", "users"), "csv", len(table))
        )

    with Comparison(sides[0], sides[1], folder, blank_is_null=True) as comparison:
        fast = sorted((change.kind, change.key, change.fields) for change in comparison.changes())
    (folder / "rows.duckdb").unlink()
    with Comparison(sides[0].as_json(), sides[1].as_json(), folder, blank_is_null=True) as comparison:
        plain = sorted((change.kind, change.key, change.fields) for change in comparison.changes())

    assert fast == plain
    assert [change[:2] for change in fast] == sorted(
        [("removed", key) for key in before.keys() - after.keys()]
        + [("added", key) for key in after.keys() - before.keys()]
        + [("changed", key) for key in before.keys() & after.keys() if before[key] != after[key]]
    )


@settings(max_examples=25)
@given(before=DIRECTORY, after=DIRECTORY)
def test_result_equals_that_of_a_comparison_in_memory(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, Any], after: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("diff")
    sides = []
    for name, directory in (("a", before), ("b", after)):
        path = folder / f"{name}.ndjson"
        rows = [{"id": key, **row} for key, row in directory.items()] or [{"id": "placeholder"}]
        path.write_bytes(ndjson(rows, compress=False))
        sides.append(RowFile(path, ("id",), (), find_dataset("auth0", "organizations")))

    with Comparison(sides[0], sides[1], folder, blank_is_null=False) as comparison:
        changes = list(comparison.changes())

    def without_nulls(row: dict[str, Any]) -> str:
        return json.dumps({name: value for name, value in row.items() if value is not None}, sort_keys=True)

    placeholder: dict[str, Any] = {"placeholder": {}}
    before, after = before or placeholder, after or placeholder
    assert sorted((change.kind, change.key) for change in changes) == sorted(
        [("removed", key) for key in before.keys() - after.keys()]
        + [("added", key) for key in after.keys() - before.keys()]
        + [
            ("changed", key)
            for key in before.keys() & after.keys()
            if without_nulls(before[key]) != without_nulls(after[key])
        ]
    )
