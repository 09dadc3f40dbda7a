"""A file of changes is validated completely, and each error contains the line number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meibo.changes.messages import InviteChange, parse_change
from meibo.changes.queue import encode_message
from meibo.errors import ConfigurationError
from meibo_cli.change_sheet import Sheet, SheetError, read_sheet

FIRST, OTHER = "org_0000000000000001", "org_0000000000000002"
COMMON = {"change_id": "hr-1", "source": "acme"}
TERMS = {"client_id": "portal", "inviter": "人事部"}
USERS = {"a@example.com": ["auth0|a"], "twice@example.com": ["auth0|t1", "google-oauth2|t2"]}


def read(folder: Path, text: str | bytes, **more: Any) -> Sheet:
    path = folder / "changes.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_sheet(
        path, {**COMMON, **more}, users=lambda email: USERS.get(email, []), invitation=more.get("invitation")
    )


def errors_of(folder: Path, text: str) -> list[str]:
    with pytest.raises(SheetError) as caught:
        read(folder, text)
    return list(caught.value.faults)


def test_rows_are_grouped_by_organization_action_and_roles(tmp_path: Path) -> None:
    sheet = read(
        tmp_path,
        "\ufefforganization_id,Action,user,roles\r\n"
        f"{FIRST},add,auth0|1,\r\n"
        f"{OTHER},add,auth0|1,rol_0000000000000001; rol_0000000000000002\r\n"
        f"{FIRST},remove,auth0|2,\r\n"
        "\r\n"
        f"{FIRST},ADD,a@example.com,\r\n",
    )

    common = {"version": 1, **COMMON}
    assert [change.model_dump(exclude_unset=True) for change in sheet.changes] == [
        {**common, "organization_id": FIRST, "action": "add", "members": ("auth0|1", "auth0|a")},
        {
            **common,
            "organization_id": OTHER,
            "action": "add",
            "members": ("auth0|1",),
            "roles": ("rol_0000000000000001", "rol_0000000000000002"),
        },
        {**common, "organization_id": FIRST, "action": "remove", "members": ("auth0|2",), "confirm_removals": 1},
    ]


@pytest.mark.parametrize("count", [1000, 1001, 2500])
def test_long_lists_are_split_into_valid_messages(tmp_path: Path, count: int) -> None:
    members = [f"samlp|{'長' * 60}|{number}" for number in range(count)]
    text = "organization,action,member\n" + "".join(f"{FIRST},remove,{member}\n" for member in members)

    sheet = read(tmp_path, text)

    assert [member for change in sheet.changes for member in change.members] == members
    for change in sheet.changes:
        body = encode_message(change)
        assert len(body.encode()) <= 245_760
        assert parse_change(body, max_removals=0, group_id=FIRST) == change


def test_every_error_is_reported_with_its_line(tmp_path: Path) -> None:
    errors = errors_of(
        tmp_path,
        "organization,action,member,roles\n"
        f"{FIRST},add,auth0|1,\n"
        f"{FIRST},add,auth0|1,\n"
        f"{FIRST},remove,auth0|1,\n"
        f"{FIRST},move,auth0|2,\n"
        "org_1,add,auth0|3,\n"
        f"{FIRST},add,4,\n"
        f"{FIRST},add,unknown@example.com,\n"
        f"{FIRST},add,twice@example.com,\n"
        f"{FIRST},add,auth0|5,admin\n"
        f"{FIRST},add\n",
    )

    assert [error.partition(":")[0] for error in errors] == [f"line {number}" for number in range(3, 12)]
    assert "expected one row per organization and member, but line 2 is the same; keep one of them" in errors[0]
    assert (
        "expected one row per organization and member, but line 2 has another action or other roles; keep one of them"
        in errors[1]
    )
    assert "auth0|t1, google-oauth2|t2" in errors[6]


def test_invitation_requires_an_application_and_an_inviter(tmp_path: Path) -> None:
    text = f"organization,action,member\n{FIRST},invite,new@example.com\n"

    assert errors_of(tmp_path, text) == ["invitations require --client-id and --inviter"]


def test_invited_address_is_not_resolved(tmp_path: Path) -> None:
    path = tmp_path / "changes.csv"
    path.write_text(f"organization,action,member\n{FIRST},invite,a@example.com\n")

    (change,) = read_sheet(path, COMMON, users=lambda _email: [], invitation=TERMS).changes

    assert isinstance(change, InviteChange)
    assert change.members == ("a@example.com",)
    assert change.invitation.model_dump(exclude_unset=True) == TERMS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the column organization is missing"),
        ("organization,action\n", "the column member is missing"),
        ("organization,action,member,color\n", "column 4"),
        ("organization,action,member,user\n", "the column member appears more than once"),
        ("organization,action,member\n", "expected at least one row below the header, found none"),
        ('organization,action,member\n"unclosed', "line 2"),
    ],
)
def test_file_other_than_a_list_of_changes_is_rejected(tmp_path: Path, text: str, expected: str) -> None:
    assert any(expected in error for error in errors_of(tmp_path, text))


def test_file_that_is_not_utf_8_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="UTF-8"):
        read(tmp_path, "organization,action,member\n人事".encode("cp932"))
