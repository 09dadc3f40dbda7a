"""Read connections and users of the tenant that is restored, and check the OAuth scopes of the access token."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from meibo.errors import ConfigurationError, RequestRefusedError, ScopeMissingError, SecretError, WrongFormatError
from meibo.http.transport import segment
from meibo.providers.auth0.client import ApiList, Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.jobs import USERS_SCOPE
from meibo_cli.restore.auth0_imports import SCOPE
from meibo_cli.sources import credentials_of, variable_prefix

CONNECTIONS_SCOPE: Final = "read:connections"
READ_SCOPES: Final = (USERS_SCOPE, CONNECTIONS_SCOPE)
IMPORT_SCOPES: Final = (SCOPE, *READ_SCOPES)
DATABASE: Final = "auth0"
_CREDENTIALS: Final = ("client_id", "client_secret", "private_key", "key_id", "algorithm")


@dataclass(frozen=True)
class TargetConnection:
    """A database connection of the tenant."""

    id: str
    name: str = field(repr=False)


def target_credentials(source: str, scopes: Iterable[str]) -> dict[str, str]:
    """Return the credentials of the tenant from the environment variables of a source.

    Raises SecretError, with the OAuth scopes that the application requires, if the variables are not set.
    """
    secret = credentials_of(source, _CREDENTIALS, os.environ)
    if not secret:
        prefix = variable_prefix(source)
        raise SecretError(
            f"set {prefix}CLIENT_ID and {prefix}CLIENT_SECRET of an application with the OAuth scopes"
            f" {', '.join(scopes)}"
        )
    return secret


def target_client(domain: str, secret: Mapping[str, str], audience: str | None) -> Auth0Client:
    """Return a client of the tenant."""
    credentials = Auth0Credentials.from_secret(secret)
    return Auth0Client(domain, lambda: credentials, audience=audience)


def import_client(source: str, domain: str, audience: str | None) -> Auth0Client:
    """Return a client for requests about users, with the credentials of a source."""
    return target_client(domain, target_credentials(source, IMPORT_SCOPES), audience)


def missing_scopes(client: Auth0Client, scopes: Iterable[str]) -> list[str]:
    """Return the OAuth scopes that the access token does not contain, or an empty list if its scopes are unknown."""
    granted = client.granted_scopes()
    return [] if granted is None else [scope for scope in scopes if scope not in granted]


def check_scopes(client: Auth0Client, scopes: Collection[str]) -> None:
    """Raise ScopeMissingError if the access token does not contain all of the OAuth scopes."""
    if missing := missing_scopes(client, scopes):
        raise ScopeMissingError(
            f"{client.name} requires the OAuth scopes {', '.join(missing)}; grant them to the application for the"
            " Management API; nothing was sent",
            scopes=tuple(missing),
        )


def database_connection(client: Auth0Client, connection_id: str) -> TargetConnection:
    """Return a connection. Raises ConfigurationError if it does not exist or is not a database connection."""
    document = _get(
        client,
        f"connections/{segment(connection_id)}",
        subject=f"the connection {connection_id}",
        scope=CONNECTIONS_SCOPE,
        bucket="connections",
    )
    if document is None:
        raise ConfigurationError(f"--connection-id: {client.name} has no connection {connection_id}; correct the id")
    name, strategy = document.get("name"), document.get("strategy")
    if not isinstance(name, str) or not isinstance(strategy, str):
        raise WrongFormatError(f"{client.name}: expected the name and the strategy of the connection {connection_id}")
    if strategy != DATABASE:
        raise ConfigurationError(
            f"--connection-id: expected a database connection, but {connection_id} has the strategy {strategy}; correct"
            " the id"
        )
    return TargetConnection(connection_id, name)


def live_user(client: Auth0Client, user_id: str) -> dict[str, Any] | None:
    """Return the user with this id, or None if the tenant does not contain the user."""
    return _get(client, f"users/{segment(user_id)}", subject="a user", scope=USERS_SCOPE, bucket="users")


def live_users_by_email(client: Auth0Client, email: str) -> list[Any]:
    """Return the users with this e-mail address. The address must be in lower case."""
    params = (("email", email),)
    users = ApiList("users-by-email", None, "a list of users by e-mail", USERS_SCOPE, "users", params)
    rows, _ = client.request_list(users)
    return [row.value for row in rows]


def has_values(live: Mapping[str, Any], user: Mapping[str, Any], fields: Iterable[str]) -> bool:
    """Return whether a user of the tenant has the same values of these fields as a user in a file.

    A missing value is equal to an empty object, an empty string and false. Auth0 stores e-mail addresses in lower case.
    """
    values = {**user, "email": user["email"].lower()}
    return all((live.get(name) or None) == (values.get(name) or None) for name in fields)


def _get(client: Auth0Client, path: str, *, subject: str, scope: str, bucket: str) -> dict[str, Any] | None:
    try:
        document = client.request("GET", path, subject=subject, scope=scope, bucket=bucket)
    except RequestRefusedError as error:
        if error.is_missing:
            return None
        raise
    if not isinstance(document, dict):
        raise WrongFormatError(f"{client.name}: expected an object for {subject}, found {type(document).__name__}")
    return document
