from __future__ import annotations

import pytest

from meibo.errors import ConfigurationError
from meibo.settings import ArchiveExportSettings, CreateExportsSettings

COMPLETE = {
    "MEIBO_BUCKET": "archive",
    "MEIBO_LOCATION_HOSTS": "*.s3.us-east-2.amazonaws.com, user-exports.auth0.com",
    "MEIBO_SUSPECT_SHARE": "0.25",
    "MEIBO_COPY_DECODE": "false",
}


def test_settings_are_read_with_their_types() -> None:
    settings = ArchiveExportSettings.from_env(COMPLETE)

    assert settings.location_hosts == ("*.s3.us-east-2.amazonaws.com", "user-exports.auth0.com")
    assert settings.suspect_share == 0.25
    assert settings.copy_decode is False
    assert settings.copy_lanes == 16


def test_every_faulty_variable_is_named_in_one_error() -> None:
    with pytest.raises(ConfigurationError) as raised:
        ArchiveExportSettings.from_env({**COMPLETE, "MEIBO_BUCKET": " ", "MEIBO_COPY_LANES": "many"})

    assert "MEIBO_BUCKET must not be empty" in str(raised.value)
    assert "MEIBO_COPY_LANES must be a whole number from 1 to 64" in str(raised.value)


def test_a_variable_without_a_default_must_be_set() -> None:
    with pytest.raises(ConfigurationError, match="MEIBO_STATE_MACHINE_ARN is not set"):
        CreateExportsSettings.from_env({"MEIBO_BUCKET": "archive", "MEIBO_CONFIGURATION": "/meibo/sources"})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("MEIBO_SUSPECT_SHARE", "1.5", "must be a number from 0 to 1"),
        ("MEIBO_SUSPECT_SHARE", "nan", "must be a number from 0 to 1"),
        ("MEIBO_COPY_DECODE", "yes", "must be true or false"),
        ("MEIBO_LOCATION_HOSTS", " , ", "must be a comma-separated list"),
        ("MEIBO_COPY_PART_MIB", "4", "must be a whole number from 5 to 512"),
    ],
)
def test_a_malformed_value_says_what_is_expected(name: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} {expected}"):
        ArchiveExportSettings.from_env({**COMPLETE, name: value})
