"""Read credentials from AWS Secrets Manager, and the configuration from SSM Parameter Store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from meibo import aws
from meibo.errors import ConfigurationError, SecretError


def read_secret(name: str) -> dict[str, Any]:
    """Return a secret's JSON object.

    Raises SecretError if the secret is missing, cannot be read or does not contain a JSON object, and AwsBusyError if
    Secrets Manager is busy. The secret is not cached, so that a corrected secret is used at once.
    """
    try:
        response = aws.secrets_manager().get_secret_value(SecretId=name)
    except (BotoCoreError, ClientError) as error:
        raise SecretError(
            f"the secret {name!r} cannot be read ({_rejection_code(error)}); create it in Secrets Manager in this"
            " region, and check that its name begins with the template's SecretPrefix"
        ) from None
    try:
        document = json.loads(response.get("SecretString") or response.get("SecretBinary", ""))
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise SecretError(f'the secret {name!r}: expected a JSON object such as {{"client_id": …}}; correct the secret')
    return document


def string_value(document: Mapping[str, Any], key: str) -> str | None:
    """Return a string in a secret's JSON object, or None if it is missing or empty.

    Raises SecretError if the value is not a string. The message contains the key, never the value.
    """
    value = document.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise SecretError(f'secret: expected "{key}" to be a string, found {type(value).__name__}; correct it')
    return value


def read_configuration(name: str) -> dict[str, str]:
    """Return the documents of the configuration by the names of their SSM parameters, sorted by name.

    The documents are the values of the parameter ``name`` and of all parameters below ``name/``, because SSM limits a
    value to 8 KB. Raises ConfigurationError if there are no documents or a document cannot be read, and AwsBusyError if
    SSM is busy.
    """
    client = aws.ssm()
    documents: dict[str, str] = {}
    try:
        documents[name] = client.get_parameter(Name=name, WithDecryption=False)["Parameter"]["Value"]
    except (BotoCoreError, ClientError) as error:
        if _rejection_code(error) != "ParameterNotFound":
            raise _unreadable(f"the SSM parameter {name!r}", error) from None
    # The path has no slash at the end, because IAM compares the ARN in the policy with "parameter" and this path. The
    # paginator also continues after empty pages, which SSM may return:
    # https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParametersByPath.html
    pages = client.get_paginator("get_parameters_by_path").paginate(Path=name, Recursive=True, WithDecryption=False)
    try:
        below = {parameter["Name"]: parameter["Value"] for page in pages for parameter in page["Parameters"]}
    except (BotoCoreError, ClientError) as error:
        raise _unreadable(f"the SSM parameters below '{name}/'", error) from None
    documents.update(sorted(below.items()))
    if not documents:
        raise ConfigurationError(
            f"expected the configuration in the SSM parameter {name!r} or in parameters below '{name}/', found neither;"
            " store the configuration there (aws ssm put-parameter --type String --tier Advanced)"
        )
    return documents


def _unreadable(subject: str, error: BotoCoreError | ClientError) -> ConfigurationError:
    return ConfigurationError(
        f"{subject} cannot be read ({_rejection_code(error)}); allow ssm:GetParameter and ssm:GetParametersByPath on it"
    )


def _rejection_code(error: BotoCoreError | ClientError) -> str:
    """Return the error code of AWS. Raises AwsBusyError if AWS is busy, and the error itself if it has no code."""
    if busy := aws.busy_error(error):
        raise busy from None
    if not isinstance(error, ClientError):
        raise error
    return error.response["Error"]["Code"]
