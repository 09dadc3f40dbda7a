"""Run moto's server for ``sam deploy``, with the behavior of CloudFormation that moto 5.2 lacks.

``python -m tests.e2e.cloudformation PORT`` listens on loopback. Types of resources that moto's CloudFormation does not
know (alarms, schedules, metric filters, Glue tables, policies of buckets and queues) are skipped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from moto.awslambda.models import LambdaFunction
from moto.cloudformation import parsing, responses
from moto.cloudformation.models import ChangeSet, Stack
from moto.server import main
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

Function = Callable[..., Any]


def transforming(original: Function) -> Function:
    """Apply the SAM transform to the template of a change set."""

    def template_body(template_url: str, **options: Any) -> str:
        document = yaml_parse(original(template_url, **options))
        defaults = {name: parameter["Default"] for name, parameter in document["Parameters"].items()}
        translated = Translator({}, Parser()).translate(document, defaults)
        # The dashboard refers to the alarms, which moto skips.
        del translated["Resources"]["Dashboard"]
        # YAML cannot begin with a tab, so moto parses the body as JSON, which is a hundred times faster.
        return "\t" + json.dumps(translated)

    return template_body


def recorded(original: Function) -> Function:
    """Record the outputs and parameters of an executed change set. The next change set is compared with them."""

    def apply(self: ChangeSet) -> None:
        original(self)
        self.stack.parameters = self.parameters
        self.stack.template_dict = self.template_dict
        self.stack.output_map = self.stack._create_output_map()

    return apply


def previous_parameters(stack: Stack) -> dict[str, str]:
    """Return the previous parameter values as strings, because moto truncates a previous number, such as 0.5 to 0."""
    values = stack.resource_map.resolved_parameters.items()
    return {name: ",".join(value) if isinstance(value, list) else str(value) for name, value in values}


def described_parameters(stack: Stack) -> list[dict[str, str]]:
    """Return the parameters as DescribeStacks does. moto would return the Python representation of a list."""
    return [{"ParameterKey": name, "ParameterValue": value} for name, value in previous_parameters(stack).items()]


def conditional(original: Function) -> Function:
    """Update resources whose condition is true, create missing resources, and skip types that moto cannot update."""

    def update(logical_id: str, resource: dict[str, Any], resources: Any, **account: str) -> Any | None:
        condition = resource.get("Condition")
        if condition and not resources.lazy_condition_map[condition]:
            return None
        existing = resources[logical_id]
        if existing is None:
            return parsing.parse_and_create_resource(logical_id, resource, resources, **account)
        return original(logical_id, resource, resources, **account) or existing

    return update


def by_arn(original: Function) -> Function:
    """Accept a layer inside an Fn::If, for which moto passes the resource instead of its ARN."""

    def layers_data(self: LambdaFunction, layers: list[Any]) -> Any:
        return original(self, [getattr(layer, "arn", layer) for layer in layers])

    return layers_data


def replace(owner: Any, name: str, wrapper: Callable[[Function], Function]) -> None:
    """Replace a function of moto with a wrapper."""
    setattr(owner, name, wrapper(getattr(owner, name)))


if __name__ == "__main__":
    replace(responses, "get_stack_from_s3_url", transforming)
    replace(ChangeSet, "apply", recorded)
    replace(Stack, "stack_parameters", lambda _: property(previous_parameters))  # type: ignore[arg-type,return-value]  # a property
    replace(Stack, "parameter_list", lambda _: property(described_parameters))  # type: ignore[arg-type,return-value]  # as above
    replace(parsing, "parse_and_update_resource", conditional)
    replace(LambdaFunction, "_get_layers_data", by_arn)
    main(["--host", "127.0.0.1", "--port", sys.argv[1]])
