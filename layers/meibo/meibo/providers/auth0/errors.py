"""Map unsuccessful responses of the Management API to errors that contain no values of the request.

Auth0's messages may quote values of the request. Therefore, an error contains only error codes, paths, OAuth scopes,
ids, and known sentences without values.
"""

from __future__ import annotations

import re
from typing import Final

from meibo.errors import MeiboError, RequestRefusedError, ScopeMissingError
from meibo.http.transport import ProviderResponse, error_code

# Meibo's code for roles that do not exist. Auth0's response contains no code in this case.
NO_SUCH_ROLE: Final = "no_such_role"
_NO_SUCH_ROLE: Final = ("One or more of the specified roles do not exist", "No such role with id")

# Documented sentences that contain no values.
_KNOWN_SENTENCES: Final = frozenset(
    {
        "The connection does not exist",
        "No organization found by that id or name",
        "No organization found by that id",
        "No connection found by that id",
        "The invitation does not exist",
        "The user does not exist",
        "The role does not exist",
        "Job not found",
        "No more roles can be assigned to this organization member",
        "The specified client_id does not exist",
        "The specified client_id does not allow organizations",
        "The specified connection does not exist",
        "Passwordless connections are not supported",
        "Requesting page exceeds the allowed maximum of 1000 records",
    }
)
_SCOPE: Final = re.compile(r"\b(?:read|create|update|delete):[a-z_]+\b")
_PROPERTY: Final = re.compile(r" on property ([A-Za-z_][A-Za-z0-9_.\[\]]{0,60}) ?\(")
_IDS: Final = re.compile(r"\b(?:rol|con|org|job|uinv)_[A-Za-z0-9]{16}\b")


def error_from_response(response: ProviderResponse, *, provider: str, subject: str, scope: str) -> MeiboError:
    """Return the error for an unsuccessful response that is not retried. The client handles the status 401."""
    document = response.members()
    status, code = response.status, error_code(document.get("errorCode"))
    message = document.get("message")
    message = message if isinstance(message, str) else ""
    detail = f"{status}, {code}" if code else str(status)
    if status == 403:
        scopes = tuple(dict.fromkeys(_SCOPE.findall(message)))
        if scopes or code == "insufficient_scope":
            needed = ", ".join(scopes) or scope
            return ScopeMissingError(
                f"{provider} requires the OAuth scope {needed} for {subject}; grant it to the application for the"
                " Management API",
                scopes=scopes or (scope,),
            )
        return ScopeMissingError(
            f"{provider} rejected the request for {subject} ({detail}); check that the application has"
            f" the OAuth scope {scope} and that no firewall blocks the request",
            scopes=(scope,),
        )
    if 300 <= status < 400:
        return RequestRefusedError(
            f"{provider} redirected the request for {subject} ({status}), which is not followed; check the domain",
            status=status,
        )
    if reason := _reason(message):
        detail += f": {reason}"
    return RequestRefusedError(
        f"{provider} rejected the request for {subject} ({detail})",
        status=status,
        code=NO_SUCH_ROLE if message.startswith(_NO_SUCH_ROLE) else code,
        foreign=not (message or code),
    )


def _reason(message: str) -> str:
    if message.rstrip(".") in _KNOWN_SENTENCES:
        return message.rstrip(".")
    if match := _PROPERTY.search(message):
        return f"on property {match[1]}"
    if message.startswith(_NO_SUCH_ROLE):
        return "no such role " + ", ".join(_IDS.findall(message)[:10])
    if message.startswith("A default login route is required"):
        return "the application needs a default login route"
    return ""
