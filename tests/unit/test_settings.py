"""The settings of the functions in environment variables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from meibo.errors import ConfigurationError
from meibo.settings import ChangeMembersSettings, CreateExportsSettings, ObjectLock

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
        "invalid environment variables: MEIBO_BUCKET: expected a value, found an empty string; "
        "MEIBO_MAX_REMOVALS: expected an integer from 0 to 1000, found 'many'"
    )


def test_variable_without_a_default_is_required() -> None:
    with pytest.raises(ConfigurationError, match=r"STATE_MACHINE_ARN: expected a value, but the variable is not set$"):
        CreateExportsSettings.from_env({"MEIBO_BUCKET": "archive", "MEIBO_CONFIGURATION": "/meibo/sources"})


@pytest.mark.parametrize(
    ("mode", "days", "reason"),
    [
        ("LEGAL", "1", "MEIBO_OBJECT_LOCK_MODE: expected NONE, GOVERNANCE or COMPLIANCE, found 'LEGAL'"),
        ("GOVERNANCE", "0", "MEIBO_OBJECT_LOCK_DAYS: expected an integer from 1 to 36500, found '0'"),
        ("COMPLIANCE", "a year", "MEIBO_OBJECT_LOCK_DAYS: expected an integer from 1 to 36500, found 'a year'"),
    ],
)
def test_error_of_an_invalid_retention_says_what_is_expected(mode: str, days: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^invalid environment variables: {reason}$"):
        ObjectLock.from_env({"MEIBO_OBJECT_LOCK_MODE": mode, "MEIBO_OBJECT_LOCK_DAYS": days})


def test_objects_are_locked_only_if_a_mode_is_set() -> None:
    start = datetime.now(UTC)
    parameters = ObjectLock.from_env({"MEIBO_OBJECT_LOCK_MODE": "COMPLIANCE"}).parameters()

    assert ObjectLock.from_env({}).parameters() == {}
    assert parameters["ObjectLockMode"] == "COMPLIANCE"
    assert start <= parameters["ObjectLockRetainUntilDate"] - timedelta(days=365) <= datetime.now(UTC)
