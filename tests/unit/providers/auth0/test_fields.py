from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from meibo.providers.auth0.fields import DEFAULT_FIELDS, check_fields, wire_fields


@pytest.mark.parametrize("format", ["ndjson", "csv"])
def test_default_fields_are_accepted_by_auth0(format: str) -> None:
    check_fields(format, DEFAULT_FIELDS[format])


def test_csv_export_has_at_most_thirty_fields() -> None:
    fields = [f"user_metadata.f{number}" for number in range(31)]

    check_fields("csv", fields[:30])
    check_fields("ndjson", fields)
    with pytest.raises(ValueError, match=r"fields\[30\].*30 fields.*31"):
        check_fields("csv", fields)


@pytest.mark.parametrize("name", ["app_metadata", "user_metadata"])
def test_whole_metadata_requires_ndjson(name: str) -> None:
    check_fields("ndjson", ["user_id", name])
    with pytest.raises(ValueError, match=rf"fields\[1\].*{name}\.country"):
        check_fields("csv", ["user_id", name])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([], "at least one"),
        (["user_id", "password_hash"], r"fields\[1\]\.name: expected a field that Auth0 can export"),
        (["email.domain"], r"fields\[0\]\.name: expected email without a part, because it has no parts"),
        (["user_metadata."], r"fields\[0\]\.name"),
        (["identities[x].connection"], r"fields\[0\]\.name"),
        (["user_metadata.a b"], r"fields\[0\]\.name"),
        ([""], r"fields\[0\]\.name: expected 1 to 100 characters, found "),
        (["user_metadata." + "x" * 100], r"fields\[0\]\.name: expected 1 to 100 characters, found "),
        ([{"name": "email", "export_as": "x" * 101}], r"fields\[0\]\.export_as"),
        (["email", "email"], r"fields\[1\].*fields\[0\]"),
        (["email", {"name": "user_metadata.mail", "export_as": "email"}], r"fields\[1\].*export_as"),
    ],
)
def test_invalid_field_is_named_by_its_position(fields: Sequence[str | Mapping[str, str]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_fields("ndjson", fields)


def test_part_of_a_field_always_has_an_export_name() -> None:
    fields: list[str | Mapping[str, str]] = [
        "email",
        "user_metadata.country",
        {"name": "identities[0].connection", "export_as": "provider"},
    ]

    assert wire_fields(fields) == [
        {"name": "email"},
        {"name": "user_metadata.country", "export_as": "user_metadata.country"},
        {"name": "identities[0].connection", "export_as": "provider"},
    ]
