"""Checks of a tenant before a run: the token, each OAuth scope, the configured ids, and the duration of a run.

Each OAuth scope is tested with a request that needs it and returns at most one row. Nothing is created: a job would
be an export.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from meibo.errors import RequestRefusedError, ScopeMissingError
from meibo.formatting import format_count
from meibo.http.transport import Parameters, check_connection, is_id, segment
from meibo.providers.auth0.client import Auth0Client, clients
from meibo.providers.auth0.configuration import Auth0UsersExport
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.jobs import USERS_SCOPE
from meibo.providers.auth0.organizations import (
    ENABLED_CONNECTIONS_SCOPE,
    FIELDS_WITH_ROLES,
    MAX_PAGE_SIZE,
    MEMBERS_SCOPE,
    ORGANIZATIONS_SCOPE,
    ROLES_SCOPE,
    OrganizationApi,
)
from meibo.providers.base import ProviderContext
from meibo.providers.checks import CONNECTION, CREDENTIALS, EXPECTED_RUN, Check, CheckResult, Latency, expected_run

if TYPE_CHECKING:
    from meibo.providers.auth0.configuration import Auth0Source

TOKEN: Final = "access token"  # noqa: S105  # the name of a check
# Only the check of configured connection ids needs this OAuth scope.
CONNECTIONS_SCOPE: Final = "read:connections"
REQUIRED_SCOPES: Final[Mapping[str, tuple[str, ...]]] = {
    "users": (USERS_SCOPE,),
    "organizations": (ORGANIZATIONS_SCOPE, ENABLED_CONNECTIONS_SCOPE),
    "members": (ORGANIZATIONS_SCOPE, MEMBERS_SCOPE),
}
OPTIONAL_SCOPES: Final[Mapping[str, str]] = {"members": ROLES_SCOPE}
# Auth0 checks the OAuth scope before it looks up the organization, so an unknown id is sufficient for an empty tenant.
UNKNOWN_ORGANIZATION: Final = "org_0000000000000000"
# The header x-ratelimit-limit is the burst of a limit. Each documented limit allows at least ten times its burst per
# minute: https://auth0.com/docs/troubleshoot/customer-support/operational-policies/rate-limit-policy
BURSTS_PER_MINUTE: Final = 10
# The creation of a users export job, its status and its location.
REQUESTS_PER_JOB: Final = 3


class TenantChecks:
    """The checks of a tenant. They share the client and the counts that the requests return."""

    def __init__(self, source: Auth0Source, context: ProviderContext) -> None:
        self._source = source
        self._context = context
        self._latency = Latency()
        self._organizations = 0
        self._organization_id = UNKNOWN_ORGANIZATION
        with_roles = (("take", "1"), ("fields", FIELDS_WITH_ROLES), ("include_fields", "true"))
        # The request that tests each OAuth scope, in the order of the checks: the list of organizations returns the id
        # that the other requests need.
        self._requests: Mapping[str, Callable[[], str]] = {
            USERS_SCOPE: self._users,
            ORGANIZATIONS_SCOPE: self._list_organizations,
            ENABLED_CONNECTIONS_SCOPE: partial(
                self._read_organization, "enabled_connections", (("per_page", "1"),), ENABLED_CONNECTIONS_SCOPE
            ),
            MEMBERS_SCOPE: partial(self._read_organization, "members", (("take", "1"),), MEMBERS_SCOPE),
            ROLES_SCOPE: partial(self._read_organization, "members", with_roles, ROLES_SCOPE),
        }

    def checks(self) -> Iterator[Check]:
        """Yield the checks in their order."""
        yield Check(CREDENTIALS, self._credentials)
        yield Check(CONNECTION, self._connection)
        yield Check(TOKEN, self._token, (CREDENTIALS, CONNECTION))
        datasets = self._datasets_by_scope()
        for scope, names in datasets.items():
            # A response that rejects the request with roles does not state which of both OAuth scopes is missing.
            requires = _scope_check(MEMBERS_SCOPE) if scope == ROLES_SCOPE else TOKEN
            yield Check(_scope_check(scope), partial(self._scope, scope, names), (requires,))
        users = [export for export in self._source.exports if isinstance(export, Auth0UsersExport)]
        for connection_id in dict.fromkeys(export.connection_id for export in users):
            if connection_id is not None:
                yield Check(f"connection {connection_id}", partial(self._connection_id, connection_id), (TOKEN,))
        for organization_id in dict.fromkeys(export.organization_id for export in users):
            if organization_id is not None:
                run = partial(self._organization, organization_id)
                yield Check(f"organization {organization_id}", run, (_scope_check(ENABLED_CONNECTIONS_SCOPE),))
        required = tuple(_scope_check(scope) for scope in datasets if scope not in OPTIONAL_SCOPES.values())
        yield Check(EXPECTED_RUN, self._expected_run, required)

    def _datasets_by_scope(self) -> dict[str, list[str]]:
        datasets: dict[str, list[str]] = {}
        for export in self._source.exports:
            scopes = [*REQUIRED_SCOPES[export.dataset]]
            if isinstance(export, Auth0UsersExport) and export.organization_id:
                scopes.append(ENABLED_CONNECTIONS_SCOPE)
            if export.dataset in OPTIONAL_SCOPES:
                scopes.append(OPTIONAL_SCOPES[export.dataset])
            for scope in scopes:
                names = datasets.setdefault(scope, [])
                if export.dataset not in names:
                    names.append(export.dataset)
        return {scope: datasets[scope] for scope in self._requests if scope in datasets}

    def _credentials(self) -> CheckResult:
        credentials = Auth0Credentials.from_secret(self._context.read_secret(self._source.secret))
        proof = "client_secret" if credentials.client_secret else f"private_key ({credentials.algorithm})"
        return CheckResult(detail=f"client_id and {proof}")

    def _connection(self) -> CheckResult:
        with self._context.new_session(1) as session:
            check_connection(f"Auth0 ({self._source.domain})", f"https://{self._source.domain}/", session)
        return CheckResult(detail=self._source.domain)

    def _token(self) -> CheckResult:
        self._client.authenticate()
        return CheckResult(detail="issued for the Management API")

    @property
    def _client(self) -> Auth0Client:
        return clients.client(self._source.domain, self._source.secret, self._context)

    def _scope(self, scope: str, datasets: list[str]) -> CheckResult:
        subject = f"the {'dataset' if len(datasets) == 1 else 'datasets'} {' and '.join(datasets)}"
        try:
            detail = self._requests[scope]()
        except ScopeMissingError as error:
            if scope in OPTIONAL_SCOPES.values():
                return CheckResult(
                    detail=f"missing: {subject} will not contain roles; grant it if needed", warning=True
                )
            if len(error.scopes) == 1:
                raise
            # The response names all OAuth scopes of the endpoint, but this request needs only one of them.
            raise ScopeMissingError(
                f"{self._client.name} requires the OAuth scope {scope} for {subject}; grant it to the application for"
                " the Management API",
                scopes=(scope,),
            ) from error
        return CheckResult(detail=f"needed for {subject}" + (f"; {detail}" if detail else ""))

    def _read(self, path: str, params: Parameters, *, scope: str, bucket: str, subject: str) -> Any:
        client = self._client
        return self._latency.measure(
            lambda: client.request("GET", path, params=params, subject=subject, scope=scope, bucket=bucket)
        )

    def _users(self) -> str:
        params = (("per_page", "1"), ("include_totals", "true"), ("fields", "user_id"), ("include_fields", "true"))
        document = self._read("users", params, scope=USERS_SCOPE, bucket="users", subject="the number of users")
        total = _total(document)
        return "" if total is None else f"{format_count(total, 'user')} in the tenant"

    def _list_organizations(self) -> str:
        params = (("per_page", "1"), ("include_totals", "true"))
        subject = "the list of organizations"
        document = self._read(
            "organizations", params, scope=ORGANIZATIONS_SCOPE, bucket="organizations", subject=subject
        )
        rows = self._client.rows(document, "organizations", subject)
        if rows and is_id(rows[0].get("id")):
            self._organization_id = rows[0]["id"]
        self._organizations = _total(document) or len(rows)
        return f"{format_count(self._organizations, 'organization')} in the tenant"

    def _read_organization(self, path: str, params: Parameters, scope: str) -> str:
        """Read a list of an organization. It is no error if the organization does not exist."""
        try:
            self._read(
                f"organizations/{segment(self._organization_id)}/{path}",
                params,
                scope=scope,
                bucket=path,
                subject=f"the {path} of organization {self._organization_id}",
            )
        except RequestRefusedError as error:
            if not error.is_missing:
                raise
        return ""

    def _connection_id(self, connection_id: str) -> CheckResult:
        subject = f"the connection {connection_id}"
        fields = (("fields", "id"), ("include_fields", "true"))
        path = f"connections/{segment(connection_id)}"
        try:
            self._read(path, fields, scope=CONNECTIONS_SCOPE, bucket="connections", subject=subject)
        except ScopeMissingError:
            return CheckResult(
                detail=f"not checked, because the application does not have the OAuth scope {CONNECTIONS_SCOPE}; grant"
                " it for the check, or verify the id in the Auth0 dashboard",
                warning=True,
            )
        except RequestRefusedError as error:
            if not error.is_missing:
                raise
            raise RequestRefusedError(
                f"{self._client.name} has no connection {connection_id}; correct connection_id in the configuration",
                status=error.status,
                code=error.code,
            ) from error
        return CheckResult(detail="exists")

    def _organization(self, organization_id: str) -> CheckResult:
        api = OrganizationApi(self._client)
        try:
            connections = self._latency.measure(lambda: api.connection_ids(organization_id))
        except RequestRefusedError as error:
            if not error.is_missing:
                raise
            raise RequestRefusedError(
                f"{self._client.name} has no organization {organization_id}; correct organization_id in the"
                " configuration",
                status=error.status,
                code=error.code,
            ) from error
        return CheckResult(detail=f"exists, with {format_count(len(connections), 'enabled connection')}")

    def _expected_run(self) -> CheckResult:
        """Return the expected requests of a run, and their duration at the rate limits of the tenant."""
        pages = self._organizations // MAX_PAGE_SIZE + 1
        jobs, buckets = 0, dict[str, int]()
        for export in self._source.exports:
            if isinstance(export, Auth0UsersExport):
                jobs += 1
                _add(buckets, "jobs", REQUESTS_PER_JOB)
                _add(buckets, "enabled_connections", 1 if export.organization_id else 0)
                continue
            _add(buckets, "organizations", pages)
            _add(buckets, "members" if export.dataset == "members" else "enabled_connections", self._organizations)
        seconds = sum(count * self._seconds_per_request(bucket) for bucket, count in buckets.items())
        remark = ""
        if limits := [
            f"{bucket} {limit:g}" for bucket in buckets if (limit := self._client.rate_limiter.limit(bucket))
        ]:
            remark += f" at the rate limits of the tenant (bursts: {', '.join(limits)})"
        if jobs:
            remark += f", and the time in which Auth0 creates {format_count(jobs, 'file')} of users"
        # Organizations with more than 100 members need several requests.
        return expected_run(sum(buckets.values()), seconds, remark, at_least="members" in buckets)

    def _seconds_per_request(self, bucket: str) -> float:
        limit = self._client.rate_limiter.limit(bucket)
        pace = 60 / (BURSTS_PER_MINUTE * limit) if limit else 0.0
        return max(self._latency.seconds, pace)


def _scope_check(scope: str) -> str:
    return f"OAuth scope {scope}"


def _total(document: Any) -> int | None:
    total = document.get("total") if isinstance(document, dict) else None
    return total if isinstance(total, int) and not isinstance(total, bool) and total >= 0 else None


def _add(buckets: dict[str, int], name: str, count: int) -> None:
    if count:
        buckets[name] = buckets.get(name, 0) + count
