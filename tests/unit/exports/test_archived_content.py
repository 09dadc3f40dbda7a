"""The format, dataset and provider of an export decide how its file is validated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meibo.archive.copy import Content
from meibo.providers.cybozu.client import CSV_FILES
from tests.unit.exports.test_archive import World
from tests.unit.exports.test_check import EXPORT

# A login, then as many codes as the user has: https://cybozu.dev/ja/common/docs/user-api/csv/csv-format/
RAGGED = {"user_organizations", "user_groups", "user_services"}


def content(world: World) -> Content:
    world.archive()
    (validated,) = world.copier.contents
    return validated


@pytest.mark.parametrize("dataset", CSV_FILES)
def test_records_of_a_cybozu_csv_have_one_length_unless_they_list_memberships(dataset: str) -> None:
    export = replace(EXPORT, provider="cybozu", dataset=dataset, format="csv", endpoint="https://acme.cybozu.com")

    validated = content(World(export=export))

    assert (validated.header, validated.uniform, validated.gzip) == (False, dataset not in RAGGED, "never")


def test_an_auth0_csv_has_a_header() -> None:
    validated = content(World(export=replace(EXPORT, format="csv")))

    assert (validated.header, validated.uniform, validated.gzip) == (True, True, "required")
