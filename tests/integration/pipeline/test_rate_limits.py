"""Ten thousand organizations under a subscription's rate limits, hours of them on a simulated clock.

The simulated tenant enforces the limits on the same clock that the client waits by. The function is invoked again as
the workflow would, with nothing but the JSON that it returned.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import boto3
import pytest
from moto import mock_aws

from meibo.archive.copy import CopyOptions
from meibo.archive.storage import S3ArchiveStore
from meibo.exports.archive import Archiver, S3Copier
from meibo.exports.checkpoint import Collector
from meibo.exports.events import parse_export_event
from meibo.exports.plan import PlannedExport
from meibo.providers import clear_clients
from meibo.providers.base import ProviderContext
from meibo_local.s3_server import serve_s3
from meibo_simulators import SimulatedTenant, Simulators, faults, tenant_api
from tests.integration.pipeline.conftest import RUN
from tests.support.clock import FakeClock
from tests.support.wsgi import WsgiAdapter

INVOCATION_SECONDS = 900.0
ORGANIZATIONS = 10_000
ANSWER_SECONDS = 0.1

pytestmark = pytest.mark.timeout(300)


@dataclass
class Hours:
    """A tenant, a bucket and a clock; ``archive`` is the export's way through the workflow."""

    tenant: SimulatedTenant
    clock: FakeClock
    client: Any
    invocations: list[dict[str, Any]] = field(default_factory=list)

    def archive(self, dataset: str) -> dict[str, Any]:
        """Invoke until the export is archived; return its manifest."""
        export = PlannedExport(
            provider="auth0",
            source="acme",
            dataset=dataset,
            format="ndjson",
            scope="all",
            endpoint=self.tenant.domain,
            secret="meibo/acme",
            request={},
            has_job=False,
        )
        progress = None
        while True:
            event = {"run_id": RUN, "attempt": 1, "export": export.to_json(), "progress": progress}
            answer = json.loads(json.dumps(self._archiver().archive(parse_export_event(json.loads(json.dumps(event))))))
            self.invocations.append(answer)
            if answer["status"] == "archived":
                break
            progress = answer["progress"]
            self.clock.sleep(answer["wait_seconds"])
        manifest: dict[str, Any] = json.loads(self.read(export.address.manifest_key(RUN)))
        return manifest

    def read(self, key: str) -> bytes:
        body: bytes = self.client.get_object(Bucket="archive", Key=key)["Body"].read()
        return body

    def _archiver(self) -> Archiver:
        end = self.clock.time + INVOCATION_SECONDS

        def time_left() -> float:
            # What is left decides what the function dares to begin; being killed is past it.
            left = end - self.clock.time
            assert left > 0, "the invocation outlived its time"
            return left

        adapter = WsgiAdapter(tenant_api(self.tenant), self.clock.sleep, seconds=ANSWER_SECONDS)
        context = ProviderContext(
            time_left,
            read_secret=lambda _: self.tenant.credentials(),
            new_session=lambda _: adapter.session(),
            clock=self.clock,
        )
        store = S3ArchiveStore(self.client, "archive")
        now = lambda: datetime.fromtimestamp(self.clock.time, UTC)  # noqa: E731  # a clock in one line
        return Archiver(
            store=store,
            bucket="archive",
            copier=S3Copier(
                client=self.client, bucket="archive", options=CopyOptions(), retention=None, deadline=time_left
            ),
            collector=Collector(store=store, time_left=time_left, now=now),
            context=context,
            now=now,
        )

    @property
    def minutes(self) -> float:
        """How long it has taken on the simulated clock."""
        return (self.clock.time - FakeClock().time) / 60


@pytest.fixture
def hours(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hours]:
    tier: Literal["essentials", "free", "enterprise"]
    tier, refill, organizations = request.param
    clock = FakeClock()
    tenant = SimulatedTenant("acme", users=200, organizations=organizations, members=1)
    tenant.switches.rate_tier = tier
    tenant.switches.rate_refill = refill
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with Simulators([tenant], clock=clock.now), mock_aws(), serve_s3() as endpoint:
        clear_clients()
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="archive")
        yield Hours(tenant, clock, client)
        clear_clients()


def _objects(hours: Hours) -> list[str]:
    found = hours.client.list_objects_v2(Bucket="archive", Prefix="archive/")["Contents"]
    return [entry["Key"].rpartition("/")[2] for entry in found]


@pytest.mark.parametrize("hours", [("essentials", "second", ORGANIZATIONS)], indirect=True, ids=["essentials"])
def test_ten_thousand_organizations_finish_under_the_essentials_limits(hours: Hours) -> None:
    # when: enabled_connections allows 5 at once and 50 a minute
    manifest = hours.archive("organizations")

    # then: one object with one manifest, every organization once with its connections
    assert sorted(_objects(hours)) == ["_manifest.json", "organizations.ndjson.gz"]
    rows = [json.loads(line) for line in gzip.decompress(hours.read(manifest["object"]["key"])).splitlines()]
    assert [row["id"] for row in rows] == hours.tenant.organizations.ids()
    assert all(
        [one["connection_id"] for one in row["enabled_connections"]]
        == hours.tenant.organizations.connections(row["id"])
        for row in rows
    )
    assert manifest["content"]["rows"] == ORGANIZATIONS
    assert manifest["content"]["organizations"] == ORGANIZATIONS
    assert manifest["content"]["skipped_organizations"] == {"count": 0, "ids": []}

    # and: at the pace of the limit, over many invocations, without running into it
    assert 195 <= hours.minutes <= 220
    assert 13 <= len(hours.invocations) <= 17
    assert hours.tenant.limits.refused == 0
    assert manifest["content"]["parts"] == len(hours.invocations)


@pytest.mark.parametrize("hours", [("essentials", "second", ORGANIZATIONS)], indirect=True, ids=["essentials"])
def test_the_members_of_ten_thousand_organizations_finish_under_the_essentials_limits(hours: Hours) -> None:
    hours.tenant.switches.members_always_next = True

    manifest = hours.archive("members")

    rows = [json.loads(line) for line in gzip.decompress(hours.read(manifest["object"]["key"])).splitlines()]
    found = [(row["organization_id"], row["user_id"]) for row in rows]
    assert len(found) == len(set(found)) == manifest["content"]["rows"]
    assert set(found) == {
        (organization_id, user_id)
        for organization_id, members in hours.tenant.memberships.items()
        for user_id in members
    }
    assert manifest["content"]["roles"] == {"included": "yes"}
    assert 35 <= hours.minutes <= 50
    assert hours.tenant.limits.refused == 0


@pytest.mark.parametrize(
    "hours",
    [("essentials", "window", 500), ("free", "second", 500), ("enterprise", "second", 500)],
    indirect=True,
    ids=["essentials, refilled by the minute", "free", "enterprise"],
)
def test_other_limits_are_kept_as_well(hours: Hours) -> None:
    manifest = hours.archive("organizations")

    assert manifest["content"]["rows"] == 500
    # Where all calls share one limit, a page of the list may meet what the others used up; it is waited for.
    assert hours.tenant.limits.refused <= 500 / 100


@pytest.mark.parametrize("hours", [("essentials", "second", 120)], indirect=True, ids=["essentials"])
def test_a_rate_limit_that_others_use_up_delays_and_fails_nothing(hours: Hours) -> None:
    # given: another application takes every token for two hours
    until = hours.clock.time + 2 * 3600

    def taken(environ: Any) -> bool:
        return hours.clock.time < until and environ["PATH_INFO"].endswith("/enabled_connections")

    hours.tenant.faults.add(taken, faults.too_many_requests(retry_after=600), times=None)

    # when
    manifest = hours.archive("organizations")

    # then
    assert manifest["content"]["rows"] == 120
    assert 120 <= hours.minutes <= 140
    assert [answer["wait_seconds"] >= 600 for answer in hours.invocations].count(True) >= 10
