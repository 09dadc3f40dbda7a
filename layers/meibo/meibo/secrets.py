"""Credentials from AWS Secrets Manager and the configuration from SSM Parameter Store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools.utilities import parameters
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
from botocore.exceptions import ClientError

from meibo.aws import busy_error
from meibo.errors import ConfigurationError, SecretError


def clear_clients() -> None:
    """Drop the clients that Powertools caches, for a process whose endpoints change (tests, the local system)."""
    parameters.clear_caches()  # type: ignore[no-untyped-call]  # Powertools does not annotate it


def read_secret(name: str) -> dict[str, Any]:
    """Return a secret's JSON object.

    Raises SecretError if the secret is missing, cannot be read or does not contain a JSON object, and AwsBusyError if
    Secrets Manager is busy. The secret is not cached, so that a corrected secret is used at once.
    """
    try:
        text = parameters.get_secret(name, force_fetch=True)
    except GetParameterError as error:
        raise SecretError(
            f"the secret {name!r} cannot be read ({_rejection_code(error)}); create it in Secrets Manager in this"
            " region, and check that its name begins with the template's SecretPrefix"
        ) from None
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise SecretError(f'the secret {name!r}: expected a JSON object such as {{"client_id": …}}; correct the secret')
    return document


def string_value(document: Mapping[str, Any], key: str) -> str | None:
    """Return a string of a secret's JSON object, or None if the string is absent or empty.

    Raises a SecretError that names the key, never the value, if it is not a string.
    """
    value = document.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise SecretError(f'secret: expected "{key}" to be a string, found {type(value).__name__}; correct it')
    return value


def read_configuration(name: str) -> dict[str, str]:
    """Return the documents of the configuration by the names of their SSM parameters, sorted by name.

    The documents are the parameter ``name`` and all parameters below ``name/``; SSM limits each to 8 KB. Raises
    ConfigurationError if there is none or if they cannot be read, and AwsBusyError if SSM is busy.
    """
    documents: dict[str, str] = {}
    try:
        documents[name] = str(parameters.get_parameter(name, force_fetch=True))
    except GetParameterError as error:
        if _rejection_code(error) != "ParameterNotFound":
            raise _unreadable(f"the SSM parameter {name!r}", error) from None
    try:
        # Without a trailing slash: IAM compares the ARN in the policy with "parameter" and this path. The paginator of
        # Powertools also skips empty pages, which SSM may return before the last page:
        # https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParametersByPath.html
        below = parameters.get_parameters(name, recursive=True, force_fetch=True)
    except GetParameterError as error:
        raise _unreadable(f"the SSM parameters below '{name}/'", error) from None
    documents.update((f"{name}/{rest}", str(text)) for rest, text in sorted(below.items()))
    if not documents:
        raise ConfigurationError(
            f"expected the configuration in the SSM parameter {name!r} or in parameters below '{name}/', found neither;"
            " write the sources document there (aws ssm put-parameter --type String --tier Advanced)"
        )
    return documents


def _unreadable(subject: str, error: GetParameterError) -> ConfigurationError:
    return ConfigurationError(
        f"{subject} cannot be read ({_rejection_code(error)}); allow ssm:GetParameter and ssm:GetParametersByPath on it"
    )


def _rejection_code(error: GetParameterError) -> str:
    """Return the code with which AWS rejected the call; raise the wrapped error if AWS did not reject it."""
    cause = error.__context__
    if cause is None:
        raise error
    if busy := busy_error(cause):
        raise busy from None
    if not isinstance(cause, ClientError):
        raise cause from None
    return str(cause.response["Error"]["Code"])
