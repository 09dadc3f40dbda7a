"""A configuration that is larger than an SSM parameter: documents in parameters below the first."""

from __future__ import annotations

import json
from typing import Any

import boto3

from tests.support.stack import System

NAME = "/meibo/sources"


def _put(name: str, *sources: dict[str, Any]) -> None:
    # The standard tier: 4 KB per parameter, without charge.
    boto3.client("ssm").put_parameter(Name=name, Value=json.dumps({"sources": sources}), Type="String")


def _cybozu(system: System, name: str) -> dict[str, Any]:
    return {**system.cybozu_source({"dataset": "users"}), "name": name}


def test_every_source_can_have_its_own_parameter(system: System) -> None:
    # given: more parameters than a page of SSM's response contains, and a parameter outside the path
    system.configure(system.auth0_source({"dataset": "users"}))
    for number in range(11):
        _put(f"{NAME}/region-{number % 2}/domain-{number:02d}", _cybozu(system, f"domain-{number:02d}"))
    _put(f"{NAME}-old/acme", _cybozu(system, "old"))

    manifest = system.run()

    assert manifest["complete"] is True
    assert {export["export_id"].split("/")[0] for export in manifest["exports"]} == {
        "acme",
        *(f"domain-{number:02d}" for number in range(11)),
    }


def test_first_parameter_is_optional(system: System) -> None:
    system.configure(system.cybozu_source({"dataset": "users"}))
    boto3.client("ssm").delete_parameter(Name=NAME)
    _put(f"{NAME}/example", system.cybozu_source({"dataset": "users"}))

    assert system.run()["complete"] is True


def test_source_in_two_parameters_is_an_error_that_names_both(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "users"}))
    _put(f"{NAME}/a", _cybozu(system, "domain"))
    _put(f"{NAME}/b", _cybozu(system, "other"), _cybozu(system, "domain"))

    outcome = system.aws.tick()

    assert outcome.failed
    assert outcome.payload["errorType"] == "ConfigurationError"
    assert outcome.payload["errorMessage"].startswith(f"SSM parameters {NAME}/a and {NAME}/b: ")
    assert "'domain'" in outcome.payload["errorMessage"]
    assert not system.aws.keys()


def test_configuration_error_names_its_parameter_and_path(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "users"}))
    _put(f"{NAME}/a", {**_cybozu(system, "domain"), "password": "secret"})
    _put(f"{NAME}/b")

    outcome = system.aws.tick()

    message = outcome.payload["errorMessage"]
    assert f"SSM parameter {NAME}/a: invalid configuration: sources[0].password: is not allowed here" in message
    assert f"SSM parameter {NAME}/b: invalid configuration: sources: " in message
