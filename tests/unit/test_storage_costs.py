"""Compare the documented costs of storage classes with the computed ones."""

from __future__ import annotations

import pytest

from meibo_local.template import ROOT, read_template
from tests.bench.costs import storage_table, verified_storage


def test_documented_table_matches_the_computed_costs_of_the_default_rotations() -> None:
    parameters = read_template()["Parameters"]
    rotation = parameters["VerifyRotationDays"]["Default"]
    cold = parameters["VerifyColdRotationDays"]["Default"] // rotation * rotation

    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")

    assert "\n".join(storage_table(rotation, cold)) in page


def test_default_class_costs_less_than_standard_only_with_the_longer_rotation() -> None:
    standard = verified_storage("STANDARD", 30)
    assert standard is not None

    assert verified_storage("GLACIER_IR", 30) == pytest.approx(0.034)
    assert (verified_storage("GLACIER_IR", 360) or 1) < standard / 3
