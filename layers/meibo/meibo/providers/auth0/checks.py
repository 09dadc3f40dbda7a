"""Checks of a tenant before a run: the token, each OAuth scope, the configured ids, and the expected duration.

Each OAuth scope is checked with a request that requires it and returns at most one row. No job is created, because a
job would export users.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from meibo.errors import RequestRefusedError, ScopeMissingError, WrongFormatError
from meibo.formatting import format_count
from meibo.http.session import check_connection
from meibo.http.transport import Parameters, is_id, segment
from meibo.providers.auth0.client import Auth0Client, clients
from meibo.providers.auth0.configuration import Auth0UsersExport
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.jobs import USERS_SCOPE
from meibo.providers.auth0.organizations import (
    ENABLED_CONNECTIONS_SCOPE,
    FIELDS_WITH_ROLES,
    MEMBERS_SCOPE,
    ORGANIZATIONS_SCOPE,
    ROLES_SCOPE,
    OrganizationApi,
)
from meibo.providers.auth0.pagination import MAX_PAGE_SIZE
from meibo.providers.auth0.roles import ROLE_MEMBERS_SCOPE, TENANT_ROLES_SCOPE
from meibo.providers.base import ProviderContext
from meibo.providers.checks import CONNECTION, CREDENTIALS, EXPECTED_RUN, Check, CheckResult, Latency, expected_run

if TYPE_CHECKING:
    from meibo.providers.auth0.configuration import Auth0Source

TOKEN: Final = "access token"  # noqa: S105  # the name of a check
# Only the check of configured connection ids requires this OAuth scope.
CONNECTIONS_SCOPE: Final = "read:connections"
REQUIRED_SCOPES: Final[Mapping[str, tuple[str, ...]]] = {
    "users": (USERS_SCOPE,),
    "organizations": (ORGANIZATIONS_SCOPE, ENABLED_CONNECTIONS_SCOPE),
    "members": (ORGANIZATIONS_SCOPE, MEMBERS_SCOPE),
    "roles": (TENANT_ROLES_SCOPE,),
    "role_members": (TENANT_ROLES_SCOPE, ROLE_MEMBERS_SCOPE),
}
OPTIONAL_SCOPES: Final[Mapping[str, str]] = {"members": ROLES_SCOPE}


@dataclass(frozen=True)
class _ScopeRequest:
    """A request that requires an OAuth scope. ``noun`` is the noun of the total in the response, if there is one."""

    path: str
    bucket: str
    params: Parameters
    noun: str = ""


_WITH_TOTAL: Final = (("per_page", "1"), ("include_totals", "true"))
# The requests in the order of the checks. The response with the organizations contains the id of an organization, which
# later requests use.
_REQUESTS: Final[Mapping[str, _ScopeRequest]] = {
    USERS_SCOPE: _ScopeRequest(
        "users", "users", (*_WITH_TOTAL, ("fields", "user_id"), ("include_fields", "true")), "user"
    ),
    ORGANIZATIONS_SCOPE: _ScopeRequest("organizations", "organizations", _WITH_TOTAL, "organization"),
    ENABLED_CONNECTIONS_SCOPE: _ScopeRequest(
        "organizations/{organization}/enabled_connections", "enabled_connections", (("per_page", "1"),)
    ),
    MEMBERS_SCOPE: _ScopeRequest("organizations/{organization}/members", "members", (("take", "1"),)),
    ROLES_SCOPE: _ScopeRequest(
        "organizations/{organization}/members",
        "members",
        (("take", "1"), ("fields", FIELDS_WITH_ROLES), ("include_fields", "true")),
    ),
    TENANT_ROLES_SCOPE: _ScopeRequest("roles", "roles", _WITH_TOTAL, "role"),
}
# Used if a tenant has no organizations. An id that does not exist is sufficient, because Auth0 checks the OAuth scope
# first.
UNKNOWN_ORGANIZATION: Final = "org_0000000000000000"
# The header x-ratelimit-limit contains the burst limit. Each documented limit per minute is at least ten times the
# burst limit: https://auth0.com/docs/troubleshoot/customer-support/operational-policies/rate-limit-policy
BURSTS_PER_MINUTE: Final = 10
# The requests to create a users export job, to check it, and to fetch its location.
REQUESTS_PER_JOB: Final = 3


class TenantChecks:
    """The checks of a tenant. They share a client, and the counts in its responses."""

    def __init__(self, source: Auth0Source, context: ProviderContext) -> None:
        self._source = source
        self._context = context
        self._latency = Latency()
        self._organizations = self._roles = 0
        self._organization_id = UNKNOWN_ORGANIZATION

    def checks(self) -> Iterator[Check]:
        """Yield the checks in the order of their execution."""
        yield Check(CREDENTIALS, self._credentials)
        yield Check(CONNECTION, self._connection)
        yield Check(TOKEN, self._token, (CREDENTIALS, CONNECTION))
        datasets = self._datasets_by_scope()
        for scope, names in datasets.items():
            # If a request with roles is rejected, the response does not show which of the two OAuth scopes is missing.
            requires = MEMBERS_SCOPE if scope == ROLES_SCOPE else TOKEN
            yield Check(scope, partial(self._scope, scope, names), (requires,))
        users = [export for export in self._source.exports if isinstance(export, Auth0UsersExport)]
        for connection_id in dict.fromkeys(export.connection_id for export in users):
            if connection_id is not None:
                yield Check(f"connection {connection_id}", partial(self._connection_id, connection_id), (TOKEN,))
        for organization_id in dict.fromkeys(export.organization_id for export in users):
            if organization_id is not None:
                run = partial(self._organization, organization_id)
                yield Check(f"organization {organization_id}", run, (ENABLED_CONNECTIONS_SCOPE,))
        required = tuple(scope for scope in datasets if scope not in OPTIONAL_SCOPES.values())
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
        return {scope: datasets[scope] for scope in _REQUESTS if scope in datasets}

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
        source = self._source
        return clients.client(source.domain, source.secret, self._context, audience=source.audience)

    def _scope(self, scope: str, datasets: list[str]) -> CheckResult:
        subject = f"the {'dataset' if len(datasets) == 1 else 'datasets'} {' and '.join(datasets)}"
        request = _REQUESTS[scope]
        path = request.path.format(organization=segment(self._organization_id))
        document = None
        try:
            document = self._read(path, request.params, scope=scope, bucket=request.bucket, subject=subject)
        except ScopeMissingError as error:
            if scope in OPTIONAL_SCOPES.values():
                return CheckResult(
                    detail=f"OAuth scope is missing, so {subject} will not contain roles; grant it to include them",
                    warning=True,
                )
            if len(error.scopes) == 1:
                raise
            # The response contains all OAuth scopes of the endpoint, but the request requires only one.
            raise ScopeMissingError(
                f"{self._client.name} requires the OAuth scope {scope} for {subject}; grant it to the application for"
                " the Management API",
                scopes=(scope,),
            ) from error
        except RequestRefusedError as error:
            # Auth0 checks the OAuth scope first, so it is granted if the organization is reported as missing.
            if not error.is_missing or path == request.path:
                raise
        total = _total(document)
        if scope == TENANT_ROLES_SCOPE:
            self._roles = total or 0
        if scope == ORGANIZATIONS_SCOPE:
            rows = document.get("organizations") if isinstance(document, dict) else document
            if not isinstance(rows, list):
                raise WrongFormatError(
                    f"{self._client.name}: expected the list of organizations, found {type(rows).__name__}; check the"
                    " domain"
                )
            if rows and isinstance(rows[0], dict) and is_id(rows[0].get("id")):
                self._organization_id = rows[0]["id"]
            self._organizations = total or len(rows)
        count = "" if total is None else f"; {format_count(total, request.noun)} in the tenant"
        return CheckResult(detail=f"OAuth scope for {subject}{count}")

    def _read(self, path: str, params: Parameters, *, scope: str, bucket: str, subject: str) -> Any:
        client = self._client
        return self._latency.measure(
            lambda: client.request("GET", path, params=params, subject=subject, scope=scope, bucket=bucket)
        )

    def _connection_id(self, connection_id: str) -> CheckResult:
        subject = f"the connection {connection_id}"
        fields = (("fields", "id"), ("include_fields", "true"))
        path = f"connections/{segment(connection_id)}"
        try:
            with self._existing(f"connection {connection_id}", "connection_id"):
                self._read(path, fields, scope=CONNECTIONS_SCOPE, bucket="connections", subject=subject)
        except ScopeMissingError:
            return CheckResult(
                detail=f"not checked, because the application does not have the OAuth scope {CONNECTIONS_SCOPE}; grant"
                " it for the check, or verify the id in the Auth0 dashboard",
                warning=True,
            )
        return CheckResult(detail="exists")

    def _organization(self, organization_id: str) -> CheckResult:
        api = OrganizationApi(self._client)
        with self._existing(f"organization {organization_id}", "organization_id"):
            connections = self._latency.measure(lambda: api.connection_ids(organization_id))
        return CheckResult(detail=f"exists, with {format_count(len(connections), 'enabled connection')}")

    @contextmanager
    def _existing(self, resource: str, key: str) -> Iterator[None]:
        """Replace the error if the resource does not exist. ``key`` is the key of its id in the configuration."""
        try:
            yield
        except RequestRefusedError as error:
            if not error.is_missing:
                raise
            raise RequestRefusedError(
                f"{self._client.name} has no {resource}; correct {key} in the configuration",
                status=error.status,
                code=error.code,
            ) from error

    def _expected_run(self) -> CheckResult:
        """Return the number of requests of a run, and their expected duration at the rate limits of the tenant."""
        pages = self._organizations // MAX_PAGE_SIZE + 1
        jobs, buckets = 0, Counter[str]()
        for export in self._source.exports:
            if isinstance(export, Auth0UsersExport):
                jobs += 1
                buckets["jobs"] += REQUESTS_PER_JOB
                buckets["enabled_connections"] += export.organization_id is not None
            elif export.dataset in {"roles", "role_members"}:
                buckets["roles"] += self._roles // MAX_PAGE_SIZE + 1 + self._roles
            else:
                buckets["organizations"] += pages
                buckets["members" if export.dataset == "members" else "enabled_connections"] += self._organizations
        seconds = sum(count * self._seconds_per_request(bucket) for bucket, count in buckets.items())
        limits = {bucket: self._client.rate_limiter.limit(bucket) for bucket, count in buckets.items() if count}
        known = [f"{bucket} {BURSTS_PER_MINUTE * limit:,.0f}" for bucket, limit in limits.items() if limit]
        remark = f" at the tenant's rate limits (requests per minute: {', '.join(known)})" if known else ""
        if jobs:
            remark += f", and the time in which Auth0 creates {format_count(jobs, 'file')} of users"
        # Organizations with more than 100 members require more than one request.
        return expected_run(sum(buckets.values()), seconds, remark, at_least=buckets["members"] > 0)

    def _seconds_per_request(self, bucket: str) -> float:
        limit = self._client.rate_limiter.limit(bucket)
        pace = 60 / (BURSTS_PER_MINUTE * limit) if limit else 0.0
        return max(self._latency.seconds, pace)


def _total(document: Any) -> int | None:
    total = document.get("total") if isinstance(document, dict) else None
    return total if isinstance(total, int) and not isinstance(total, bool) and total >= 0 else None
