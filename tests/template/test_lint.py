"""Run cfn-lint on the template and the workflow."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import pytest

from meibo_local.template import ROOT

# A single worker imports cfn-lint, which takes seconds.
pytestmark = pytest.mark.xdist_group("cfn-lint")


def test_template_passes_cfn_lint() -> None:
    regions = ["ap-northeast-1", "eu-central-1", "us-east-1"]
    findings = import_module("cfnlint.api").lint_file(ROOT / "template.yaml", config=_configuration(*regions))

    assert [f"{match.rule.id} line {match.linenumber}: {match.message}" for match in findings] == []


def _configuration(*regions: str) -> Any:
    return import_module("cfnlint.config").ManualArgs(regions=list(regions))


def _findings_in_workflow(definition: dict[str, Any]) -> list[str]:
    # cfn-lint checks a definition only if it is inline in a template and its variables are substituted.
    definition = json.loads(json.dumps(definition).replace("${Partition}", "aws"))
    properties = {"RoleArn": "arn:aws:iam::123456789012:role/workflow", "Definition": definition}
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Resources": {"Workflow": {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}},
    }
    findings = import_module("cfnlint.api").lint(json.dumps(template), config=_configuration("ap-northeast-1"))
    return [match.message for match in findings]


def test_workflow_passes_cfn_lint(workflow: dict[str, Any]) -> None:
    assert _findings_in_workflow(workflow) == []


def test_error_in_the_workflow_is_reported(workflow: dict[str, Any]) -> None:
    broken = json.loads(json.dumps(workflow))
    broken["States"]["Complete"]["Type"] = "Succed"

    assert any("Succed" in finding for finding in _findings_in_workflow(broken))
