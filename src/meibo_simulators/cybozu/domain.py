"""A simulated cybozu.com domain: its users, accounts, switches, faults and request record."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from meibo_simulators.clock import SYSTEM_CLOCK, Clock
from meibo_simulators.cybozu.api import make_application
from meibo_simulators.cybozu.auth import READ, Access, Account
from meibo_simulators.cybozu.csv_format import render
from meibo_simulators.cybozu.directory import Directory
from meibo_simulators.cybozu.structure import Structure
from meibo_simulators.cybozu.switches import Switches
from meibo_simulators.cybozu.user_records import administrator, csv_row
from meibo_simulators.faults import Faults, Instrumented, Request
from meibo_simulators.server import HttpsServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path


class SimulatedDomain:
    """A domain. Create it, set its switches and pass it to ``Simulators``, which opens its port."""

    def __init__(
        self,
        name: str = "example",
        *,
        users: int = 0,
        organizations: int = 12,
        groups: int = 6,
        seed: int = 1,
        port: int = 0,
    ) -> None:
        self.name = name
        self.seed = seed
        self.switches = Switches()
        self.faults = Faults()
        self.requests: deque[Request] = deque(maxlen=1_000_000)
        self.clock: Clock = SYSTEM_CLOCK
        self.stopping = threading.Event()
        self.directory = Directory(seed, users, organizations)
        self.structure = Structure(self.directory, self.switches, organizations=organizations, groups=groups)
        self.access = Access(self.switches, lambda: self.clock)
        self.account = Account("hr-export", f"simulated:{name}:pässwörd", administrator=True)
        self.plain_account = Account("someone", f"simulated:{name}:plain", administrator=False)
        for account in (self.account, self.plain_account):
            self.access.accounts[account.login] = account
        self.between_pages: deque[Callable[[], Any]] = deque()
        self.most_at_once = 0
        self._port = port
        self._server: HttpsServer | None = None
        self.api = Instrumented(make_application(self), self.faults, self.requests)

    def __repr__(self) -> str:
        return f"SimulatedDomain({self.name!r}, base_url={self.base_url!r})"

    # -- data for clients -----------------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """Return the URL of the domain without a trailing slash."""
        return f"https://localhost:{self._server.port}" if self._server else ""

    def credentials(self) -> dict[str, str]:
        """Return the secret document of an administrator, with a password."""
        return {"login": self.account.login, "password": self.account.password} | self._basic()

    def plain_credentials(self) -> dict[str, str]:
        """Return the secret document of a user who is not an administrator."""
        return {"login": self.plain_account.login, "password": self.plain_account.password} | self._basic()

    def token_credentials(self, scope: str = READ, *, lifetime: float = 30 * 86400) -> dict[str, str]:
        """Return the secret document with a new API token."""
        return {"api_token": self.access.token(scope, lifetime=lifetime)}

    def _basic(self) -> dict[str, str]:
        if self.switches.basic is None:
            return {}
        return {"basic_user": self.switches.basic[0], "basic_password": self.switches.basic[1]}

    # -- expected values for tests --------------------------------------------------------------------------

    def expected_users(self) -> list[dict[str, Any]]:
        """Return the users as in users.json, including the Administrator."""
        first = [administrator()] if self.switches.administrator_in_json else []
        return [self.shown(user) for user in (*first, *self.directory.users())]

    def expected_csv(self, name: str = "user") -> bytes:
        """Return a CSV export: ``user``, ``organization``, ``userGroups``, …"""
        if name != "user":
            return b"".join(render(self.structure.rows(name), self.switches))
        rows = (
            csv_row(
                self.shown(user),
                self.new_code(user),
                self.switches.csv_hidden,
                delete_column=self.switches.csv_delete_column,
            )
            for user in self.directory.users()
        )
        return b"".join(render(rows, self.switches))

    def expected_rows(self) -> dict[str, dict[str, int]]:
        """Return the number of rows of each dataset by format."""
        users, structure = self.directory.count(), self.structure
        listed = users + self.switches.administrator_in_json
        own_groups = sum(group["type"] != "system" for group in structure.groups)
        members = sum(1 for unit in structure.organizations for _ in structure.in_organization(unit["code"]))
        members += sum(1 for group in structure.groups for _ in structure.in_group(group))
        return {
            "csv": {
                "users": users,
                "organizations": len(structure.organizations),
                "titles": len(structure.titles),
                "groups": own_groups,
                "user_organizations": users,
                "user_groups": users,
                "user_services": users,
            },
            "ndjson": {
                "users": listed,
                "organizations": len(structure.organizations),
                "groups": len(structure.groups),
                "members": members,
            },
        }

    def new_code(self, user: dict[str, Any]) -> str:
        """Return the value of the third column of user.csv."""
        return {"empty": "", "same": str(user["code"]), "star": "*"}[self.switches.csv_new_code]

    def shown(self, user: dict[str, Any]) -> dict[str, Any]:
        """Return an entry with unset values and custom items as set by the switches."""
        if "customItemValues" in user and not self.switches.custom_items:
            user = {**user, "customItemValues": []}
        if self.switches.unset == "null":
            return user
        nullable = ("birthDate", "joinDate", "primaryOrganization", "sortOrder", "locale")
        return {name: "" if value is None and name not in nullable else value for name, value in user.items()}

    def after_page(self) -> None:
        """Run the next function of ``between_pages``, which changes the directory between two pages."""
        if self.between_pages:
            self.between_pages.popleft()()

    # -- serving --------------------------------------------------------------------------------------------

    def start(self, context: ssl.SSLContext, folder: Path, clock: Clock) -> None:
        """Open the domain's port."""
        del folder  # a domain writes no files
        self.clock = self.api.clock = clock
        self._server = HttpsServer(self.api, context, self._port)
        self._server.start()

    def stop(self) -> None:
        """Close the port."""
        self.stopping.set()
        if self._server is not None:
            self._server.stop()
            self._server = None
