"""Users: GET /users, /users/{id}, /users/{id}/organizations, /users-by-email; and the roles of the tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response, request

from meibo_simulators.auth0.pagination import FIELDS_QUERY, OFFSET_QUERY, by_offset, offset, read_query, with_fields
from meibo_simulators.auth0.responses import answer, no_content, user_missing
from meibo_simulators.auth0.validation import check

if TYPE_CHECKING:
    from meibo_simulators.auth0.routing import Routes
    from meibo_simulators.auth0.tokens import Grant

USERS_PAGED = (
    "You can only page through the first 1000 records. See "
    "https://auth0.com/docs/users/search/v3/view-search-results-by-page#limitation."
)
BY_EMAIL = {
    "type": "object",
    "required": ["email"],
    "properties": {"email": {"type": "string", "description": "Email address to search for (case-sensitive)."}},
}


def register(routes: Routes) -> None:
    """Add the routes."""
    tenant = routes.tenant

    @routes.add("GET", "/users-by-email", "read:users", limit="users")
    def by_email(_grant: Grant) -> Response:
        query = request.args.to_dict()
        check(query, BY_EMAIL, "Query")
        shown = read_query(query, FIELDS_QUERY)
        return answer([with_fields(profile, shown) for profile in tenant.directory.by_email(query["email"])])

    @routes.add("GET", "/users/<user_id>", "read:users", limit="users")
    def get_user(_grant: Grant, user_id: str) -> Response:
        query = read_query(request.args.to_dict(), FIELDS_QUERY)
        profile = tenant.directory.get(user_id)
        if profile is None:
            raise user_missing()
        return answer(with_fields(profile, query))

    @routes.add("GET", "/users/<user_id>/organizations", "read:organizations")
    def list_organizations(_grant: Grant, user_id: str) -> Response:
        page = offset(read_query(request.args.to_dict(), OFFSET_QUERY))
        if not tenant.directory.exists(user_id):
            raise user_missing()
        rows = [organization.body for organization in tenant.organizations.of_member(user_id)]
        organizations = rows[page.start : page.start + page.size]
        if not page.totals:
            return answer(organizations)
        # Recorded: the total of a page past the end is 0.
        total = len(rows) if organizations else 0
        return answer({"organizations": organizations, "start": page.start, "limit": page.size, "total": total})

    @routes.add("DELETE", "/users/<user_id>", "delete:users", limit="users")
    def delete_user(_grant: Grant, user_id: str) -> Response:
        # Recorded: deleting a user that does not exist also returns 204.
        tenant.directory.remove(user_id)
        return no_content()

    @routes.add("GET", "/users", "read:users", limit="users")
    def list_users(_grant: Grant) -> Response:
        query = read_query(request.args.to_dict(), {**OFFSET_QUERY, **FIELDS_QUERY})
        page = offset(query, text=USERS_PAGED)
        users = []
        for number, profile in enumerate(tenant.directory.users()):
            if number >= page.start + page.size:
                break
            if number >= page.start:
                users.append(with_fields(profile, query))
        if not page.totals:
            return answer(users)
        total = tenant.directory.count()
        return answer({"start": page.start, "limit": page.size, "length": len(users), "users": users, "total": total})

    @routes.add("GET", "/roles", "read:roles")
    def list_roles(_grant: Grant) -> Response:
        query = read_query(request.args.to_dict(), OFFSET_QUERY)
        return answer(by_offset("roles", list(tenant.organizations.roles.values()), offset(query)))
