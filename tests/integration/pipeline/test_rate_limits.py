"""Export thousands of organizations under the rate limits of a subscription, on a simulated clock.

The simulated tenant and the client use the same clock. The function is invoked repeatedly like in the workflow, with
only the JSON that it returned.
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

from meibo.exports.archive import Archiver
from meibo.exports.events import parse_export_event
from meibo.providers import clear_clients
from meibo.providers.base import ProviderContext
from meibo_local.s3_server import serve_s3
from meibo_simulators import SimulatedTenant, Simulators, faults, tenant_api
from tests.support.clock import FakeClock
from tests.support.exports import planned_export, s3_archiver
from tests.support.stack import RUN
from tests.support.wsgi import WsgiAdapter

INVOCATION_SECONDS = 900.0
# More requests than an invocation can send: 750 at 50 requests per minute.
ORGANIZATIONS = 2_000
RESPONSE_SECONDS = 0.1

pytestmark = pytest.mark.timeout(300)


@dataclass
class LongExport:
    """A tenant, a bucket and a clock; ``archive`` invokes the function like the workflow."""

    tenant: SimulatedTenant
    clock: FakeClock
    client: Any
    invocations: list[dict[str, Any]] = field(default_factory=list)

    def archive(self, dataset: str) -> dict[str, Any]:
        """Invoke the function until the export is archived, and return the manifest."""
        export = planned_export(dataset, endpoint=self.tenant.domain)
        progress = None
        while True:
            event = {"run_id": RUN, "attempt": 1, "export": export.to_json(), "progress": progress}
            response = json.loads(
                json.dumps(self._archiver().archive(parse_export_event(json.loads(json.dumps(event)))))
            )
            self.invocations.append(response)
            if response["status"] == "archived":
                break
            progress = response["progress"]
            self.clock.sleep(response["wait_seconds"])
        manifest: dict[str, Any] = json.loads(self.read(export.address.manifest_key(RUN)))
        return manifest

    def read(self, key: str) -> bytes:
        body: bytes = self.client.get_object(Bucket="archive", Key=key)["Body"].read()
        return body

    def _archiver(self) -> Archiver:
        end = self.clock.time + INVOCATION_SECONDS

        def time_left() -> float:
            remaining = end - self.clock.time
            assert remaining > 0, "the invocation exceeded its timeout"
            return remaining

        adapter = WsgiAdapter(tenant_api(self.tenant), self.clock.sleep, seconds=RESPONSE_SECONDS)
        context = ProviderContext(
            time_left,
            read_secret=lambda _: self.tenant.credentials(),
            new_session=lambda _: adapter.session(),
            clock=self.clock,
        )
        return s3_archiver(self.client, context, time_left, lambda: datetime.fromtimestamp(self.clock.time, UTC))

    @property
    def minutes(self) -> float:
        """The duration on the simulated clock."""
        return (self.clock.time - FakeClock().time) / 60


@pytest.fixture
def long_export(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[LongExport]:
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
        yield LongExport(tenant, clock, client)
        clear_clients()


def _objects(long_export: LongExport) -> list[str]:
    entries = long_export.client.list_objects_v2(Bucket="archive", Prefix="archive/")["Contents"]
    return [entry["Key"].rpartition("/")[2] for entry in entries]


@pytest.mark.parametrize("long_export", [("essentials", "second", ORGANIZATIONS)], indirect=True, ids=["essentials"])
def test_organizations_finish_under_the_essentials_limits(long_export: LongExport) -> None:
    # when: enabled_connections allows a burst of 5 and 50 requests per minute
    manifest = long_export.archive("organizations")

    # then: one object with a manifest, and every organization once with its connections
    assert sorted(_objects(long_export)) == ["_manifest.json", "organizations.ndjson.gz"]
    rows = [json.loads(line) for line in gzip.decompress(long_export.read(manifest["object"]["key"])).splitlines()]
    assert [row["id"] for row in rows] == long_export.tenant.organizations.ids()
    assert all(
        [connection["connection_id"] for connection in row["enabled_connections"]]
        == long_export.tenant.organizations.connections(row["id"])
        for row in rows
    )
    assert manifest["content"]["rows"] == ORGANIZATIONS
    assert manifest["content"]["organizations"] == ORGANIZATIONS
    assert manifest["content"]["skipped_organizations"] == {"count": 0, "ids": []}

    # and: the export used the limit over many invocations, without a 429
    assert 39 <= long_export.minutes <= 44
    assert 3 <= len(long_export.invocations) <= 4
    assert long_export.tenant.limits.refused == 0
    assert manifest["content"]["parts"] == len(long_export.invocations)


@pytest.mark.parametrize("long_export", [("essentials", "second", ORGANIZATIONS)], indirect=True, ids=["essentials"])
def test_members_of_organizations_finish_under_the_essentials_limits(long_export: LongExport) -> None:
    long_export.tenant.switches.members_always_next = True

    manifest = long_export.archive("members")

    rows = [json.loads(line) for line in gzip.decompress(long_export.read(manifest["object"]["key"])).splitlines()]
    members = [(row["organization_id"], row["user_id"]) for row in rows]
    assert len(members) == len(set(members)) == manifest["content"]["rows"]
    assert set(members) == {
        (organization_id, user_id)
        for organization_id, user_ids in long_export.tenant.memberships.items()
        for user_id in user_ids
    }
    assert manifest["content"]["roles"] == {"included": "yes", "assignments": "direct"}
    assert 7 <= long_export.minutes <= 10
    assert long_export.tenant.limits.refused == 0


@pytest.mark.parametrize(
    "long_export",
    [("essentials", "window", 500), ("free", "second", 500), ("enterprise", "second", 500)],
    indirect=True,
    ids=["essentials, refilled by the minute", "free", "enterprise"],
)
def test_limits_of_other_subscriptions_are_respected(long_export: LongExport) -> None:
    manifest = long_export.archive("organizations")

    assert manifest["content"]["rows"] == 500
    # If all calls share a limit, a page of the list may find it used up and be retried.
    assert long_export.tenant.limits.refused <= 500 / 100


@pytest.mark.parametrize("long_export", [("essentials", "second", 120)], indirect=True, ids=["essentials"])
def test_rate_limit_used_up_by_others_delays_the_export(long_export: LongExport) -> None:
    # given: another application uses the entire limit for two hours
    until = long_export.clock.time + 2 * 3600

    def is_limited(environ: Any) -> bool:
        return long_export.clock.time < until and environ["PATH_INFO"].endswith("/enabled_connections")

    long_export.tenant.faults.add(is_limited, faults.too_many_requests(retry_after=600), times=None)

    manifest = long_export.archive("organizations")

    assert manifest["content"]["rows"] == 120
    assert 120 <= long_export.minutes <= 140
    assert [response["wait_seconds"] >= 600 for response in long_export.invocations].count(True) >= 10
