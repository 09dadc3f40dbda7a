"""Read the organizations of a tenant, their connections and their members.

https://auth0.com/docs/manage-users/organizations/configure-organizations/retrieve-organizations
https://auth0.com/docs/api/management/v2/organizations/get-organization-members
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from meibo.errors import RequestRefusedError, ScopeMissingError, WrongFormatError
from meibo.http.raw_json import RawJson, line_with_list
from meibo.http.transport import is_id, segment
from meibo.providers.auth0.client import ApiList
from meibo.providers.auth0.pagination import ItemPages, ItemPosition, ListApi, MemberPages, Page, read_page

ORGANIZATIONS_SCOPE: Final = "read:organizations"
ENABLED_CONNECTIONS_SCOPE: Final = "read:organization_connections"
MEMBERS_SCOPE: Final = "read:organization_members"
ROLES_SCOPE: Final = "read:organization_member_roles"
# It is not documented whether the endpoint is paginated. This page size is sufficient, because an organization has at
# most ten connections: https://auth0.com/docs/troubleshoot/customer-support/operational-policies/entity-limit-policy
ENABLED_CONNECTIONS_PER_PAGE: Final = 50
# The response contains roles only if the parameter "fields" contains "roles" and the other fields.
FIELDS_WITH_ROLES: Final = "user_id,email,picture,name,roles"


class OrganizationApi(ListApi):
    """The methods that read the organizations of a tenant.

    Each method sends one request, except that ``members`` sends a second request if the OAuth scope for roles is
    missing. If an organization does not exist, the methods raise RequestRefusedError with ``status`` 404.
    """

    item_noun = "organizations"

    def items(self, cursor: str | None) -> Page:
        source = ApiList("organizations", "organizations", self.subject, ORGANIZATIONS_SCOPE, "organizations")
        page = read_page(self._client, source, cursor)
        return replace(page, rows=self._check_ids(page.rows))

    def enabled_connections(self, organization_id: str) -> list[RawJson]:
        """Return the enabled connections of an organization."""
        source = ApiList(
            path=f"organizations/{segment(organization_id)}/enabled_connections",
            key="enabled_connections",
            subject=f"the connections of organization {organization_id}",
            scope=ENABLED_CONNECTIONS_SCOPE,
            bucket="enabled_connections",
            params=(("per_page", str(ENABLED_CONNECTIONS_PER_PAGE)), ("page", "0"), ("include_totals", "true")),
        )
        return self._client.request_list(source)[0]

    def connection_ids(self, organization_id: str) -> list[str]:
        """Return the ids of an organization's connections, raising RequestRefusedError if it has no connections."""
        rows = self.enabled_connections(organization_id)
        if not rows:
            raise RequestRefusedError(
                f"{self.name}: organization {organization_id} has no enabled connection, so it has no users to export;"
                " enable a connection or remove the organization from the configuration"
            )
        ids = [connection_id for row in rows if is_id(connection_id := row.value.get("connection_id"))]
        if len(ids) != len(rows):
            # The ids become parts of keys in the archive.
            raise WrongFormatError(
                f"{self.name}: expected an id for each connection of {organization_id}, found"
                f" {len(rows) - len(ids)} of {len(rows)} without a valid id; check the domain"
            )
        return list(dict.fromkeys(ids))

    def members(self, organization_id: str, cursor: str | None, *, with_roles: bool = True) -> tuple[Page, bool]:
        """Return a page of the members of an organization, and whether the rows contain the roles.

        If ``with_roles`` is true, the roles are requested, and the rows contain them if the token is allowed to read
        roles. Raises ScopeMissingError if the token is not allowed to read members.
        """
        source = ApiList(
            path=f"organizations/{segment(organization_id)}/members",
            key="members",
            subject=f"the members of organization {organization_id}",
            scope=MEMBERS_SCOPE,
            bucket="members",
        )
        if with_roles:
            roles = (("fields", FIELDS_WITH_ROLES), ("include_fields", "true"))
            try:
                return read_page(self._client, replace(source, params=roles), cursor), True
            except ScopeMissingError as error:
                # The documented message contains both OAuth scopes. A request without roles requires only the OAuth
                # scope for members.
                if ROLES_SCOPE not in error.scopes:
                    raise
        return read_page(self._client, source, cursor), False


class OrganizationList(ItemPages[OrganizationApi]):
    """One row per organization, with its enabled connections."""

    def read(self, item: RawJson, position: ItemPosition) -> Iterator[tuple[tuple[bytes, ...], ItemPosition]]:
        """Yield the row of the organization."""
        organization_id = item.value["id"]
        line = line_with_list(item, "enabled_connections", self.api.enabled_connections(organization_id))
        yield (line,), position.after_item(organization_id)


class OrganizationMembers(MemberPages[OrganizationApi]):
    """One row per member of an organization, with the member's roles if the token is allowed to read them."""

    id_key = "organization_id"
    members_subject = "the members of organization"

    def members(self, item_id: str, cursor: str | None, position: ItemPosition) -> tuple[Page, ItemPosition]:
        page, with_roles = self.api.members(item_id, cursor, with_roles=position.with_roles)
        had_roles = position.had_roles or (with_roles and bool(page.rows))
        return page, replace(position, with_roles=with_roles, had_roles=had_roles)

    def notes(self, position: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return whether the rows contain the roles, which are direct assignments in the organization."""
        if position.get("with_roles", True):
            return {"roles": {"included": "yes", "assignments": "direct"}}
        return {
            "roles": {
                "included": "in part" if position.get("had_roles") else "no",
                "reason": f"the token does not have the OAuth scope {ROLES_SCOPE}",
            }
        }
