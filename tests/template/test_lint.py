"""cfn-lint has nothing to say, wherever the stack is deployed."""

from __future__ import annotations

import pytest
from cfnlint.api import lint_file
from cfnlint.config import ManualArgs

from local.template import ROOT


@pytest.mark.parametrize("region", ["ap-northeast-1", "eu-central-1", "us-east-1"])
def test_cfn_lint_finds_nothing(region: str) -> None:
    found = lint_file(ROOT / "template.yaml", config=ManualArgs(regions=[region]))

    assert [f"{match.rule.id} line {match.linenumber}: {match.message}" for match in found] == []
