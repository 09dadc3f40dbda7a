from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from meibo.errors import SecretError
from meibo.providers.cybozu.client import CybozuCredentials


def test_login_is_sent_as_documented() -> None:
    credentials = CybozuCredentials.from_secret({"login": "Administrator", "password": "cybozu"})

    assert credentials.headers() == {"X-Cybozu-Authorization": "QWRtaW5pc3RyYXRvcjpjeWJvenU="}


def test_password_may_contain_any_character() -> None:
    credentials = CybozuCredentials.from_secret({"login": "名簿", "password": "pass:wörd\r\n "})

    assert credentials.headers() == {"X-Cybozu-Authorization": b64encode("名簿:pass:wörd\r\n ".encode()).decode()}


def test_basic_credentials_are_sent_with_the_login() -> None:
    credentials = CybozuCredentials.from_secret(
        {"login": "Administrator", "password": "cybozu", "basic_user": "gate", "basic_password": "keeper"}
    )

    assert credentials.headers() == {
        "X-Cybozu-Authorization": "QWRtaW5pc3RyYXRvcjpjeWJvenU=",
        "Authorization": "Basic " + b64encode(b"gate:keeper").decode(),
    }


def test_api_token_is_sent_as_a_bearer_token() -> None:
    credentials = CybozuCredentials.from_secret({"api_token": "cy.s.api1.a.b.c"})

    assert credentials.headers() == {"Authorization": "Bearer cy.s.api1.a.b.c"}


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({}, '"login"'),
        ({"login": "leak"}, '"password"'),
        ({"password": "leak"}, '"login"'),
        ({"login": "le:ak", "password": "leak"}, "colon"),
        ({"login": "leak", "password": 7}, '"password"'),
        ({"login": "leak", "password": "leak", "api_token": "leak"}, "expected either .*, found both"),
        ({"api_token": "leak\r\nX: y"}, '"api_token"'),
        ({"api_token": "leak", "basic_user": "leak", "basic_password": "leak"}, "share one header"),
        ({"login": "leak", "password": "leak", "basic_user": "leak"}, '"basic_password"'),
        ({"login": "leak", "password": "leak", "basic_user": "le:ak", "basic_password": "x"}, "colon"),
    ],
)
def test_invalid_secret_is_explained_without_its_values(document: dict[str, Any], named: str) -> None:
    with pytest.raises(SecretError, match=named) as caught:
        CybozuCredentials.from_secret(document)

    assert "leak" not in str(caught.value)


def test_repr_contains_no_secret() -> None:
    shown = repr(CybozuCredentials("canary-1", "canary-2", "canary-3", "canary-4", "canary-5"))

    assert "canary" not in shown
