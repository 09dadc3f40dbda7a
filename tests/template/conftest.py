"""Fixtures with the template, its source and the workflow, which are read once per test session."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from meibo_local.template import ROOT, read_template
from tests.support.template import PSEUDO_PARAMETERS, Template


@pytest.fixture(scope="session")
def source_text() -> str:
    """The text of the template."""
    return (ROOT / "template.yaml").read_text()


@pytest.fixture(scope="session")
def source() -> dict[str, Any]:
    """The template before SAM translates it."""
    return read_template()


@pytest.fixture(scope="session")
def workflow() -> dict[str, Any]:
    """The definition of the export workflow."""
    definition: dict[str, Any] = json.loads((ROOT / "statemachines/export.asl.json").read_text())
    return definition


@pytest.fixture(scope="session")
def translate() -> Callable[..., Template]:
    """Return a function that translates the template with the given parameters and the defaults of the others."""

    def translated(**parameters: str | int) -> Template:
        return Template.deployed(
            parameters, region=PSEUDO_PARAMETERS["AWS::Region"], stack=PSEUDO_PARAMETERS["AWS::StackName"]
        )

    return translated


@pytest.fixture(scope="session")
def template(translate: Callable[..., Template]) -> Template:
    """The template with the defaults of all parameters."""
    return translate()
