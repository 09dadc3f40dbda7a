"""The cached clients of tenants."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import requests

from meibo.providers.auth0.client import MAX_CLIENTS, Auth0Client, ClientPool
from meibo.providers.base import ProviderContext


class Session(requests.Session):
    """A session that records whether it is closed."""

    closed = False

    def close(self) -> None:
        self.closed = True
        super().close()


@dataclass
class Pool:
    sessions: list[Session] = field(default_factory=list)
    pool: ClientPool = field(default_factory=ClientPool)

    def client(self, domain: str) -> Auth0Client:
        context = ProviderContext(time_left=lambda: 300.0, new_session=self._session)
        return self.pool.client(domain, f"meibo/{domain}", context)

    def _session(self, _connections: int) -> Session:
        self.sessions.append(Session())
        return self.sessions[-1]


def test_client_of_a_tenant_is_reused() -> None:
    pool = Pool()

    assert pool.client("acme.auth0.com") is pool.client("acme.auth0.com")
    assert len(pool.sessions) == 1


def test_least_recently_used_clients_are_closed() -> None:
    pool = Pool()
    first = pool.client("first.auth0.com")
    for number in range(MAX_CLIENTS):
        pool.client(f"tenant{number}.auth0.com")
        # This client is used after each other client, so it is not closed.
        assert pool.client("first.auth0.com") is first

    assert [session.closed for session in pool.sessions] == [False, True, *[False] * (MAX_CLIENTS - 1)]
    pool.client("tenant0.auth0.com")
    assert len(pool.sessions) == MAX_CLIENTS + 2


def test_clients_of_ended_threads_do_not_accumulate() -> None:
    pool = Pool()
    for number in range(3 * MAX_CLIENTS):
        thread = threading.Thread(target=pool.client, args=(f"tenant{number}.auth0.com",))
        thread.start()
        thread.join()

    assert sum(not session.closed for session in pool.sessions) == MAX_CLIENTS
