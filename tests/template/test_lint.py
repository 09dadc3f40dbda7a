"""Run cfn-lint on the template and the workflow."""

from __future__ import annotations

import json
from typing import Any

from cfnlint.api import lint, lint_file
from cfnlint.config import ManualArgs

from meibo_local.template import ROOT


def test_template_passes_cfn_lint() -> None:
    regions = ["ap-northeast-1", "eu-central-1", "us-east-1"]
    findings = lint_file(ROOT / "template.yaml", config=ManualArgs(regions=regions))

    assert [f"{match.rule.id} line {match.linenumber}: {match.message}" for match in findings] == []


def _findings_in_workflow(definition: dict[str, Any]) -> list[str]:
    # cfn-lint checks a definition only inside a template and after substitution, not in a separate file.
    definition = json.loads(json.dumps(definition).replace("${Partition}", "aws"))
    properties = {"RoleArn": "arn:aws:iam::123456789012:role/workflow", "Definition": definition}
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Resources": {"Workflow": {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}},
    }
    return [match.message for match in lint(json.dumps(template), config=ManualArgs(regions=["ap-northeast-1"]))]


def test_workflow_passes_cfn_lint(workflow: dict[str, Any]) -> None:
    assert _findings_in_workflow(workflow) == []


def test_mistake_in_the_workflow_is_found(workflow: dict[str, Any]) -> None:
    broken = json.loads(json.dumps(workflow))
    broken["States"]["Complete"]["Type"] = "Succed"

    assert any("Succed" in finding for finding in _findings_in_workflow(broken))
