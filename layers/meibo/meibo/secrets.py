"""Credentials from AWS Secrets Manager and the configuration from SSM Parameter Store."""

from __future__ import annotations

import json
from typing import Any

from aws_lambda_powertools.utilities import parameters
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError

from meibo.errors import ConfigurationError, SecretError


def forget_providers() -> None:
    """Drop the clients that Powertools keeps, for a process whose AWS changes (tests, the local system)."""
    parameters.clear_caches()  # type: ignore[no-untyped-call]  # Powertools does not annotate it


def read_secret(name: str) -> dict[str, Any]:
    """Return a secret's JSON object, raising SecretError where it is missing or not one.

    Not cached: clients are kept with their tokens, and a corrected secret must count at once.
    """
    try:
        text = parameters.get_secret(name, force_fetch=True)
    except GetParameterError as error:
        raise SecretError(
            f"the secret {name!r} cannot be read ({_code(error)}); create it in Secrets Manager in this region,"
            " and check that its name begins with the template's SecretPrefix"
        ) from None
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise SecretError(f'the secret {name!r} must hold one JSON object, such as {{"client_id": …}}')
    return document


def read_configuration(name: str) -> str:
    """Return the text of the configuration, raising ConfigurationError where the parameter is missing."""
    try:
        return str(parameters.get_parameter(name, force_fetch=True))
    except GetParameterError as error:
        raise ConfigurationError(
            f"the SSM parameter {name!r} cannot be read ({_code(error)}); write the sources document there"
            " (aws ssm put-parameter --type String --tier Advanced)"
        ) from None


def _code(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", "unknown"))
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
