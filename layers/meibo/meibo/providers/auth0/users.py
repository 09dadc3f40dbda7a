"""Look up users by id or e-mail address. Only their ids are requested."""

from __future__ import annotations

from typing import Any, Final

from meibo.errors import RequestRefusedError, WrongFormatError
from meibo.http.transport import Parameters, segment
from meibo.providers.auth0.client import Auth0Client

SCOPE: Final = "read:users"
_ID_ONLY: Final[Parameters] = (("fields", "user_id"), ("include_fields", "true"))


def users_by_email(client: Auth0Client, email: str) -> list[str]:
    """Return the ids of the users with this address in all connections, including users who were just created.

    The comparison is case-sensitive, and Auth0's own database stores addresses in lower case. So if there is no user
    with the address as given, the address in lower case is looked up.
    """
    ids = _by_email(client, email)
    return ids or (_by_email(client, email.lower()) if email != email.lower() else [])


def user_exists(client: Auth0Client, user_id: str) -> bool:
    """Return whether the tenant has a user of this id."""
    try:
        client.get(f"users/{segment(user_id)}", params=_ID_ONLY, subject="a user", scope=SCOPE, bucket="users")
    except RequestRefusedError as error:
        if error.is_missing:
            return False
        raise
    return True


def _by_email(client: Auth0Client, email: str) -> list[str]:
    params = (("email", email), *_ID_ONLY)
    rows: Any = client.get("users-by-email", params=params, subject="users by e-mail", scope=SCOPE, bucket="users")
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("user_id"), str) for row in rows
    ):
        raise WrongFormatError(f"{client.name}: expected a list of users by e-mail, found something else")
    return [row["user_id"] for row in rows]
