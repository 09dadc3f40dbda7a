"""The parameters: types, defaults, descriptions, bounds and groups."""

from __future__ import annotations

import re
from typing import Any

import pytest

from meibo_local.template import read_template

PARAMETERS: dict[str, dict[str, Any]] = read_template()["Parameters"]
# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
MAX_DESCRIPTION = 4000


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_has_type_default_and_description(name: str) -> None:
    declared = PARAMETERS[name]

    assert {"Type", "Default", "Description"} <= declared.keys()
    assert declared["Description"].strip().endswith(".")
    assert len(declared["Description"]) <= MAX_DESCRIPTION


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_is_bounded(name: str) -> None:
    declared = PARAMETERS[name]

    bounded = "AllowedValues" in declared or (
        {"MinValue", "MaxValue"} <= declared.keys() if declared["Type"] == "Number" else "AllowedPattern" in declared
    )

    assert bounded, f"{name} accepts any value"
    assert "AllowedPattern" not in declared or "ConstraintDescription" in declared


@pytest.mark.parametrize("name", PARAMETERS)
def test_default_is_within_its_bounds(name: str) -> None:
    declared = PARAMETERS[name]
    default = declared["Default"]

    if "AllowedValues" in declared:
        assert default in declared["AllowedValues"]
    if "AllowedPattern" in declared:
        assert re.search(declared["AllowedPattern"], default)
    if "MinValue" in declared:
        assert declared["MinValue"] <= default <= declared["MaxValue"]


def test_every_parameter_has_a_group_and_a_label(source: dict[str, Any]) -> None:
    interface = source["Metadata"]["AWS::CloudFormation::Interface"]

    grouped = [name for group in interface["ParameterGroups"] for name in group["Parameters"]]

    assert sorted(grouped) == sorted(PARAMETERS)
    assert sorted(interface["ParameterLabels"]) == sorted(PARAMETERS)


def test_every_parameter_is_used(source_text: str) -> None:
    body = source_text.split("\nRules:", 1)[1]

    unused = [name for name in PARAMETERS if not re.search(rf"!Ref {name}\b|\$\{{{name}\}}", body)]

    assert unused == []
