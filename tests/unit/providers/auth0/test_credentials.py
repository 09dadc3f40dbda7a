from __future__ import annotations

from typing import Any

import pytest

from meibo.errors import SecretError
from meibo.providers.auth0.credentials import Auth0Credentials

PEM = "-----BEGIN PRIVATE KEY-----\nsecret-key\n-----END PRIVATE KEY-----\n"


def test_client_secret_is_used_unchanged() -> None:
    credentials = Auth0Credentials.from_secret({"client_id": "client", "client_secret": " s3cret "})

    assert (credentials.client_id, credentials.client_secret) == ("client", " s3cret ")


def test_private_key_has_an_id_and_an_algorithm() -> None:
    credentials = Auth0Credentials.from_secret(
        {"client_id": "client", "private_key": PEM, "key_id": "key-1", "algorithm": "PS256"}
    )

    assert (credentials.key_id, credentials.algorithm) == ("key-1", "PS256")


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({}, "client_id"),
        ({"client_id": "c"}, "client_secret"),
        ({"client_id": "c", "client_secret": ""}, "client_secret"),
        ({"client_id": "c", "client_secret": "leak", "private_key": PEM}, "private_key"),
        ({"client_id": 7, "client_secret": "leak"}, "client_id"),
        ({"client_id": "two words", "client_secret": "leak"}, "client_id"),
        ({"client_id": "c" * 65, "client_secret": "leak"}, "client_id"),
        ({"client_id": "c", "private_key": "leak"}, "private_key"),
        ({"client_id": "c", "private_key": PEM, "algorithm": "leak"}, "algorithm"),
    ],
)
def test_invalid_secret_is_explained_without_its_values(document: dict[str, Any], named: str) -> None:
    with pytest.raises(SecretError, match=named) as caught:
        Auth0Credentials.from_secret(document)

    assert "leak" not in str(caught.value)


def test_repr_contains_no_secret() -> None:
    shown = repr(Auth0Credentials("client", "s3cret")) + repr(Auth0Credentials("client", private_key=PEM))

    assert "s3cret" not in shown
    assert "secret-key" not in shown
