"""The translated template, with parameters and conditions resolved as in CloudFormation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from meibo_local.template import read_template
from meibo_local.template import translate as sam_translate

PSEUDO_PARAMETERS = {
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::Region": "eu-central-1",
    "AWS::StackName": "meibo",
    "AWS::URLSuffix": "amazonaws.com",
}
NO_VALUE = object()

Resource = dict[str, Any]


class Template:
    """A translated template, resolved as CloudFormation does before it creates resources.

    References to other resources become strings: ``Logical`` for a Ref and ``Logical.Attribute`` for a GetAtt.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        parameters: Mapping[str, Any],
        pseudo: Mapping[str, str] = PSEUDO_PARAMETERS,
    ) -> None:
        defaults = {name: declared["Default"] for name, declared in document["Parameters"].items()}
        values = {**defaults, **parameters}
        lists = [name for name in values if document["Parameters"][name]["Type"] == "CommaDelimitedList"]
        self._values: dict[str, Any] = {**pseudo, **values, **{name: values[name].split(",") for name in lists}}
        self._conditions = document["Conditions"]
        self._rules = document["Rules"]
        self.resources: dict[str, Resource] = {
            name: self._resolve(resource)
            for name, resource in document["Resources"].items()
            if "Condition" not in resource or self._holds({"Condition": resource["Condition"]})
        }

    @classmethod
    def deployed(cls, parameters: Mapping[str, Any], *, region: str, stack: str) -> Template:
        """Return the template of a stack in a region."""
        pseudo = {**PSEUDO_PARAMETERS, "AWS::Region": region, "AWS::StackName": stack}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_DEFAULT_REGION", region)
            return cls(sam_translate(read_template(), parameters), parameters, pseudo)

    def of_type(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the properties of every resource of a type, by logical id."""
        return {name: resource["Properties"] for name, resource in self.resources.items() if resource["Type"] == kind}

    def properties(self, name: str) -> dict[str, Any]:
        """Return the properties of a resource."""
        properties: dict[str, Any] = self.resources[name]["Properties"]
        return properties

    def satisfies(self, rule: str) -> bool:
        """Return whether the parameters satisfy a rule."""
        return all(self._holds(assertion["Assert"]) for assertion in self._rules[rule]["Assertions"])

    def statements(self, role: str) -> Iterator[dict[str, Any]]:
        """Yield the statements of a role's policies, with Action and Resource as lists."""
        for policy in self.properties(role).get("Policies", ()):
            for statement in policy["PolicyDocument"]["Statement"]:
                yield {**statement, "Action": _list(statement["Action"]), "Resource": _list(statement["Resource"])}

    def _holds(self, condition: Any) -> bool:
        ((function, value),) = condition.items()
        if function == "Condition":
            return self._holds(self._conditions[value])
        if function == "Fn::Equals":
            left, right = (self._resolve(side) for side in value)
            return str(left) == str(right)
        if function == "Fn::Contains":
            return value[1] in self._resolve(value[0])
        holds = [self._holds(part) for part in value]
        return {"Fn::Not": not holds[0], "Fn::Or": any(holds), "Fn::And": all(holds)}[str(function)]

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, list):
            return [item for item in map(self._resolve, value) if item is not NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((function, argument),) = value.items()
            if function == "Ref":
                return NO_VALUE if argument == "AWS::NoValue" else self._values.get(argument, argument)
            if function == "Fn::GetAtt":
                return argument if isinstance(argument, str) else ".".join(argument)
            if function == "Fn::If":
                return self._resolve(argument[1 if self._holds({"Condition": argument[0]}) else 2])
            if function == "Fn::Sub":
                return self._substitute(argument)
            if function == "Fn::Split":
                return str(self._resolve(argument[1])).split(argument[0])
            if function == "Fn::Join":
                return argument[0].join(self._resolve(argument[1]))
        resolved = {key: self._resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item is not NO_VALUE}

    def _substitute(self, text: str) -> str:
        parts = text.split("${")
        substituted = [parts[0]]
        for part in parts[1:]:
            name, _, rest = part.partition("}")
            # Fn::Sub replaces ${!name} with a literal ${name}.
            value = f"${{{name[1:]}}}" if name.startswith("!") else self._values.get(name, name)
            substituted.append(f"{value}{rest}")
        return "".join(substituted)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
