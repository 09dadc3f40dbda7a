"""Compare the documented costs of storage classes with the computed ones."""

from __future__ import annotations

import re

import pytest

from meibo.archive.copy import CopyOptions
from meibo_local.template import ROOT, read_template
from tests.bench.costs import PART_BYTES, alarms_in_template, example_table, storage_table, verified_storage


def test_documented_table_matches_the_computed_costs_of_the_default_rotations() -> None:
    parameters = read_template()["Parameters"]
    rotation = parameters["VerifyRotationDays"]["Default"]
    cold = parameters["VerifyColdRotationDays"]["Default"] // rotation * rotation

    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")

    assert "\n".join(storage_table(rotation, cold)) in page


def test_documented_example_matches_the_computed_costs() -> None:
    table = example_table(alarms_in_template())
    usd = [float(row.rsplit(" | ", 1)[1].strip("*| ")) for row in table[2:]]

    assert "\n".join(table) in (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    for page in ("README.md", "README.ja.md"):
        documented = re.findall(r"\$(\d+\.\d\d)", (ROOT / page).read_text(encoding="utf-8"))
        assert list(map(float, documented)) == pytest.approx([usd[-1], usd[3], sum(usd[:3])])


def test_costs_use_the_part_size_of_the_copy() -> None:
    assert CopyOptions.part_bytes == PART_BYTES


def test_default_class_costs_less_than_standard_only_with_the_longer_rotation() -> None:
    standard = verified_storage("STANDARD", 30)
    assert standard is not None

    assert verified_storage("GLACIER_IR", 30) == pytest.approx(0.034)
    assert (verified_storage("GLACIER_IR", 360) or 1) < standard / 3
