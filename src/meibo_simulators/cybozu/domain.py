"""A simulated cybozu.com domain: its users, accounts and switches."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

from meibo_simulators.cybozu.auth import Access, Account
from meibo_simulators.cybozu.csv_files import csv_file
from meibo_simulators.cybozu.directory import Directory, Structure, administrator_record
from meibo_simulators.cybozu.secure_access import SecureAccess
from meibo_simulators.cybozu.switches import Switches
from meibo_simulators.site import Site


class SimulatedDomain(Site):
    """A domain, which ``Simulators`` serves."""

    def __init__(
        self,
        name: str = "example",
        *,
        users: int = 0,
        organizations: int = 12,
        groups: int = 6,
        seed: int = 1,
        secure_access: SecureAccess | None = None,
    ) -> None:
        super().__init__(name, seed)
        #: The client certificates that the domain requires, or None.
        self.secure_access = secure_access
        self.switches = Switches()
        self.directory = Directory(seed, users, organizations)
        self.structure = Structure(self.directory, organizations=organizations, groups=groups)
        self.access = Access(self.switches, self.now, secure_access)
        self.account = Account("hr-export", f"simulated:{name}:pässwörd", administrator=True)
        self.plain_account = Account("someone", f"simulated:{name}:plain", administrator=False)
        for account in (self.account, self.plain_account):
            self.access.accounts[account.login] = account
        #: Functions that change the directory. Each is called once, after a page of users.json.
        self.between_pages: deque[Callable[[], Any]] = deque()
        self.max_concurrent_requests = 0

    def configure_tls(self, context: ssl.SSLContext) -> None:
        """Require or request a client certificate if the domain has secure access."""
        if self.secure_access is not None:
            self.secure_access.require(context)

    # -- data for clients -----------------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """The URL of the domain without a trailing slash."""
        return f"https://{self.host}"

    def source(self, *exports: dict[str, Any]) -> dict[str, Any]:
        """Return the domain's source in a configuration."""
        return {
            "provider": "cybozu",
            "name": self.name,
            "base_url": self.base_url,
            "secret": f"meibo/{self.name}",
            "exports": list(exports),
        }

    def credentials(self) -> dict[str, str]:
        """Return the secret document of an administrator, with a password."""
        return {"login": self.account.login, "password": self.account.password} | self._access()

    def plain_credentials(self) -> dict[str, str]:
        """Return the secret document of a user who is not an administrator."""
        return {"login": self.plain_account.login, "password": self.plain_account.password} | self._access()

    def token_credentials(self, *, lifetime: float = 30 * 86400) -> dict[str, str]:
        """Return the secret document with a new API token."""
        return {"api_token": self.access.token(lifetime)} | self._certificate()

    def _access(self) -> dict[str, str]:
        basic = self.switches.basic
        return self._certificate() | ({} if basic is None else {"basic_user": basic[0], "basic_password": basic[1]})

    def _certificate(self) -> dict[str, str]:
        return {} if self.secure_access is None else self.secure_access.issue(self.account.login)

    # -- expected values for tests --------------------------------------------------------------------------

    def expected_users(self) -> list[dict[str, Any]]:
        """Return the users as in users.json, including the Administrator."""
        administrators = [administrator_record()] if self.switches.administrator_in_json else []
        return [self.switches.shown(user) for user in (*administrators, *self.directory.users())]

    def expected_csv(self, name: str = "user") -> bytes:
        """Return a CSV export: ``user``, ``organization``, ``userGroups``, …"""
        return b"".join(csv_file(self.structure, self.switches, name))

    def expected_rows(self) -> dict[str, dict[str, int]]:
        """Return the number of rows of each dataset by format."""
        users, structure = self.directory.count(), self.structure
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
                "users": users + self.switches.administrator_in_json,
                "organizations": len(structure.organizations),
                "groups": len(structure.groups),
                "members": members,
            },
        }
