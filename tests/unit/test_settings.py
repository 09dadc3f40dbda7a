"""The settings of the functions in environment variables."""

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


def test_every_invalid_variable_is_named_in_one_error() -> None:
    with pytest.raises(ConfigurationError) as raised:
        ChangeMembersSettings.from_env({**COMPLETE, "MEIBO_BUCKET": " ", "MEIBO_MAX_REMOVALS": "many"})

    assert str(raised.value) == (
        "invalid environment of the function: MEIBO_BUCKET: expected a value, got an empty string; "
        "MEIBO_MAX_REMOVALS: expected an integer from 0 to 1000, got 'many'"
    )


def test_variable_without_a_default_is_required() -> None:
    with pytest.raises(ConfigurationError, match=r"STATE_MACHINE_ARN: expected a value, but the variable is not set$"):
        CreateExportsSettings.from_env({"MEIBO_BUCKET": "archive", "MEIBO_CONFIGURATION": "/meibo/sources"})


@pytest.mark.parametrize(
    ("mode", "days", "reason"),
    [
        ("LEGAL", "1", "MEIBO_OBJECT_LOCK_MODE: expected NONE, GOVERNANCE or COMPLIANCE, got 'LEGAL'"),
        ("GOVERNANCE", "0", "MEIBO_OBJECT_LOCK_DAYS: expected an integer from 1 to 36500, got '0'"),
        ("COMPLIANCE", "a year", "MEIBO_OBJECT_LOCK_DAYS: expected an integer from 1 to 36500, got 'a year'"),
    ],
)
def test_error_of_an_invalid_retention_says_what_is_expected(mode: str, days: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^invalid environment of the function: {reason}$"):
        ObjectLockSettings.from_env({"MEIBO_OBJECT_LOCK_MODE": mode, "MEIBO_OBJECT_LOCK_DAYS": days})


def test_retention_is_none_unless_a_mode_is_set() -> None:
    assert ObjectLockSettings.from_env({}).retention() is None
    assert ObjectLockSettings.from_env({"MEIBO_OBJECT_LOCK_MODE": "COMPLIANCE"}).retention() == Retention(
        mode="COMPLIANCE", days=365
    )
