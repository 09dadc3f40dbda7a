"""Credentials of the sources of ``meibo run``: the environment, the file ``.env``, and Secrets Manager."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meibo.configuration import parse_configuration
from meibo.errors import ConfigurationError, SecretError
from meibo_cli.sources import SourceSecret, configured_secrets, read_env_file, secret_reader

ACME = {
    "provider": "auth0",
    "name": "acme-jp",
    "domain": "acme.jp.auth0.com",
    "secret": "meibo/acme",
    "exports": [{"dataset": "users"}],
}
EXAMPLE = {
    "provider": "cybozu",
    "name": "example",
    "base_url": "https://example.cybozu.com",
    "secret": "meibo/example",
    "exports": [{"dataset": "users"}],
}


def secrets(*sources: dict[str, Any]) -> list[SourceSecret]:
    return configured_secrets(parse_configuration(json.dumps({"sources": sources})))


@pytest.fixture(autouse=True)
def no_aws_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.touch(0o600)
    return path


def test_values_of_the_file_are_literal(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("x", "other")
    env_file.write_text(
        "\ufeff# a comment\n\nMEIBO_EXAMPLE_LOGIN=admin\nexport MEIBO_EXAMPLE_PASSWORD = 'pa${x}s$s #1' \nA=\n",
        encoding="utf-8",
    )

    assert read_env_file(env_file) == {
        "MEIBO_EXAMPLE_LOGIN": "admin",
        "MEIBO_EXAMPLE_PASSWORD": "pa${x}s$s #1",
        "A": "",
    }
    assert secret_reader(secrets(EXAMPLE), env_file)("meibo/example") == {
        "login": "admin",
        "password": "pa${x}s$s #1",
    }


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_file_that_other_users_can_read_is_refused(env_file: Path, mode: int) -> None:
    env_file.chmod(mode)

    with pytest.raises(ConfigurationError) as refused:
        read_env_file(env_file)

    assert str(refused.value) == (
        f"{env_file} contains credentials, but other users can read it (mode {mode:04o}); run: chmod 600 {env_file}"
    )


def test_invalid_line_is_named_by_its_number_only(env_file: Path) -> None:
    env_file.write_text("A=1\nsecret-without-a-name\n", encoding="utf-8")

    with pytest.raises(ConfigurationError) as refused:
        read_env_file(env_file)

    assert str(refused.value) == f"{env_file}, line 2: expected NAME=VALUE on one line"


def test_file_is_optional(tmp_path: Path) -> None:
    assert read_env_file(tmp_path / ".env") == {}


def test_environment_has_precedence_over_the_file(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_file.write_text("MEIBO_ACME_JP_CLIENT_ID=file\nMEIBO_ACME_JP_CLIENT_SECRET=secret\n", encoding="utf-8")
    monkeypatch.setenv("MEIBO_ACME_JP_CLIENT_ID", "environment")

    assert secret_reader(secrets(ACME), env_file)("meibo/acme") == {
        "client_id": "environment",
        "client_secret": "secret",
    }


def test_line_breaks_of_a_private_key_are_restored(env_file: Path) -> None:
    env_file.write_text(
        "MEIBO_ACME_JP_CLIENT_ID=id\nMEIBO_ACME_JP_PRIVATE_KEY=-----BEGIN\\nabc\\n-----END\n", encoding="utf-8"
    )

    secret = secret_reader(secrets(ACME), env_file)("meibo/acme")

    assert secret["private_key"] == "-----BEGIN\nabc\n-----END"


def test_missing_credentials_of_all_sources_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(SecretError) as missing:
        secret_reader(secrets(ACME, EXAMPLE), tmp_path / ".env")

    assert str(missing.value) == (
        "the source acme-jp has no credentials: set client_id and client_secret, or client_id and private_key, each as"
        f" MEIBO_ACME_JP_<KEY>, in the environment or in {tmp_path}/.env, or store them in the Secrets Manager secret"
        " meibo/acme and set AWS_PROFILE and AWS_REGION; the source example has no credentials: set login and"
        f" password, or api_token, each as MEIBO_EXAMPLE_<KEY>, in the environment or in {tmp_path}/.env, or store them"
        " in the Secrets Manager secret meibo/example and set AWS_PROFILE and AWS_REGION"
    )


def test_other_secrets_are_read_from_secrets_manager(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_file.write_text("MEIBO_EXAMPLE_API_TOKEN=token\n", encoding="utf-8")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-northeast-1")
    monkeypatch.setattr("meibo_cli.sources.read_secret", lambda name: {"name": name})

    read = secret_reader(secrets(ACME, EXAMPLE), env_file)

    assert read("meibo/acme") == {"name": "meibo/acme"}
    assert read("meibo/example") == {"api_token": "token"}
