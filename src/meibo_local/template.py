"""The application's own template, turned into plain CloudFormation as the SAM transform does it in AWS."""

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

# Where the transform believes code to be. On this machine the handlers of this checkout are called directly, so
# nothing is ever read from there.
_ARTIFACT = {"Bucket": "meibo-local-artifacts", "Key": "artifact.zip"}

_URI_OF = {
    "AWS::Serverless::Function": "CodeUri",
    "AWS::Serverless::LayerVersion": "ContentUri",
    "AWS::Serverless::StateMachine": "DefinitionUri",
}


def read_template(path: Path = ROOT / "template.yaml") -> dict[str, Any]:
    """Return the template as written, with CloudFormation's short forms (``!Ref``) as their long ones."""
    return copy.deepcopy(_parsed(path.read_text(encoding="utf-8")))


@cache
def _parsed(text: str) -> dict[str, Any]:
    template: dict[str, Any] = yaml_parse(text)
    return template


def translate(template: Mapping[str, Any], parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the CloudFormation template that the SAM transform makes of ``template``."""
    # The region is an argument too: the transform takes it from the environment.
    arguments = json.dumps([template, parameters or {}, os.environ.get("AWS_DEFAULT_REGION")], default=str)
    if arguments not in _translated:
        _translated[arguments] = _translate(template, parameters or {})
    return copy.deepcopy(_translated[arguments])


_translated: dict[str, dict[str, Any]] = {}


def _translate(template: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    document = copy.deepcopy(dict(template))
    for resource in document["Resources"].values():
        uri = _URI_OF.get(resource["Type"])
        if uri:
            resource["Properties"][uri] = dict(_ARTIFACT)
    defaults = {
        name: parameter["Default"]
        for name, parameter in document.get("Parameters", {}).items()
        if "Default" in parameter
    }
    # The loader knows managed policies by name; the template uses none, so an empty one will do.
    translator = Translator({}, Parser())
    translated: dict[str, Any] = translator.translate(document, {**defaults, **parameters})
    return translated


def of_type(template: Mapping[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """Return the resources of one type by their logical ids."""
    return {name: resource for name, resource in template["Resources"].items() if resource["Type"] == kind}
