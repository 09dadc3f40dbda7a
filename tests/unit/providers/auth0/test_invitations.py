from __future__ import annotations

import traceback
from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from meibo.errors import ProviderBusyError, RequestRefusedError, WrongFormatError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.membership import InvitationTerms, create_invitation, list_invitations
from tests.support.transport import RecordedRequest, Reply, Transport

ORGANIZATION = "org_0000000000000001"
PATH = f"/api/v2/organizations/{ORGANIZATION}/invitations"
ADDRESS = "canary@example.com"
CREATED = {
    "id": "uinv_0000000000000001",
    "client_id": "app",
    "invitee": {"email": "canary@example.com"},
    "invitation_url": "https://example.com/login?invitation=canary",
    "expires_at": "2026-11-28T18:00:00.000Z",
}


def invite(client: Auth0Client, **changes: Any) -> Any:
    roles = changes.pop("roles", ())
    terms = InvitationTerms(client_id="app", inviter="HR", **changes)
    return create_invitation(client, ORGANIZATION, ADDRESS, terms, roles)


@pytest.mark.parametrize("status", [200, 201])
def test_invitation_does_not_contain_its_url_or_address(auth0: Transport, client: Auth0Client, status: int) -> None:
    auth0.on("POST", PATH, Reply(status, json=CREATED))

    invitation = invite(client)

    assert (invitation.id, invitation.expires_at) == (CREATED["id"], datetime(2026, 11, 28, 18, tzinfo=UTC))
    assert "canary" not in repr(invitation)


def test_e_mail_is_sent_only_on_request(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("POST", PATH, Reply(201, json=CREATED))

    invite(client)
    invite(client, send_email=True, roles=["rol_1"], ttl_sec=3600, connection_id="con_0000000000000001")

    assert auth0.requests[-2].json == {
        "inviter": {"name": "HR"},
        "invitee": {"email": "canary@example.com"},
        "client_id": "app",
        "send_invitation_email": False,
    }
    assert auth0.requests[-1].json == {
        "inviter": {"name": "HR"},
        "invitee": {"email": "canary@example.com"},
        "client_id": "app",
        "send_invitation_email": True,
        "roles": ["rol_1"],
        "ttl_sec": 3600,
        "connection_id": "con_0000000000000001",
    }


@pytest.mark.parametrize("failure", [Reply(502), requests.ConnectionError("canary")])
def test_invitation_with_an_unknown_outcome_is_not_retried(
    auth0: Transport, client: Auth0Client, failure: Reply | Exception
) -> None:
    auth0.on("POST", PATH, failure)

    with pytest.raises(ProviderBusyError) as caught:
        invite(client)

    assert caught.value.uncertain
    assert len(auth0.calls("POST", PATH)) == 1
    assert "canary" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("The specified client_id does not exist.", "client_id does not exist"),
        (
            "A default login route is required to generate the invitation url. See x",
            "login route",
        ),
        ("One or more of the specified roles do not exist: rol_0000000000000009", "rol_0000000000000009"),
        ("canary@example.com is not welcome", r"\(400, invalid_body\)"),
    ],
)
def test_rejected_invitation_has_a_reason_without_the_address(
    auth0: Transport, client: Auth0Client, message: str, reason: str
) -> None:
    auth0.on("POST", PATH, Reply(400, json={"message": message, "errorCode": "invalid_body"}))

    with pytest.raises(RequestRefusedError, match=reason) as caught:
        invite(client)

    assert "canary" not in str(caught.value)


def test_invitation_without_an_id_is_an_error(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("POST", PATH, Reply(201, json={}))

    with pytest.raises(
        WrongFormatError, match=f"expected the id of an invitation to organization {ORGANIZATION}, found none"
    ):
        invite(client)


def test_invitations_are_listed_until_a_page_is_empty(auth0: Transport, client: Auth0Client) -> None:
    other = {"id": "uinv_9", "client_id": "app", "invitee": {"email": "other@example.com"}}
    pages: list[list[Any]] = [[other] * 50, [other, {"id": "uinv_8"}, CREATED], []]

    def respond(request: RecordedRequest) -> Reply:
        rows = pages[int(request.query["page"])]
        return Reply(json={"invitations": rows, "start": 0, "limit": len(rows)})

    auth0.on("GET", PATH, respond)

    invitations = list_invitations(client, ORGANIZATION)

    assert {key: [invitation.id for invitation in values] for key, values in invitations.items()} == {
        ("other@example.com", "app"): ["uinv_9"] * 51,
        ("canary@example.com", "app"): [CREATED["id"]],
    }
