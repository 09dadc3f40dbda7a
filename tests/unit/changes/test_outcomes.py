"""An outcome record is a line of JSON with a version."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from meibo.archive.outcomes import OutcomeRecord, parse_records
from meibo.errors import ArchiveConflictError, ConfigurationError

KEY = "changes/source=acme/dt=2026-11-21/m-1.ndjson"
RECORD: dict[str, Any] = {
    "version": 1,
    "message_id": "m-1",
    "change_id": "hr-1",
    "source": "acme",
    "organization_id": "org_0000000000000001",
    "action": "add",
    "member": "auth0|1",
    "outcome": "rejected",
    "code": "refused",
    "reason": "no such user",
    "requested_by": "hr-sync",
    "sent_at": "2026-11-21T18:00:00.000Z",
    "at": "2026-11-21T18:00:01.204Z",
}


def lines(*documents: Any) -> bytes:
    return b"".join(json.dumps(document, ensure_ascii=False).encode() + b"\n" for document in documents)


@pytest.mark.parametrize(
    "record",
    [
        RECORD,
        {**RECORD, "outcome": "applied", "invitation_id": "uinv_1"},
        {**RECORD, "outcome": "dry_run", "member": None, "change_id": None},
        {**RECORD, "reason": "a line separator: \u2028"},
    ],
)
def test_record_is_written_as_it_was_read(record: dict[str, Any]) -> None:
    assert [parsed.to_json() for parsed in parse_records(lines(record), KEY)] == [record]


def test_timestamps_are_read_with_their_time_zone() -> None:
    (record,) = parse_records(lines(RECORD), KEY)

    assert record.sent_at == datetime(2026, 11, 21, 18, tzinfo=UTC)
    assert record.outcome.at == datetime(2026, 11, 21, 18, 0, 1, 204_000, tzinfo=UTC)


def test_fields_of_a_later_version_1_are_ignored() -> None:
    assert parse_records(lines({**RECORD, "new": 1}), KEY) == parse_records(lines(RECORD), KEY)


def test_later_version_is_an_error() -> None:
    expected = f"{KEY}, line 2: expected version 1, found 2; update Meibo to read it"

    with pytest.raises(ConfigurationError, match=f"^{re.escape(expected)}$"):
        parse_records(lines(RECORD, {**RECORD, "version": 2}), KEY)


@pytest.mark.parametrize("version", [0, "1", None, "taro.yamada@example.com"])
def test_invalid_version_is_an_error_that_does_not_quote_it(version: Any) -> None:
    expected = f"{KEY}, line 1.version: expected an integer ≥ 1, found "

    with pytest.raises(ArchiveConflictError, match=f"^{re.escape(expected)}(a number|a string|nothing)$"):
        parse_records(lines({**RECORD, "version": version}), KEY)


@pytest.mark.parametrize("name", ["version", "message_id", "source", "outcome", "sent_at", "at"])
def test_record_without_a_required_field_is_an_error(name: str) -> None:
    record = {key: value for key, value in RECORD.items() if key != name}

    with pytest.raises(ArchiveConflictError, match=rf"^{KEY}, line 1\.{name}: expected .*, found nothing$"):
        parse_records(lines(record), KEY)


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ([], ": expected an object, found a list"),
        ("text", ": expected an object, found a string"),
        (None, ": expected an object, found nothing"),
        ({}, ".version: expected an integer ≥ 1, found nothing"),
        (
            {**RECORD, "outcome": "maybe"},
            '.outcome: expected "applied" or "rejected" or "dry_run", found a string',
        ),
        ({**RECORD, "at": "yesterday"}, ".at: expected a time such as 2026-11-21T18:00:00Z, found a string"),
        ({**RECORD, "at": 7}, ".at: expected a time such as 2026-11-21T18:00:00Z, found a number"),
    ],
)
def test_line_that_is_not_a_record_is_an_error(document: Any, fault: str) -> None:
    with pytest.raises(ArchiveConflictError, match=f"^{re.escape(f'{KEY}, line 1{fault}')}$"):
        parse_records(lines(document), KEY)


@pytest.mark.parametrize("body", [b'{"version": 1', b"\xff\n", lines(RECORD)[:-20]])
def test_line_that_is_not_json_is_an_error(body: bytes) -> None:
    with pytest.raises(
        ArchiveConflictError, match=f"^{KEY}: expected one outcome per line, found a line that is not JSON"
    ):
        parse_records(body, KEY)


def test_object_without_lines_has_no_records() -> None:
    records: list[OutcomeRecord] = parse_records(b"", KEY)

    assert records == []
