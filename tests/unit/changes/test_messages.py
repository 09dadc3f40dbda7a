"""The errors of an invalid message name the field and what is expected, and do not contain the value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meibo.changes.messages import Change, InvalidChange, parse_change

ORGANIZATION = "org_0000000000000001"
ID = "auth0|63d17c4a9d503d76c056c160"
TERMS = {"client_id": "portal", "inviter": "人事部"}


def change(**more: Any) -> dict[str, Any]:
    document = {
        "version": 1,
        "change_id": "hr-2026-11-21-0042",
        "source": "acme",
        "organization_id": ORGANIZATION,
        "action": "add",
        "members": [ID],
        **more,
    }
    return {name: value for name, value in document.items() if value is not ...}


def invitation(**more: Any) -> dict[str, Any]:
    terms = {name: value for name, value in {**TERMS, **more}.items() if value is not ...}
    return change(action="invite", members=["a@example.com"], invitation=terms)


def read(document: Any, *, max_removals: int = 50, group_id: str | None = None) -> Change | InvalidChange:
    return parse_change(json.dumps(document), max_removals=max_removals, group_id=group_id)


def read_invalid(document: Any, **limits: Any) -> InvalidChange:
    result = read(document, **limits)
    assert isinstance(result, InvalidChange)
    assert result.faults
    return result


@pytest.mark.parametrize(
    "document",
    [
        change(),
        change(requested_by="hr-sync", dry_run=False),
        change(members=["google-oauth2|1", "samlp|con|a@b.c", "oauth2|custom name|x y", "auth0|名簿"]),
        change(roles=["rol_0000000000000001"]),
        change(action="remove", members=[f"auth0|{number}" for number in range(50)]),
        change(action="remove", members=[f"auth0|{number}" for number in range(51)], confirm_removals=51),
        change(members=[f"auth0|{number}" for number in range(1000)]),
        change(rejections=[{"reason": "a reason that Meibo wrote into a DLQ message", "members": [ID]}]),
        invitation(),
        invitation(ttl_sec=3600, connection_id="con_0000000000000001", send_email=True),
    ],
)
def test_valid_change_is_read(document: dict[str, Any]) -> None:
    result = read(document, group_id=ORGANIZATION)

    assert isinstance(result, Change)
    assert list(result.members) == document["members"]


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (change(version=...), "$.version"),
        (change(version=2), "$.version"),
        (change(version="1"), "$.version"),
        (change(version=True), "$.version"),
        (change(change_id=...), "$.change_id"),
        (change(change_id=""), "$.change_id"),
        (change(change_id=7), "$.change_id"),
        (change(source="Acme"), "$.source"),
        (change(source="../acme"), "$.source"),
        (change(organization_id=...), "$.organization_id"),
        (change(organization_id="org_1"), "$.organization_id"),
        (change(organization_id="acme"), "$.organization_id"),
        (change(organization_id=ORGANIZATION + "\n"), "$.organization_id"),
        (change(action="delete"), "$.action"),
        (change(action=["add"]), "$.action"),
        (change(members=...), "$.members"),
        (change(members=[]), "$.members"),
        (change(members=ID), "$.members"),
        (change(members=[f"auth0|{number}" for number in range(1001)]), "$.members"),
        (change(members=[ID, "63d17c4a9d503d76c056c160"]), "$.members[1]"),
        (change(members=["|x"]), "$.members[0]"),
        (change(members=["auth0|"]), "$.members[0]"),
        (change(members=["auth0|a\nb"]), "$.members[0]"),
        (change(members=["auth0|" + "a" * 250]), "$.members[0]"),
        (change(members=[7]), "$.members[0]"),
        (change(members=["a@example.com"]), "$.members[0]"),
        (change(members=[ID, "auth0|b", ID]), "$.members[2]"),
        (change(roles=[]), "$.roles"),
        (change(roles=[f"rol_{number:016d}" for number in range(51)]), "$.roles"),
        (change(roles=["admin"]), "$.roles[0]"),
        (change(roles=["rol_0000000000000001"] * 2), "$.roles[1]"),
        (change(action="remove", roles=["rol_0000000000000001"]), "$.roles"),
        (change(requested_by=7), "$.requested_by"),
        (change(dry_run="yes"), "$.dry_run"),
        (change(surprise=1), "$.surprise"),
        (change(invitation=TERMS), "$.invitation"),
        (change(action="remove", confirm_removals=2), "$.confirm_removals"),
        (change(action="remove", confirm_removals=True), "$.confirm_removals"),
        (change(confirm_removals=1), "$.confirm_removals"),
        (change(action="remove", members=[f"auth0|{number}" for number in range(51)]), "$.confirm_removals"),
        (change(action="invite", members=["a@example.com"]), "$.invitation"),
        (invitation(client_id=...), "$.invitation.client_id"),
        (invitation(inviter=" "), "$.invitation.inviter"),
        (invitation(ttl_sec=0), "$.invitation.ttl_sec"),
        (invitation(ttl_sec=2_592_001), "$.invitation.ttl_sec"),
        (invitation(send_email="no"), "$.invitation.send_email"),
        (invitation(connection_id="con_1"), "$.invitation.connection_id"),
        (invitation(surprise=1), "$.invitation.surprise"),
        ({**invitation(), "members": [ID]}, "$.members[0]"),
        ({**invitation(), "members": ["a@example.com", "A@example.com"]}, "$.members[1]"),
        ([change()], "$"),
        (None, "$"),
    ],
)
def test_invalid_field_is_named_by_its_path(document: Any, path: str) -> None:
    assert [fault.path for fault in read_invalid(document).faults] == [path]


@pytest.mark.parametrize(
    "body",
    [
        "[" * 500 + "]" * 500,
        "",
        "{",
        '{"version": 1',
        "[" * 100_000,
        "\x00",
        '"text"',
    ],
)
def test_body_that_is_not_a_json_object_is_invalid(body: str) -> None:
    result = parse_change(body, max_removals=50)

    assert isinstance(result, InvalidChange)
    assert [fault.path for fault in result.faults] == ["$"]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (
            '{"version": 1, "version": 1}',
            "$.version: expected the key once, found it more than once; remove the duplicates",
        ),
        (
            '{"version": 1, "rejections": [{"taro.yamada@example.com": {"a": 1, "a": 2}}]}',
            "$.rejections[0].*.a: expected the key once, found it more than once; remove the duplicates",
        ),
        (
            '{"version": 1, "change_id": "\\ud800"}',
            "$.change_id: expected text that can be encoded as UTF-8, found a lone surrogate",
        ),
        (
            '{"version": 1, "\\udfff": 1}',
            "$: expected text that can be encoded as UTF-8, found a lone surrogate",
        ),
        ('{"version": ' + "9" * 5000 + "}", "$.version: expected an integer of at most 19 digits, found 5,000 digits"),
    ],
)
def test_json_that_parsers_read_differently_is_invalid(body: str, fault: str) -> None:
    result = parse_change(body, max_removals=50)

    assert isinstance(result, InvalidChange)
    assert result.reason == fault
    assert result.members == ("",)


def test_every_invalid_field_is_reported() -> None:
    result = read_invalid(change(version=9, members=["x", ID, ID], surprise=1))

    assert [fault.path for fault in result.faults] == ["$.version", "$.members[0]", "$.members[2]", "$.surprise"]


def test_large_removal_requires_the_exact_number() -> None:
    members = [f"auth0|{number}" for number in range(7)]

    def faults(**more: Any) -> list[str]:
        result = read_invalid(change(action="remove", members=members, **more), max_removals=6)
        return [str(fault) for fault in result.faults]

    assert isinstance(read(change(action="remove", members=members, confirm_removals=7), max_removals=6), Change)
    assert faults() == [
        (
            "$.confirm_removals: is missing: 7 removals exceed the maximum of 6 without confirmation; set it to the"
            " number of members"
        )
    ]
    assert faults(confirm_removals=6) == ["$.confirm_removals: expected the number of members, 7"]


def test_message_group_must_be_the_organization() -> None:
    assert isinstance(read(change(), group_id=ORGANIZATION), Change)
    (fault,) = read_invalid(change(), group_id="org_0000000000000002").faults
    assert fault.path == "$.organization_id"


PERSON = "taro.yamada@example.com"


@pytest.mark.parametrize(
    "document",
    [
        change(members=[PERSON]),
        change(change_id=PERSON + " "),
        change(source=PERSON),
        change(organization_id=PERSON),
        change(action=PERSON),
        change(roles=[PERSON]),
        change(requested_by=[PERSON]),
        {**change(), PERSON: 1},
        invitation(client_id=PERSON),
        invitation(connection_id=PERSON),
        invitation(inviter=[PERSON]),
    ],
)
def test_fault_does_not_contain_the_value(document: dict[str, Any]) -> None:
    result = read_invalid(document)

    assert "yamada" not in result.reason
    assert "yamada" not in repr(result)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10), children, max_size=4),
    max_leaves=10,
)


@given(
    name=st.sampled_from([*change(), "roles", "invitation", "confirm_removals", "dry_run", "requested_by"]), value=JSON
)
def test_any_value_of_any_field_is_valid_or_reported(name: str, value: Any) -> None:
    result = read({**change(), name: value})

    if isinstance(result, InvalidChange):
        assert result.faults
        assert all(fault.path.startswith("$") for fault in result.faults)
    else:
        assert list(result.members) == ({**change(), name: value})["members"]
