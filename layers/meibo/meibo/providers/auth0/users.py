"""Whether a user exists, and which users have an e-mail address; nothing else about them is read."""

from __future__ import annotations

from typing import Any, Final

from meibo.errors import RequestRefusedError, WrongFormatError
from meibo.http.transport import Parameters, segment
from meibo.providers.auth0.client import Auth0Client

SCOPE: Final = "read:users"
_ID_ONLY: Final[Parameters] = (("fields", "user_id"), ("include_fields", "true"))


def users_by_email(client: Auth0Client, email: str) -> list[str]:
    """Return the ids of the users with this address, of all connections; unlike a search it sees new users at once.

    Auth0 compares letter by letter and its own database keeps addresses in lower case, so an address that finds
    nobody is tried in lower case too.
    """
    found = _by_email(client, email)
    return found or (_by_email(client, email.lower()) if email != email.lower() else [])


def user_exists(client: Auth0Client, user_id: str) -> bool:
    """Say whether there is a user of this id."""
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
        raise WrongFormatError(f"{client.name} answered something other than users by e-mail")
    return [row["user_id"] for row in rows]
