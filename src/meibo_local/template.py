"""Translate the template to CloudFormation, as the SAM transform does in AWS."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).resolve().parents[2]

# Location of the packaged code. On this machine, the handlers are imported, so nothing is read from it.
_ARTIFACT = {"Bucket": "meibo-local-artifacts", "Key": "artifact.zip"}
_CODE_PROPERTIES = {
    "AWS::Serverless::Function": "CodeUri",
    "AWS::Serverless::LayerVersion": "ContentUri",
    "AWS::Serverless::StateMachine": "DefinitionUri",
}


def read_template(path: Path = ROOT / "template.yaml") -> dict[str, Any]:
    """Return the template, with short forms such as ``!Ref`` replaced by their long forms."""
    return copy.deepcopy(_parse(path.read_text(encoding="utf-8")))


@cache
def _parse(text: str) -> dict[str, Any]:
    template: dict[str, Any] = yaml_parse(text)
    return template


def translate(template: Mapping[str, Any], parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the CloudFormation template that the SAM transform generates from ``template``."""
    arguments = json.dumps([template, parameters or {}], default=str)
    return copy.deepcopy(_translate(arguments, os.environ.get("AWS_DEFAULT_REGION")))


@cache
def _translate(arguments: str, region: str | None) -> dict[str, Any]:
    del region  # the transform reads it from the environment
    document, parameters = json.loads(arguments)
    for resource in document["Resources"].values():
        code = _CODE_PROPERTIES.get(resource["Type"])
        if code:
            resource["Properties"][code] = dict(_ARTIFACT)
    defaults = {
        name: parameter["Default"]
        for name, parameter in document.get("Parameters", {}).items()
        if "Default" in parameter
    }
    # The first argument maps managed policies to ARNs. The template uses none.
    translator = Translator({}, Parser())
    translated: dict[str, Any] = translator.translate(document, {**defaults, **parameters})
    return translated


def of_type(template: Mapping[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """Return the resources of a type by logical id."""
    return {name: resource for name, resource in template["Resources"].items() if resource["Type"] == kind}
