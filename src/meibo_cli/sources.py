"""The configuration file of the commands that work without a stack, and the credentials of its sources.

Credentials are read from the environment, a file ``.env`` or AWS Secrets Manager, in this order of precedence. A source
named ``acme-jp`` has variables such as ``MEIBO_ACME_JP_CLIENT_ID``, whose names end with the keys of the secret.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import boto3
import typer

from meibo.configuration import Configuration, parse_configuration
from meibo.errors import ConfigurationError, SecretError
from meibo.providers import provider
from meibo.secrets import read_secret

SOURCES_FILE: Final = "sources.json"
ENV_FILE: Final = ".env"

SourcesOption = Annotated[
    Path, typer.Option("--sources", "-s", help="The configuration. A file .env beside it can contain credentials.")
]


def read_sources(path: Path) -> Configuration:
    """Return the configuration in a file. Raises ConfigurationError if the file does not exist or is not valid."""
    try:
        return parse_configuration(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigurationError(f"--sources: the file {path} does not exist; create it with `meibo init`") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"--sources: expected JSON in UTF-8 in {path}") from None


def variable_prefix(source: str) -> str:
    """Return the beginning of the names of a source's variables."""
    return f"MEIBO_{source.replace('-', '_').upper()}_"


def credentials_of(source: str, keys: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the credentials of a source in the environment; empty if there are none."""
    prefix = variable_prefix(source)
    credentials = {key: environment[prefix + key.upper()] for key in keys if environment.get(prefix + key.upper())}
    # A PEM key on one line contains the characters \n instead of line breaks.
    return {
        key: value.replace("\\n", "\n") if value.startswith("-----BEGIN") else value
        for key, value in credentials.items()
    }


class SourceSecret(NamedTuple):
    """The name of a source's secret."""

    source: str
    provider: str
    secret: str


def configured_secrets(configuration: Configuration) -> list[SourceSecret]:
    """Return the names of the secrets in a configuration."""
    return [SourceSecret(source.name, source.provider, source.secret) for source in configuration.sources]


def secret_reader(
    sources: Iterable[SourceSecret], env_file: Path, *, require_all: bool = True
) -> Callable[[str], Mapping[str, Any]]:
    """Return a function that returns a secret by its name.

    If there are no AWS credentials, raises SecretError with all sources that have no credentials in the environment or
    in ``env_file``. If ``require_all`` is False, only the returned function raises SecretError, for the secret of one
    of these sources.
    """
    environment = {**read_env_file(env_file), **os.environ}
    secrets: dict[str, dict[str, str]] = {}
    missing: dict[str, str] = {}
    for source, provider_name, secret in sources:
        source_provider = provider(provider_name)
        credentials = credentials_of(source, source_provider.credential_keys, environment)
        if credentials:
            secrets[secret] = {**secrets.get(secret, {}), **credentials}
        else:
            required = ", or ".join(" and ".join(keys) for keys in source_provider.required_credentials)
            missing[secret] = (
                f"the source {source} has no credentials: set {required}, each as {variable_prefix(source)}<KEY>, in"
                f" the environment or in {env_file}, or store them in the Secrets Manager secret {secret} and set"
                " AWS_PROFILE and AWS_REGION"
            )
    uses_aws = not missing or _has_aws_credentials()
    if require_all and not uses_aws:
        raise SecretError("; ".join(missing.values()))

    def read(name: str) -> Mapping[str, Any]:
        if name in secrets:
            return secrets[name]
        if not uses_aws:
            raise SecretError(missing[name])
        return read_secret(name)

    return read


def _has_aws_credentials() -> bool:
    session = boto3.Session()
    return session.region_name is not None and session.get_credentials() is not None


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a file with lines ``NAME=VALUE``; empty if it does not exist.

    Values are literal, so that a password can contain any character; quotation marks around a value are removed.
    Raises ConfigurationError if other users can read the file.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: expected UTF-8; save the file in this encoding") from None
    if mode & 0o077:
        raise ConfigurationError(
            f"{path} contains credentials, but other users can read it (mode {mode:04o}); run: chmod 600 {path}"
        )
    variables: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*", line)
        if match is None:
            # The line may contain a secret, so the message does not contain the line.
            raise ConfigurationError(f"{path}, line {number}: expected NAME=VALUE on one line")
        name, value = match.groups()
        is_quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'"
        variables[name] = value[1:-1] if is_quoted else value
    return variables
