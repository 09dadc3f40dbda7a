"""What an export's file has to be is decided by its provider, dataset and format."""

from __future__ import annotations

from typing import Any, cast

import pytest

from meibo.exports.events import ExportEvent
from meibo.exports.plan import PlannedExport
from meibo.exports.provider_clients import ProviderClients
from meibo.exports.transfer import CopyTransfer, Transfers
from meibo.providers.cybozu.csv_files import CSV_FILES
from meibo.settings import ArchiveExportSettings
from tests.unit.exports.conftest import RUN

# https://cybozu.dev/ja/common/docs/user-api/csv/csv-format/: a login, then as many codes as there are
RAGGED = {"user_organizations", "user_groups", "user_services"}


def _delivery(**export: Any) -> CopyTransfer:
    settings = ArchiveExportSettings.from_env({"MEIBO_BUCKET": "archive", "MEIBO_LOCATION_HOSTS": "example.com"})
    deliveries = Transfers(
        providers=ProviderClients(deadline=lambda: 900.0),
        settings=settings,
        lock=None,
        client=cast("Any", None),
        collect=lambda _: pytest.fail("a file is not collected"),
    )
    planned = PlannedExport.from_json(
        {"source": "acme", "scope": "all", "endpoint": "acme.jp.auth0.com", "secret": "meibo/acme", **export}
    )
    delivery = deliveries(ExportEvent(RUN, 1, planned))
    assert isinstance(delivery, CopyTransfer)
    return delivery


@pytest.mark.parametrize("dataset", CSV_FILES)
def test_records_of_a_cybozu_csv_have_one_length_unless_they_list_memberships(dataset: str) -> None:
    content = _delivery(
        provider="cybozu", dataset=dataset, format="csv", endpoint="https://acme.cybozu.com", request={}
    ).content

    assert (content.header, content.uniform, content.gzip) == (False, dataset not in RAGGED, "never")


def test_an_auth0_csv_has_a_header() -> None:
    job = {"id": "job_0000000000000001", "created_at": "2026-11-21T18:00:00+00:00", "number": 1}
    content = _delivery(
        provider="auth0", dataset="users", format="csv", request={"fields": [{"name": "user_id"}]}, job=job
    ).content

    assert (content.header, content.uniform, content.gzip) == (True, True, "required")
