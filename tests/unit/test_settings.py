from __future__ import annotations

import pytest

from meibo.errors import ConfigurationError
from meibo.settings import ChangeMembersSettings, CreateExportsSettings, ObjectLockSettings, Retention

COMPLETE = {
    "MEIBO_BUCKET": "archive",
    "MEIBO_CONFIGURATION": "/meibo/sources",
    "MEIBO_CHANGES_QUEUE_URL": "https://sqs.test/changes.fifo",
    "MEIBO_CHANGES_DEAD_LETTERS_URL": "https://sqs.test/dead.fifo",
    "MEIBO_MAX_REMOVALS": "7",
}


def test_settings_are_read_with_their_types() -> None:
    settings = ChangeMembersSettings.from_env(COMPLETE)

    assert settings.bucket == "archive"
    assert settings.max_removals == 7
    assert settings.concurrency == 2


def test_every_invalid_variable_is_named_in_one_error() -> None:
    with pytest.raises(ConfigurationError) as raised:
        ChangeMembersSettings.from_env({**COMPLETE, "MEIBO_BUCKET": " ", "MEIBO_MAX_REMOVALS": "many"})

    assert "MEIBO_BUCKET must not be empty" in str(raised.value)
    assert "MEIBO_MAX_REMOVALS must be a whole number from 0 to 1000" in str(raised.value)


def test_a_variable_without_a_default_must_be_set() -> None:
    with pytest.raises(ConfigurationError, match="MEIBO_STATE_MACHINE_ARN is not set"):
        CreateExportsSettings.from_env({"MEIBO_BUCKET": "archive", "MEIBO_CONFIGURATION": "/meibo/sources"})


@pytest.mark.parametrize(("mode", "days"), [("LEGAL", "1"), ("GOVERNANCE", "0"), ("COMPLIANCE", "a year")])
def test_a_malformed_retention_says_what_is_expected(mode: str, days: str) -> None:
    with pytest.raises(ConfigurationError, match=r"must be (NONE, GOVERNANCE or COMPLIANCE|a whole number from 1)"):
        ObjectLockSettings.from_env({"MEIBO_OBJECT_LOCK_MODE": mode, "MEIBO_OBJECT_LOCK_DAYS": days})


def test_retention_is_none_unless_a_mode_is_set() -> None:
    assert ObjectLockSettings.from_env({}).retention() is None
    assert ObjectLockSettings.from_env({"MEIBO_OBJECT_LOCK_MODE": "COMPLIANCE"}).retention() == Retention(
        mode="COMPLIANCE", days=365
    )
