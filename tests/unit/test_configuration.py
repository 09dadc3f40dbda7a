"""The configuration: valid documents, errors with their paths, and documentation."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meibo.configuration import configuration_schema, parse_configuration
from meibo.errors import ConfigurationError
from meibo.providers.auth0.configuration import Auth0Source, Auth0UsersExport

ROOT = Path(__file__).parents[2]
VALID: dict[str, Any] = {
    "sources": [
        {
            "provider": "auth0",
            "name": "acme",
            "domain": "acme.jp.auth0.com",
            "secret": "meibo/acme",
            "exports": [
                {
                    "dataset": "users",
                    "format": "ndjson",
                    "fields": ["user_id", {"name": "identities[0].connection", "export_as": "provider"}],
                },
                {"dataset": "users", "format": "csv", "connection_id": "con_0000000000000001", "limit": 1000},
                {"dataset": "users", "organization_id": "org_0000000000000001"},
            ],
        },
        {
            "provider": "cybozu",
            "name": "example",
            "base_url": "https://example.cybozu.com",
            "secret": "meibo/example",
            "exports": [{"dataset": "users", "format": "csv"}, {"dataset": "users", "format": "ndjson"}],
        },
    ]
}

Change = Callable[[dict[str, Any]], None]


def changed(change: Change) -> str:
    document = copy.deepcopy(VALID)
    change(document)
    return json.dumps(document)


def auth0(document: dict[str, Any]) -> dict[str, Any]:
    source: dict[str, Any] = document["sources"][0]
    return source


def cybozu(document: dict[str, Any]) -> dict[str, Any]:
    source: dict[str, Any] = document["sources"][1]
    return source


def test_configuration_is_parsed() -> None:
    configuration = parse_configuration(json.dumps(VALID))

    assert [source.name for source in configuration.sources] == ["acme", "example"]
    source = configuration.source("acme")
    assert isinstance(source, Auth0Source)
    users = source.exports[0]
    assert isinstance(users, Auth0UsersExport)
    assert users.request_fields() == [
        {"name": "user_id"},
        {"name": "identities[0].connection", "export_as": "provider"},
    ]


def test_fields_are_always_named_in_the_request() -> None:
    export = Auth0UsersExport(dataset="users", format="csv")

    assert {"name": "user_id"} in [{"name": field["name"]} for field in export.request_fields()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: auth0(d).update(provider="okta"), "sources[0].provider: expected 'auth0' or 'cybozu'"),
        (lambda d: auth0(d).pop("provider"), "sources[0].provider: is missing"),
        (lambda d: auth0(d).pop("domain"), "sources[0].domain: is missing"),
        (
            lambda d: auth0(d).update(domain="https://acme.auth0.com"),
            "sources[0].domain: expected a host name such as acme.jp.auth0.com",
        ),
        (lambda d: auth0(d).update(client_secret="hunter2"), "sources[0].client_secret: is not allowed here"),
        (lambda d: cybozu(d).update(name="acme"), "sources[1].name: 'acme' is already the name of sources[0]"),
        (lambda d: cybozu(d).update(name="Example!"), "sources[1].name: "),
        (lambda d: cybozu(d).update(base_url="http://example.cybozu.com"), "sources[1].base_url: "),
        (lambda d: auth0(d)["exports"][0].update(dataset="logs"), "sources[0].exports[0].dataset: "),
        (lambda d: auth0(d)["exports"][0].update(format="xml"), "sources[0].exports[0].format: "),
        (lambda d: auth0(d)["exports"][1].update(limit=0), "sources[0].exports[1].limit: "),
        (
            lambda d: auth0(d)["exports"][1].update(connection_id="con_1"),
            "sources[0].exports[1].connection_id: expected the id of a connection, such as con_0123456789abcdef",
        ),
        (
            lambda d: auth0(d)["exports"][1].update(organization_id="org_0000000000000001"),
            "sources[0].exports[1]: expected connection_id or organization_id, found both; remove one of them",
        ),
        (
            lambda d: auth0(d)["exports"][1].update(fields=[f"user_metadata.f{n}" for n in range(31)]),
            (
                "sources[0].exports[1]: fields[30]: expected at most 30 fields in a CSV export, found 31; remove fields"
                ' or use "format": "ndjson"'
            ),
        ),
        (
            lambda d: auth0(d)["exports"][1].update(fields=["app_metadata"]),
            "sources[0].exports[1]: fields[0].name: expected a part of app_metadata, such as app_metadata.country,",
        ),
        (
            lambda d: cybozu(d)["exports"][1].update(ids=["1"], codes=["a"]),
            "sources[1].exports[1]: expected ids or codes, found both, which cybozu.com rejects; remove one of them",
        ),
        (
            lambda d: cybozu(d)["exports"][0].update(ids=["1"]),
            'sources[1].exports[0]: ids and codes require "format": "ndjson"',
        ),
        (
            lambda d: auth0(d)["exports"].append(dict(auth0(d)["exports"][0])),
            "sources[0].exports[3]: has the same dataset, format and scope (users, ndjson, all) as exports[0],",
        ),
        (lambda d: d.update(sources=[]), "sources: "),
        (
            lambda d: cybozu(d).update(concurrency=0),
            "sources[1].concurrency: expected a number ≥ 1",
        ),
        (
            lambda d: cybozu(d).update(concurrency=17),
            "sources[1].concurrency: expected a number ≤ 16",
        ),
        (
            lambda d: auth0(d)["exports"].append({"dataset": "titles"}),
            "sources[0].exports[3].dataset: expected 'users', 'organizations', 'members', 'roles' or 'role_members'",
        ),
        (lambda d: auth0(d)["exports"].append({"format": "csv"}), "sources[0].exports[3].dataset: is missing"),
        (
            lambda d: auth0(d)["exports"].append({"dataset": "members", "format": "csv"}),
            "sources[0].exports[3].format: expected 'ndjson'",
        ),
        (
            lambda d: auth0(d)["exports"].append({"dataset": "organizations", "limit": 5}),
            "sources[0].exports[3].limit: is not allowed here",
        ),
        (
            lambda d: cybozu(d)["exports"].append({"dataset": "user_services", "format": "ndjson"}),
            "sources[1].exports[2].format: expected 'csv'",
        ),
        (
            lambda d: cybozu(d)["exports"].append({"dataset": "members", "format": "csv"}),
            "sources[1].exports[2].format: expected 'ndjson'",
        ),
        (
            lambda d: cybozu(d)["exports"].append({"dataset": "directory"}),
            "sources[1].exports[2]: has the same dataset, format and scope (users, csv, all) as exports[0],",
        ),
        (
            lambda d: cybozu(d)["exports"].append({"dataset": "people"}),
            "sources[1].exports[2].dataset: expected 'users', 'organizations'",
        ),
        (
            lambda d: auth0(d)["exports"][0].update(accept_from="2026-02-31"),
            "sources[0].exports[0].accept_from: expected a calendar date",
        ),
        (
            lambda d: cybozu(d)["exports"][0].update(accept_from="20261121"),
            "sources[1].exports[0].accept_from: expected a date such as 2026-11-21",
        ),
    ],
)
def test_error_names_its_path(change: Change, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_configuration(changed(change))

    assert message in str(raised.value)


def test_value_of_a_wrong_type_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_configuration(changed(lambda d: auth0(d).update(secret={"client_secret": "hunter2"})))

    assert "sources[0].secret" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_all_errors_are_reported_at_once() -> None:
    def change(document: dict[str, Any]) -> None:
        auth0(document).update(name="Ä", domain="no domain")

    with pytest.raises(ConfigurationError) as raised:
        parse_configuration(changed(change))

    assert "sources[0].name" in str(raised.value)
    assert "sources[0].domain" in str(raised.value)


def test_empty_list_is_reported() -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"^invalid configuration: sources\[0\]\.exports: expected at least 1 entry, found 0$",
    ):
        parse_configuration(changed(lambda document: auth0(document).update(exports=[])))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_invalid_json_is_reported(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not valid JSON"):
        parse_configuration(text)


@pytest.mark.parametrize(
    ("name", "repeated", "path"),
    [
        ("sources", '"sources": [], "sources"', "sources"),
        ("exports", '"exports": [], "exports"', "sources[0].exports"),
        ("format", '"format": "csv", "format"', "sources[0].exports[0].format"),
        ("export_as", '"export_as": "a", "export_as"', "sources[0].exports[0].fields[1].export_as"),
    ],
)
def test_repeated_key_is_reported_with_its_path(name: str, repeated: str, path: str) -> None:
    text = json.dumps(VALID).replace(f'"{name}"', repeated, 1)

    with pytest.raises(ConfigurationError) as raised:
        parse_configuration(text)

    assert f"invalid configuration: {path}: expected the key once" in str(raised.value)


def test_repeated_key_with_the_same_value_is_reported() -> None:
    with pytest.raises(ConfigurationError, match="name: expected the key once"):
        parse_configuration(json.dumps(VALID).replace('"name": "acme"', '"name": "acme", "name": "acme"'))


@pytest.mark.parametrize("number", ["9" * 20, "-" + "9" * 20, "9" * 5000])
@pytest.mark.parametrize(
    ("field", "path"),
    [("limit", r"sources\[0\]\.exports\[1\]\.limit"), ("new", r"sources\[0\]\.exports\[1\]\.new")],
)
def test_oversized_integer_is_reported_with_its_path(number: str, field: str, path: str) -> None:
    text = changed(lambda d: auth0(d)["exports"][1].update({field: 12345})).replace("12345", number)

    with pytest.raises(
        ConfigurationError, match=rf"invalid configuration: {path}: expected an integer of at most 19 digits"
    ):
        parse_configuration(text)


@pytest.mark.parametrize("number", ["1e999", "NaN", "-Infinity", "1" + "0" * 5000 + ".5"])
def test_number_other_than_an_integer_is_reported_with_its_path(number: str) -> None:
    text = changed(lambda d: auth0(d)["exports"][1].update(limit=12345)).replace("12345", number)

    with pytest.raises(ConfigurationError, match=r"sources\[0\]\.exports\[1\]\.limit: "):
        parse_configuration(text)


def test_filtered_export_has_its_own_scope() -> None:
    configuration = parse_configuration(changed(lambda d: cybozu(d)["exports"][1].update(codes=["sato"])))

    scopes = [export.scope for entry in configuration.sources[1].exports_by_entry() for export in entry]
    assert scopes == ["all", "selected"]


@pytest.mark.parametrize(
    ("format_name", "datasets"),
    [
        ("csv", "users organizations titles groups user_organizations user_groups user_services"),
        ("ndjson", "users organizations groups members"),
    ],
)
def test_directory_expands_to_every_dataset_of_its_format(format_name: str, datasets: str) -> None:
    source = parse_configuration(
        changed(lambda d: cybozu(d).update(exports=[{"dataset": "directory", "format": format_name}]))
    ).sources[1]

    (exports,) = source.exports_by_entry()

    assert [(export.dataset, export.format, export.scope) for export in exports] == [
        (dataset, format_name, "all") for dataset in datasets.split()
    ]


@pytest.mark.parametrize("format_name", ["csv", "ndjson"])
def test_accepted_date_of_a_directory_applies_to_each_dataset(format_name: str) -> None:
    entry = {"dataset": "directory", "format": format_name, "accept_from": "2026-11-21"}
    source = parse_configuration(changed(lambda d: cybozu(d).update(exports=[entry]))).sources[1]

    (exports,) = source.exports_by_entry()

    assert {export.accept_from for export in exports} == {"2026-11-21"}


def test_directory_is_csv_by_default() -> None:
    (source,) = parse_configuration(
        changed(lambda d: d.update(sources=[{**cybozu(d), "exports": [{"dataset": "directory"}]}]))
    ).sources

    assert {export.format for entry in source.exports_by_entry() for export in entry} == {"csv"}


def test_every_export_of_a_directory_has_its_own_key() -> None:
    entries = [{"dataset": "directory", "format": "csv"}, {"dataset": "directory", "format": "ndjson"}]
    configuration = parse_configuration(changed(lambda d: cybozu(d).update(exports=entries)))

    keys = [
        (export.dataset, export.format) for entry in configuration.sources[1].exports_by_entry() for export in entry
    ]

    assert len(keys) == len(set(keys)) == 11


@pytest.mark.parametrize("page", ["README.md", "docs/configuration.md", "docs/deploy.md"])
def test_every_documented_configuration_is_valid(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")

    examples = [example for example in re.findall(r"```json\n(.*?)```", text, re.DOTALL) if '"sources"' in example]

    assert examples
    for example in examples:
        assert parse_configuration(example)


def test_every_dataset_is_documented() -> None:
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    auth0_text, cybozu_text = text.partition("## cybozu.com")[::2]
    schema = configuration_schema()["$defs"]

    for name, definition in schema.items():
        dataset = definition["properties"].get("dataset", {})
        for value in dataset.get("enum", [dataset["const"]] if "const" in dataset else []):
            assert f"| `{value}` |" in (auth0_text if name.startswith("Auth0") else cybozu_text)
