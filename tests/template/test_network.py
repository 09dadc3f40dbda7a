"""The VPC and the proxy of the functions that call providers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.template import Template

CALLS_PROVIDERS = {"CreateExports", "CheckExport", "ArchiveExport", "ChangeMembers"}
VPC = {
    "SubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
    "SecurityGroupIds": "sg-0123456789abcdef0",
}


def connects_to_vpc(template: Template, function: str) -> bool:
    return any(statement["Sid"] == "ConnectToVpc" for statement in template.statements(f"{function}Role"))


def test_functions_use_no_vpc_by_default(template: Template) -> None:
    functions = template.of_type("AWS::Lambda::Function")

    assert not any("VpcConfig" in properties for properties in functions.values())
    assert not any(connects_to_vpc(template, function) for function in functions)


def test_functions_that_call_providers_use_the_vpc(translate: Callable[..., Template]) -> None:
    template = translate(**VPC)
    functions = template.of_type("AWS::Lambda::Function")

    configured = {name: properties["VpcConfig"] for name, properties in functions.items() if "VpcConfig" in properties}

    expected = {name: values.split(",") for name, values in VPC.items()}
    assert configured == dict.fromkeys(CALLS_PROVIDERS, expected)
    assert {name for name in functions if connects_to_vpc(template, name)} == CALLS_PROVIDERS


def test_functions_that_call_providers_use_the_proxy(template: Template, translate: Callable[..., Template]) -> None:
    def with_proxy(deployed: Template) -> set[str]:
        functions = deployed.of_type("AWS::Lambda::Function")
        return {name for name, function in functions.items() if "HTTPS_PROXY" in function["Environment"]["Variables"]}

    assert with_proxy(template) == set()
    assert with_proxy(translate(HttpsProxy="http://proxy.example.com:3128")) == CALLS_PROVIDERS


@pytest.mark.parametrize("names", [(), tuple(VPC)])
def test_subnets_and_security_groups_are_set_together(
    translate: Callable[..., Template], names: tuple[str, ...]
) -> None:
    assert translate(**{name: VPC[name] for name in names}).satisfies("SubnetsWithSecurityGroups")


@pytest.mark.parametrize("name", VPC)
def test_subnets_without_security_groups_are_rejected(translate: Callable[..., Template], name: str) -> None:
    assert not translate(**{name: VPC[name]}).satisfies("SubnetsWithSecurityGroups")
