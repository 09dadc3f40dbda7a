"""Create and change roles, organizations and enabled connections in a tenant.

https://auth0.com/docs/api/management/v2/roles
https://auth0.com/docs/api/management/v2/organizations
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from meibo.errors import RequestRefusedError, WrongFormatError
from meibo.http.transport import is_id, segment
from meibo.providers.auth0.checks import OPTIONAL_SCOPES, REQUIRED_SCOPES
from meibo.providers.auth0.client import ApiList, Auth0Client
from meibo.providers.auth0.organizations import ORGANIZATIONS_SCOPE, OrganizationApi
from meibo.providers.auth0.pagination import read_page
from meibo.providers.auth0.roles import RoleApi
from meibo_cli.restore.auth0_target import CONNECTIONS_SCOPE
from meibo_cli.restore.directory_planner import LIVE_DATASETS, MEMBERS, ORGANIZATIONS, ROLE_MEMBERS, ROLES

# Auth0 does not document a maximum for these requests.
MAX_USERS_PER_REQUEST: Final = 50
MAX_PERMISSIONS_PER_REQUEST: Final = 50
_CONNECTIONS: Final = ApiList(
    path="connections",
    key="connections",
    subject="the list of connections",
    scope=CONNECTIONS_SCOPE,
    bucket="connections",
    params=(("fields", "id,name,strategy"), ("include_fields", "true")),
)

_WRITE_SCOPES: Final = {
    ROLES: ("create:roles", "update:roles"),
    ORGANIZATIONS: ("create:organizations", "create:organization_connections"),
    ROLE_MEMBERS: ("update:roles", "create:role_members"),
    MEMBERS: ("create:organization_members", "create:organization_member_roles"),
}
_UPDATE_SCOPES: Final = ("update:organizations", "update:organization_connections")


def live_datasets(datasets: Iterable[str]) -> list[str]:
    """Return the datasets of the tenant that must be read to plan a restore of these datasets."""
    return list(dict.fromkeys(name for dataset in datasets for name in LIVE_DATASETS[dataset]))


def required_scopes(datasets: Collection[str], *, upsert: bool) -> tuple[list[str], list[str]]:
    """Return the OAuth scopes that are required to read the tenant, and those that are required to apply a plan."""
    read: dict[str, None] = {}
    write: dict[str, None] = {}
    for name in live_datasets(datasets):
        read |= dict.fromkeys((*REQUIRED_SCOPES[name], *filter(None, [OPTIONAL_SCOPES.get(name)])))
    for dataset in datasets:
        write |= dict.fromkeys(_WRITE_SCOPES[dataset])
        if dataset == ORGANIZATIONS:
            read[CONNECTIONS_SCOPE] = None
            write |= dict.fromkeys(_UPDATE_SCOPES if upsert else ())
    return list(read), list(write)


def connections(client: Auth0Client) -> list[Mapping[str, Any]]:
    """Return the id, the name and the strategy of each connection of the tenant."""
    rows: list[Mapping[str, Any]] = []
    cursor: str | None = None
    while True:
        page = read_page(client, _CONNECTIONS, cursor)
        rows += [row.value for row in page.rows]
        cursor = page.next
        if cursor is None:
            return rows


# -- roles


def create_role(client: Auth0Client, body: Mapping[str, Any]) -> str:
    """Create a role and return its id. Raises ProviderBusyError, without a retry, if the result is unknown."""
    document = client.request(
        "POST", "roles", json=body, subject="a new role", scope="create:roles", bucket="roles", repeatable=False
    )
    return _new_id(client, document, "role")


def roles_named(client: Auth0Client, name: str) -> list[str]:
    """Return the ids of the roles with this name."""
    return [row.value["id"] for row in RoleApi(client).roles() if row.value.get("name") == name]


def update_role(client: Auth0Client, role_id: str, body: Mapping[str, Any]) -> None:
    """Replace properties of a role."""
    path, subject = f"roles/{segment(role_id)}", f"the role {role_id}"
    _write(client, "PATCH", path, body, subject=subject, scope="update:roles", bucket="roles")


def add_permissions(client: Auth0Client, role_id: str, permissions: Sequence[Mapping[str, str]]) -> None:
    """Add permissions to a role. Permissions that the role already has do not change."""
    for batch in _batches(permissions, MAX_PERMISSIONS_PER_REQUEST):
        path, subject = f"roles/{segment(role_id)}/permissions", f"the permissions of role {role_id}"
        _write(client, "POST", path, {"permissions": batch}, subject=subject, scope="update:roles", bucket="roles")


def assign_role(client: Auth0Client, role_id: str, user_ids: Sequence[str]) -> None:
    """Assign a role to up to 50 users. Users who already have the role do not change."""
    path, subject = f"roles/{segment(role_id)}/users", f"{len(user_ids)} users of role {role_id}"
    body = {"users": list(user_ids)}
    _write(client, "POST", path, body, subject=subject, scope="create:role_members", bucket="roles")


# -- organizations


def create_organization(client: Auth0Client, body: Mapping[str, Any]) -> str:
    """Create an organization and return its id. Raises ProviderBusyError, without a retry, if the result is unknown."""
    document = client.request(
        "POST",
        "organizations",
        json=body,
        subject="a new organization",
        scope="create:organizations",
        bucket="write_organizations",
        repeatable=False,
    )
    return _new_id(client, document, "organization")


def organization_named(client: Auth0Client, name: str) -> str | None:
    """Return the id of the organization with this name, or None if it does not exist."""
    try:
        document = client.request(
            "GET",
            f"organizations/name/{segment(name)}",
            subject="an organization",
            scope=ORGANIZATIONS_SCOPE,
            bucket="organization",
        )
    except RequestRefusedError as error:
        if error.is_missing:
            return None
        raise
    return _new_id(client, document, "organization")


def update_organization(client: Auth0Client, organization_id: str, body: Mapping[str, Any]) -> None:
    """Replace properties of an organization."""
    path, subject = f"organizations/{segment(organization_id)}", f"the organization {organization_id}"
    _write(client, "PATCH", path, body, subject=subject, scope="update:organizations", bucket="write_organizations")


def enable_connection(client: Auth0Client, organization_id: str, connection_id: str, body: Mapping[str, Any]) -> None:
    """Enable a connection for an organization with these options. Do nothing if it is already enabled."""
    path = f"organizations/{segment(organization_id)}/enabled_connections"
    subject = f"the connection {connection_id} of organization {organization_id}"
    body = {"connection_id": connection_id, **body}
    scope, bucket = "create:organization_connections", "write_enabled_connections"
    try:
        _write(client, "POST", path, body, subject=subject, scope=scope, bucket=bucket)
    except RequestRefusedError:
        # The request may be a retry whose first attempt succeeded.
        enabled = OrganizationApi(client).enabled_connections(organization_id)
        if connection_id not in {row.value.get("connection_id") for row in enabled}:
            raise


def update_connection(client: Auth0Client, organization_id: str, connection_id: str, body: Mapping[str, Any]) -> None:
    """Replace options of a connection that is enabled for an organization."""
    path = f"organizations/{segment(organization_id)}/enabled_connections/{segment(connection_id)}"
    subject = f"the connection {connection_id} of organization {organization_id}"
    scope, bucket = "update:organization_connections", "write_enabled_connections"
    _write(client, "PATCH", path, body, subject=subject, scope=scope, bucket=bucket)


def _write(client: Auth0Client, method: str, path: str, body: Mapping[str, Any], **names: str) -> None:
    client.request(method, path, json=body, subject=names["subject"], scope=names["scope"], bucket=names["bucket"])


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _new_id(client: Auth0Client, document: object, noun: str) -> str:
    identity = document.get("id") if isinstance(document, dict) else None
    if not is_id(identity):
        raise WrongFormatError(f"{client.name}: expected the id of the {noun}, found none; check the domain")
    return identity
