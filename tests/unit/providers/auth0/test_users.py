from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

import pytest

from meibo.errors import RequestRefusedError, WrongFormatError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.membership import user_exists, users_by_email
from tests.support.transport import RecordedRequest, Reply, Transport

BY_EMAIL = "/api/v2/users-by-email"


def test_users_are_looked_up_by_e_mail_address(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", BY_EMAIL, Reply(json=[{"user_id": "auth0|1"}, {"user_id": "google-oauth2|2"}]))

    assert users_by_email(client, "a+b@example.com") == ["auth0|1", "google-oauth2|2"]
    assert auth0.requests[-1].query == {"email": "a+b@example.com", "fields": "user_id", "include_fields": "true"}


def test_address_without_users_is_looked_up_in_lower_case(auth0: Transport, client: Auth0Client) -> None:
    def answer(request: RecordedRequest) -> Reply:
        return Reply(json=[{"user_id": "auth0|1"}] if request.query["email"] == "a@example.com" else [])

    auth0.on("GET", BY_EMAIL, answer)

    assert users_by_email(client, "A@Example.com") == ["auth0|1"]
    assert users_by_email(client, "b@example.com") == []
    assert len(auth0.calls("GET", BY_EMAIL)) == 3


@pytest.mark.parametrize("answer", [{}, [{}], ["canary"], {"users": []}])
def test_response_without_users_is_an_error(auth0: Transport, client: Auth0Client, answer: Any) -> None:
    auth0.on("GET", BY_EMAIL, Reply(json=answer))

    with pytest.raises(WrongFormatError) as caught:
        users_by_email(client, "canary@example.com")

    assert "canary" not in str(caught.value)


def test_user_exists_only_if_auth0_returns_it(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", "/api/v2/users/auth0%7C1", Reply(json={"user_id": "auth0|1"}))
    auth0.on("GET", "/api/v2/users/auth0%7C2", Reply(404, json={"errorCode": "inexistent_user"}))
    auth0.on("GET", "/api/v2/users/bad", Reply(400, json={"errorCode": "invalid_uri"}))

    assert user_exists(client, "auth0|1")
    assert not user_exists(client, "auth0|2")
    with pytest.raises(RequestRefusedError, match="invalid_uri"):
        user_exists(client, "bad")


def test_invalid_unicode_is_rejected_before_it_is_sent(auth0: Transport, client: Auth0Client) -> None:
    # JSON can contain a lone surrogate, so a change on the queue can contain it too.
    for call in (
        lambda: user_exists(client, "auth0|\ud83d"),
        lambda: users_by_email(client, "canary\ud83d@example.com"),
    ):
        with pytest.raises(RequestRefusedError, match="not valid Unicode") as caught:
            call()
        assert "canary" not in str(caught.value)

    assert [request.path for request in auth0.requests] == ["/oauth/token"]


@pytest.mark.parametrize("user_id", ["auth0|a/b", "auth0|a?b=c", "auth0|a#b", "auth0|%2e%2e", "samlp|x|y@z", "ad|日本"])
def test_id_is_a_single_segment_of_the_path(auth0: Transport, client: Auth0Client, user_id: str) -> None:
    auth0.on("GET", f"/api/v2/users/{quote(user_id, safe='')}", Reply(json={}))

    assert user_exists(client, user_id)
    assert unquote(auth0.requests[-1].url.partition("?")[0].rpartition("/")[2]) == user_id
