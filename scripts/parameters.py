"""Print docs/parameters.md, the reference of the template's parameters. Run it with ``make parameters``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from meibo_local.template import read_template

HEAD = """\
# Parameters

<!-- Generated from template.yaml by `make parameters`. Do not edit this page. -->

These are the parameters of the stack, in the groups that the CloudFormation console displays. Every parameter has a
default. To change a parameter, run `sam deploy --parameter-overrides MaxRemovals=10`. The other parameters
[keep their values](upgrading.md#change-a-parameter). Settings of individual sources are part of the
[configuration](configuration.md#settings-of-a-source).
"""


def page(template: Mapping[str, Any]) -> str:
    """Return the page as Markdown."""
    return "\n".join([HEAD, *_groups(template)])


def _groups(template: Mapping[str, Any]) -> Iterator[str]:
    for group in template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]:
        yield f"## {group['Label']['default']}\n"
        yield "| parameter | default | valid values | description |"
        yield "|---|---|---|---|"
        for name in group["Parameters"]:
            declaration = template["Parameters"][name]
            cells = (f"`{name}`", _code(declaration["Default"]), _valid_values(declaration), declaration["Description"])
            yield "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
        yield ""


def _valid_values(declaration: Mapping[str, Any]) -> str:
    if values := declaration.get("AllowedValues"):
        return ", ".join(_code(value) for value in values)
    if declaration["Type"] == "Number":
        return f"{declaration['MinValue']} to {declaration['MaxValue']}"
    return str(declaration["ConstraintDescription"])


def _code(value: Any) -> str:
    return f"`{value}`" if value != "" else "empty"


if __name__ == "__main__":
    print(page(read_template()), end="")
