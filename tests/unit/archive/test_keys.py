"""The keys of the bucket, and run ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meibo.archive.keys import (
    ExportAddress,
    attempt_key,
    attempt_of,
    plan_key,
    run_id_of,
    run_manifest_key,
    run_moment,
)
from meibo.errors import EventError

ADDRESS = ExportAddress(provider="auth0", source="acme", dataset="users", format="ndjson", scope="con_0000000000000001")


def test_keys_have_the_documented_format() -> None:
    folder = (
        "archive/provider=auth0/source=acme/dataset=users/format=ndjson/scope=con_0000000000000001"
        "/dt=2026-11-21/run=20261121T180000Z/"
    )

    assert ADDRESS.object_key("20261121T180000Z", gzip=True) == folder + "users.ndjson.gz"
    assert ADDRESS.object_key("20261121T180000Z", gzip=False) == folder + "users.ndjson"
    assert ADDRESS.manifest_key("20261121T180000Z") == folder + "_manifest.json"
    assert plan_key("20261121T180000Z") == "runs/dt=2026-11-21/run=20261121T180000Z/_plan.json"
    assert attempt_key("20261121T180000Z", 2) == "runs/dt=2026-11-21/run=20261121T180000Z/_attempt-2.json"


def test_repair_has_its_own_manifest_and_plan() -> None:
    assert run_manifest_key("20261121T180000Z", 1).endswith("/_manifest.json")
    assert run_manifest_key("20261121T180000Z", 2).endswith("/_manifest-2.json")
    assert plan_key("20261121T180000Z", 2) == "runs/dt=2026-11-21/run=20261121T180000Z/_plan-2.json"


@pytest.mark.parametrize("attempt", [1, 2, 12])
def test_attempt_is_parsed_from_its_keys(attempt: int) -> None:
    for key in (plan_key, attempt_key, run_manifest_key):
        assert attempt_of(key("20261121T180000Z", attempt)) == attempt


@pytest.mark.parametrize(
    "name", ["_manifest-x.json", "_manifest-2.json.partial", "x_plan.json", "_failures/attempt=2/a/b/c/all.json", ""]
)
def test_other_keys_have_no_attempt(name: str) -> None:
    assert attempt_of(f"runs/dt=2026-11-21/run=20261121T180000Z/{name}") is None


def test_run_id_and_its_day_are_in_utc() -> None:
    three_in_the_morning_in_tokyo = datetime(2026, 11, 22, 3, 0, tzinfo=timezone(timedelta(hours=9)))

    assert run_id_of(three_in_the_morning_in_tokyo) == "20261121T180000Z"


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 12, 30)))  # noqa: DTZ001
def test_run_id_is_parsed_to_its_time(moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC, microsecond=0)

    assert run_moment(run_id_of(moment)) == moment


@pytest.mark.parametrize("run_id", ["", "20261121", "20261321T180000Z", "20261121T180000Z/..", "２0261121T180000Z"])
def test_malformed_run_id_is_rejected(run_id: str) -> None:
    with pytest.raises(EventError, match="20261121T180000Z"):
        run_moment(run_id)
