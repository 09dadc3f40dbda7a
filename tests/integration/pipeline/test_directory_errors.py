"""Responses other than rows to each call of the directory datasets, and their effect on the export."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

import boto3
import pytest
from moto import mock_aws

from meibo.archive.keys import run_id_of
from meibo.errors import (
    CredentialsRefusedError,
    MeiboError,
    ProviderBusyError,
    RequestRefusedError,
    ScopeMissingError,
    WrongFormatError,
)
from meibo.exports.events import ExportEvent
from meibo.exports.plan import PlannedExport
from meibo.providers import clear_clients
from meibo.providers.base import ProviderContext
from meibo.providers.cybozu.client import CSV_FILES
from meibo.providers.datasets import ExportFormat
from meibo_local.s3_server import serve_s3
from meibo_simulators import SimulatedDomain, SimulatedTenant, Simulators, faults
from tests.support.clock import FakeClock
from tests.support.exports import planned_export, s3_archiver
from tests.support.stack import TICK


@dataclass(frozen=True)
class DirectoryCall:
    """A call of an export: the path, and for Auth0 the required OAuth scope."""

    dataset: str
    path: str
    format: ExportFormat = "ndjson"
    scope: str | None = None

    @property
    def provider(self) -> str:
        return "auth0" if self.scope else "cybozu"

    def __str__(self) -> str:
        return f"{self.dataset} {self.path}"


AUTH0_CALLS = [
    DirectoryCall("organizations", "/api/v2/organizations", scope="read:organizations"),
    DirectoryCall(
        "organizations", "/api/v2/organizations/*/enabled_connections", scope="read:organization_connections"
    ),
    DirectoryCall("members", "/api/v2/organizations", scope="read:organizations"),
    DirectoryCall("members", "/api/v2/organizations/*/members", scope="read:organization_members"),
]
CSV_CALLS = [
    DirectoryCall(dataset, f"/v1/csv/{file}.csv", "csv") for dataset, file in CSV_FILES.items() if dataset != "users"
]
CYBOZU_CALLS = [
    *CSV_CALLS,
    DirectoryCall("organizations", "/v1/organizations.json"),
    DirectoryCall("groups", "/v1/groups.json"),
    DirectoryCall("members", "/v1/organization/users.json"),
    DirectoryCall("members", "/v1/group/users.json"),
    DirectoryCall("members", "/v1/organizations.json"),
]
ALL_SCOPES = (
    "read:organizations",
    "read:organization_connections",
    "read:organization_members",
    "read:organization_member_roles",
)

_days = count(1)


@dataclass
class Bench:
    """A tenant, a domain and a bucket that the tests share. Every test uses its own day."""

    tenant: SimulatedTenant
    domain: SimulatedDomain
    client: Any
    clock: FakeClock = field(default_factory=FakeClock)
    secrets: dict[str, Any] = field(default_factory=dict)
    run_id: str = ""

    def archive(self, provider: str, dataset: str, export_format: ExportFormat = "ndjson") -> dict[str, Any]:
        """Archive as an invocation of the function does, and return the response."""
        deadline = self.clock.deadline(900)
        context = ProviderContext(deadline, read_secret=self.secrets.__getitem__, clock=self.clock)
        archiver = s3_archiver(self.client, context, deadline)
        return archiver.archive(ExportEvent(self.run_id, 1, self.export(provider, dataset, export_format)))

    def archive_call(self, call: DirectoryCall) -> dict[str, Any]:
        """Archive the export of the call."""
        return self.archive(call.provider, call.dataset, call.format)

    def add_fault(self, call: DirectoryCall, action: faults.Action, *, times: int | None = None) -> faults.Fault:
        """Add a fault to the responses of the call."""
        site = self.tenant if call.provider == "auth0" else self.domain
        return site.faults.add(f"GET {call.path}", action, times=times)

    def export(self, provider: str, dataset: str, export_format: ExportFormat) -> PlannedExport:
        endpoint = self.tenant.domain if provider == "auth0" else self.domain.base_url
        return planned_export(dataset, provider=provider, format=export_format, endpoint=endpoint, secret=provider)

    def manifest(self, provider: str, dataset: str, export_format: ExportFormat = "ndjson") -> dict[str, Any]:
        key = self.export(provider, dataset, export_format).address.manifest_key(self.run_id)
        document: dict[str, Any] = json.loads(self.read(key))
        return document

    def read(self, key: str) -> bytes:
        body: bytes = self.client.get_object(Bucket="archive", Key=key)["Body"].read()
        return body

    def archived(self) -> list[str]:
        """Return the keys of this test's run in the archive."""
        entries = self.client.list_objects_v2(Bucket="archive", Prefix="archive/").get("Contents", [])
        return [entry["Key"] for entry in entries if f"run={self.run_id}/" in entry["Key"]]


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    tenant = SimulatedTenant("acme", users=130, organizations=12, members=4)
    domain = SimulatedDomain("example", users=40, organizations=5, groups=3)
    with pytest.MonkeyPatch.context() as patch, Simulators([tenant], [domain]) as simulators, mock_aws():
        for name, value in {
            **simulators.environment(),
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        with serve_s3() as endpoint:
            client = boto3.client("s3", endpoint_url=endpoint)
            client.create_bucket(Bucket="archive")
            yield Bench(tenant, domain, client)


@pytest.fixture
def bench(shared: Bench) -> Iterator[Bench]:
    clear_clients()
    shared.clock = FakeClock()
    shared.run_id = run_id_of(TICK + timedelta(days=next(_days)))
    shared.secrets = {"auth0": shared.tenant.credentials(), "cybozu": shared.domain.credentials()}
    yield shared
    for site in (shared.tenant, shared.domain):
        site.faults.clear()
    shared.tenant.organizations.vanished.clear()
    shared.domain.switches.csv_api = True
    clear_clients()


WRONG: dict[str, tuple[faults.Action, type[MeiboError]]] = {
    "401": (faults.respond(401, "{}", {"Content-Type": "application/json"}), CredentialsRefusedError),
    "401 of a gateway": (faults.html(401), CredentialsRefusedError),
    "403 of a gateway": (faults.html(403), ScopeMissingError),
    "400": (faults.respond(400, "{}", {"Content-Type": "application/json"}), RequestRefusedError),
    "404 of a gateway": (faults.html(404), RequestRefusedError),
    "a redirect": (faults.redirect("https://elsewhere.invalid/"), RequestRefusedError),
    "HTML": (faults.html(200), WrongFormatError),
}
BUSY: dict[str, faults.Action] = {
    "429 with Retry-After": faults.too_many_requests(retry_after=2),
    "429 without headers": faults.too_many_requests(),
    "500": faults.respond(500, "{}", {"Content-Type": "application/json"}),
    "502 with HTML": faults.html(502),
    "503": faults.respond(503),
    "504 with HTML": faults.html(504),
    "a reset": faults.reset(),
}


# -- both providers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("call", [*AUTH0_CALLS, *CYBOZU_CALLS], ids=str)
def test_bad_response_fails_the_export_and_archives_nothing(bench: Bench, call: DirectoryCall, fault: str) -> None:
    action, error = WRONG[fault]
    bench.add_fault(call, action)

    with pytest.raises(error):
        bench.archive_call(call)

    assert bench.archived() == []


@pytest.mark.parametrize("fault", BUSY)
@pytest.mark.parametrize("call", [*AUTH0_CALLS, *CYBOZU_CALLS], ids=str)
def test_busy_provider_is_retried(bench: Bench, call: DirectoryCall, fault: str) -> None:
    bench.add_fault(call, BUSY[fault], times=3)

    assert bench.archive_call(call)["status"] == "archived"
    assert len(bench.clock.slept) >= 3


# -- Auth0 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", AUTH0_CALLS, ids=str)
def test_missing_scope_of_auth0_is_named(bench: Bench, call: DirectoryCall) -> None:
    assert call.scope is not None
    others = [name for name in ALL_SCOPES if name != call.scope]
    bench.secrets["auth0"] = bench.tenant.limited_client(*others, client_id=call.scope.replace(":", "-"))

    with pytest.raises(ScopeMissingError, match=call.scope):
        bench.archive_call(call)


@pytest.mark.parametrize("fault", BUSY)
@pytest.mark.parametrize("call", AUTH0_CALLS, ids=str)
def test_export_of_a_busy_auth0_is_continued_later(bench: Bench, call: DirectoryCall, fault: str) -> None:
    added = bench.add_fault(call, BUSY[fault])

    response = bench.archive_call(call)

    assert response["status"] == "continue"
    assert response["wait_seconds"] > 0
    assert bench.archived() == []
    assert added.hits > 3


@pytest.mark.parametrize("dataset", ["organizations", "members"])
def test_organization_deleted_after_the_list_is_named_in_the_manifest(bench: Bench, dataset: str) -> None:
    deleted = bench.tenant.organizations.ids()[3]
    bench.tenant.organizations.vanished.add(deleted)

    bench.archive("auth0", dataset)

    content = bench.manifest("auth0", dataset)["content"]
    assert content["skipped_organizations"] == {"count": 1, "ids": [deleted]}
    assert content["organizations"] == 11
    (key,) = (key for key in bench.archived() if key.endswith(".gz"))
    assert deleted.encode() not in gzip.decompress(bench.read(key))


def test_members_are_archived_without_roles_if_the_scope_is_missing(bench: Bench) -> None:
    scopes = [name for name in ALL_SCOPES if name != "read:organization_member_roles"]
    bench.secrets["auth0"] = bench.tenant.limited_client(*scopes, client_id="without-roles")

    bench.archive("auth0", "members")

    manifest = bench.manifest("auth0", "members")
    assert manifest["content"]["roles"] == {
        "included": "no",
        "reason": "the token does not have the OAuth scope read:organization_member_roles",
    }
    assert "roles" not in manifest["content"]["columns"]
    assert manifest["content"]["rows"] == sum(len(members) for members in bench.tenant.memberships.values())


def test_secret_can_be_rotated_during_an_export(bench: Bench) -> None:
    # given: half way, the provider refuses the token and its client, and the secret contains a new client
    old = bench.tenant.limited_client(*ALL_SCOPES, client_id="old")
    new = bench.tenant.limited_client(*ALL_SCOPES, client_id="new")
    bench.secrets["auth0"] = old
    requests = 0

    def rotate(environ: dict[str, Any]) -> bool:
        nonlocal requests
        requests += environ["PATH_INFO"].endswith("/members")
        if requests == 6:
            bench.secrets["auth0"] = new
            bench.tenant.tokens.clients.pop("old", None)
            return True
        return False

    bench.tenant.faults.add(rotate, faults.respond(401, "{}"), times=1)

    assert bench.archive("auth0", "members")["status"] == "archived"


# -- cybozu.com ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", CSV_CALLS, ids=str)
def test_error_of_csv_without_an_administrator_names_the_required_role(bench: Bench, call: DirectoryCall) -> None:
    bench.secrets["cybozu"] = bench.domain.plain_credentials()

    with pytest.raises(ScopeMissingError, match=r"cybozu\.com Administrator"):
        bench.archive_call(call)


@pytest.mark.parametrize("call", CYBOZU_CALLS, ids=str)
def test_export_of_a_busy_cybozu_is_retried_by_the_workflow(bench: Bench, call: DirectoryCall) -> None:
    bench.add_fault(call, faults.html(503))

    with pytest.raises(ProviderBusyError):
        bench.archive_call(call)

    assert bench.archived() == []


@pytest.mark.parametrize("path", ["/v1/organization/users.json", "/v1/group/users.json"])
def test_organization_or_group_deleted_after_the_list_is_named(bench: Bench, path: str) -> None:
    refusal = json.dumps({"message": "…", "id": "x", "code": "CB_VA01", "errors": {"code": {"messages": ["…"]}}})
    # A missing organization or group is requested once, although its members are read in pages.
    bench.domain.faults.add(f"GET {path}", faults.respond(400, refusal, {"X-Cybozu-Error": "CB_VA01"}), times=1)

    bench.archive("cybozu", "members")

    skipped = bench.manifest("cybozu", "members")["content"]["skipped"]
    assert skipped["count"] == len(skipped["ids"]) == 1
