"""The validation of a file depends on the format, dataset and provider of the export."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meibo.archive.copy import Content
from meibo.providers.cybozu.client import CSV_FILES
from tests.unit.exports.conftest import EXPORT, ArchiveHarness

# A login, followed by a variable number of codes: https://cybozu.dev/ja/common/docs/user-api/csv/csv-format/
RAGGED = {"user_organizations", "user_groups", "user_services"}


def content(harness: ArchiveHarness) -> Content:
    harness.archive()
    (validated,) = harness.copier.contents
    return validated


@pytest.mark.parametrize("dataset", CSV_FILES)
def test_records_of_a_cybozu_csv_have_equal_length_except_memberships(dataset: str) -> None:
    export = replace(EXPORT, provider="cybozu", dataset=dataset, format="csv", endpoint="https://acme.cybozu.com")

    validated = content(ArchiveHarness(export=export))

    assert (validated.header, validated.uniform, validated.gzip) == (False, dataset not in RAGGED, "never")


def test_auth0_csv_has_a_header() -> None:
    validated = content(ArchiveHarness(export=replace(EXPORT, format="csv")))

    assert (validated.header, validated.uniform, validated.gzip) == (True, True, "required")
