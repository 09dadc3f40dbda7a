from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meibo.errors import ConfigurationError, ProviderBusyError, RequestRefusedError, WrongFormatError
from meibo.providers.cybozu.client import CybozuClient, CybozuCredentials
from meibo.providers.cybozu.directory import stream_users_ndjson
from meibo.providers.cybozu.pagination import PagingReport
from tests.support.clock import FakeClock
from tests.support.transport import RecordedRequest, Reply, Transport
from tests.unit.providers.cybozu.conftest import MakeClient

PATH = "/v1/users.json"


def user(number: int) -> dict[str, Any]:
    return {"id": str(number), "code": f"user{number}", "name": "山田 太郎", "phone": None, "description": ""}


class Directory:
    """Responds with pages of a list, which may change between requests."""

    def __init__(self, users: Sequence[dict[str, Any]], *, max_rows: int = 100) -> None:
        self.users = list(users)
        self.most = max_rows

    def __call__(self, request: RecordedRequest) -> Reply:
        query = request.query
        offset, size = int(query["offset"]), min(int(query["size"]), self.most)
        ids = self.users
        for name, key in (("ids", "id"), ("codes", "code")):
            values = [value for parameter, value in query.items() if parameter.startswith(f"{name}[")]
            if values:
                ids = [row for row in self.users if row[key] in values]
        return Reply(json={"users": ids[offset : offset + size]})


def read(client: CybozuClient, **options: Any) -> list[str]:
    return [json.loads(line)["id"] for line in b"".join(stream_users_ndjson(client, **options)).splitlines()]


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 1000, 1050])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_pages_are_read_until_one_is_empty(
    cybozu: Transport, client: CybozuClient, count: int, concurrency: int
) -> None:
    cybozu.on("GET", PATH, Directory([user(number) for number in range(count)]))
    report = PagingReport()

    ids = read(client, concurrency=concurrency, report=report)

    assert ids == [str(number) for number in range(count)]
    assert report.duplicates == 0
    assert report.pages <= -(-count // 99) + 2
    assert len(cybozu.requests) <= report.pages + concurrency


def test_users_are_unchanged(cybozu: Transport, client: CybozuClient) -> None:
    text = '{"id":"1","name":"\\u5c71","phone":null,"description":"","sortOrder":1.0}'
    pages = [Reply(body=f'{{"users": [\n {text} ]}}'.encode()), Reply(json={"users": []})]
    cybozu.on("GET", PATH, *pages)

    assert b"".join(stream_users_ndjson(client, concurrency=1)) == text.encode() + b"\n"


def test_short_page_does_not_end_the_list(cybozu: Transport, client: CybozuClient) -> None:
    def hiding(request: RecordedRequest) -> Reply:
        offset = int(request.query["offset"])
        shown = range(offset, min(offset + 100, 300))
        size = int(request.query["size"])
        return Reply(json={"users": [user(number) for number in shown if number not in {7, 107}][:size]})

    cybozu.on("GET", PATH, hiding)

    ids = read(client)

    assert set(ids) == {str(number) for number in range(300) if number not in {7, 107}}
    assert len(ids) == len(set(ids))


def test_list_with_smaller_pages_is_read_completely(cybozu: Transport, client: CybozuClient) -> None:
    cybozu.on("GET", PATH, Directory([user(number) for number in range(512)], max_rows=30))
    report = PagingReport()

    assert read(client, report=report) == [str(number) for number in range(512)]
    assert report.pages >= 512 // 30
    assert report.duplicates == 0


def test_duplicate_user_is_dropped_and_counted(cybozu: Transport, client: CybozuClient) -> None:
    directory = Directory([user(number) for number in range(250)])

    def joined_meanwhile(request: RecordedRequest) -> Reply:
        page = directory(request)
        if int(request.query["offset"]) == 0:
            directory.users.insert(0, user(1000))
        return page

    cybozu.on("GET", PATH, joined_meanwhile)
    report = PagingReport()

    ids = read(client, concurrency=1, report=report)

    assert ids == [str(number) for number in range(250)]
    assert report.duplicates == 1


class MovingDirectory(Directory):
    """Users are added and deleted between any two requests, including retries of a page."""

    def __init__(self, count: int, moves: Iterator[tuple[bool, float]], *, max_rows: int) -> None:
        super().__init__([user(number) for number in range(count)], max_rows=max_rows)
        self.moves = moves
        self.joined = count
        self.stayed = {row["id"] for row in self.users}
        self.lock = threading.Lock()

    def __call__(self, request: RecordedRequest) -> Reply:
        with self.lock:
            reply = super().__call__(request)
            for joins, where in [move for move in [next(self.moves, None)] if move]:
                if joins:
                    self.users.insert(int(where * len(self.users)), user(self.joined))
                    self.joined += 1
                elif self.users:
                    left = self.users.pop(int(where * (len(self.users) - 1)))
                    self.stayed.discard(left["id"])
            return reply


@settings(deadline=None, max_examples=100)
@given(
    count=st.integers(0, 450),
    max_rows=st.sampled_from([100, 99, 50, 20]),
    moves=st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=150),
    burst=st.booleans(),
    concurrency=st.integers(1, 5),
)
def test_user_that_stays_is_read_once_while_others_move(
    count: int, max_rows: int, moves: list[tuple[bool, float]], burst: bool, concurrency: int
) -> None:
    directory = MovingDirectory(count, iter(moves), max_rows=max_rows)
    if burst:
        # Many users are deleted at the same time, after the first page.
        directory.users = directory.users[: len(directory.users) // 3] + directory.users[len(directory.users) // 2 :]
        directory.stayed = {row["id"] for row in directory.users}
    cybozu = Transport().on("GET", PATH, directory)
    client = CybozuClient(
        "https://example.cybozu.com", CybozuCredentials("a", "b"), session=cybozu.session(), clock=FakeClock()
    )

    ids = read(client, concurrency=concurrency)

    assert len(ids) == len(set(ids))
    assert directory.stayed <= set(ids)


@settings(deadline=None, max_examples=60)
@given(
    remove=st.integers(0, 249),
    leave=st.integers(1, 200),
    concurrency=st.integers(1, 4),
    max_rows=st.sampled_from([100, 99, 60, 20]),
)
def test_user_that_stays_is_read_if_many_leave(remove: int, leave: int, concurrency: int, max_rows: int) -> None:
    directory = Directory([user(number) for number in range(250)], max_rows=max_rows)
    values = itertools.count()
    lock = threading.Lock()

    def answer(request: RecordedRequest) -> Reply:
        with lock:
            if next(values) == 2:
                del directory.users[remove : remove + leave]
            return directory(request)

    cybozu = Transport().on("GET", PATH, answer)
    client = CybozuClient(
        "https://example.cybozu.com", CybozuCredentials("a", "b"), session=cybozu.session(), clock=FakeClock()
    )

    ids = read(client, concurrency=concurrency)

    assert len(ids) == len(set(ids))
    assert {row["id"] for row in directory.users} <= set(ids)


def test_list_that_changes_too_fast_raises_provider_busy(cybozu: Transport, client: CybozuClient) -> None:
    def answer(request: RecordedRequest) -> Reply:
        # Every page ends with the same two users, regardless of its offset.
        return Reply(json={"users": [user(1), user(2)] if int(request.query["offset"]) < 1000 else []})

    cybozu.on("GET", PATH, answer)

    with pytest.raises(ProviderBusyError, match="faster"):
        read(client, concurrency=1)


def test_domain_that_ignores_the_offset_raises_provider_busy(cybozu: Transport, client: CybozuClient) -> None:
    cybozu.on("GET", PATH, Reply(json={"users": [user(1), user(2)]}))

    with pytest.raises(ProviderBusyError, match="faster"):
        read(client, concurrency=1)


def test_concurrent_requests_do_not_exceed_the_limit(cybozu: Transport, client: CybozuClient) -> None:
    directory = Directory([user(number) for number in range(1000)])
    lock, flying, max_rows = threading.Lock(), 0, 0

    def answer(request: RecordedRequest) -> Reply:
        nonlocal flying, max_rows
        with lock:
            flying += 1
            max_rows = max(max_rows, flying)
        reply = directory(request)
        with lock:
            flying -= 1
        return reply

    cybozu.on("GET", PATH, answer)

    read(client, concurrency=3)

    assert max_rows <= 3


def test_reader_that_stops_early_stops_the_requests(cybozu: Transport, client: CybozuClient) -> None:
    cybozu.on("GET", PATH, Directory([user(number) for number in range(100_000)]))

    lines = stream_users_ndjson(client, concurrency=2)
    next(lines)
    lines.close()  # type: ignore[attr-defined] # it is a generator

    assert len(cybozu.requests) <= 6


def test_failed_page_ends_the_reading(cybozu: Transport, client: CybozuClient) -> None:
    directory = Directory([user(number) for number in range(1000)])

    def answer(request: RecordedRequest) -> Reply:
        return Reply(400, json={"code": "CB_VA01"}) if request.query["offset"] == "297" else directory(request)

    cybozu.on("GET", PATH, answer)
    received: list[bytes] = []

    with pytest.raises(RequestRefusedError, match="CB_VA01"):
        received.extend(line for page in stream_users_ndjson(client) for line in page.splitlines())

    assert len(received) == 298


def test_failure_after_the_end_of_the_list_is_ignored(cybozu: Transport, client: CybozuClient) -> None:
    directory = Directory([user(number) for number in range(150)])

    def answer(request: RecordedRequest) -> Reply:
        return Reply(400) if int(request.query["offset"]) > 200 else directory(request)

    cybozu.on("GET", PATH, answer)

    assert len(read(client, concurrency=8)) == 150


@pytest.mark.parametrize("name", ["ids", "codes"])
def test_filter_is_sent_in_chunks_of_one_hundred(cybozu: Transport, client: CybozuClient, name: str) -> None:
    cybozu.on("GET", PATH, Directory([user(number) for number in range(400)]))
    values = [str(number) if name == "ids" else f"user{number}" for number in range(250)]

    ids = read(client, **{name: values})

    assert ids == [str(number) for number in range(250)]
    assert [request.query[f"{name}[0]"] for request in cybozu.requests] == [values[0], values[100], values[200]]


def test_long_codes_are_sent_in_smaller_chunks(cybozu: Transport, client: CybozuClient) -> None:
    people = [{**user(number), "code": f"{'漢字' * 30}{number}@例え.jp"} for number in range(60)]
    cybozu.on("GET", PATH, Directory(people))

    ids = read(client, codes=[row["code"] for row in people])

    assert ids == [str(number) for number in range(60)]
    assert max(len(request.url) for request in cybozu.requests) < 4096


def test_missing_user_is_omitted(cybozu: Transport, client: CybozuClient) -> None:
    cybozu.on("GET", PATH, Directory([user(1)]))

    assert read(client, ids=["1", "2", "1"]) == ["1"]


def test_both_filters_are_rejected_without_a_request(cybozu: Transport, client: CybozuClient) -> None:
    with pytest.raises(ConfigurationError, match="expected ids or codes, found both"):
        stream_users_ndjson(client, ids=["1"], codes=["a"])

    assert cybozu.requests == []


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"<!DOCTYPE html><html>canary</html>", headers={"content-type": "text/html"}),
        Reply(body=b"\n <html>canary</html>", headers={"content-type": "application/json"}),
        Reply(json={"message": "canary"}),
        Reply(json={"users": ["canary"]}),
        Reply(json={"users": [{"code": "canary"}]}),
        Reply(body=b'{"users": ["\xff"]}'),
        Reply(body=b""),
        Reply(body=b'{"users":' + b"[" * 100_000),
    ],
)
def test_response_without_users_is_an_error_without_its_content(
    cybozu: Transport, client: CybozuClient, reply: Reply
) -> None:
    cybozu.on("GET", PATH, reply)

    with pytest.raises(WrongFormatError, match=r"example\.cybozu\.com") as caught:
        read(client)

    assert "canary" not in str(caught.value)


def test_overload_is_retried(cybozu: Transport, client: CybozuClient, clock: FakeClock) -> None:
    directory = Directory([user(1)])
    maintenance = Reply(502, body="<html>一時的な過負荷かメンテナンス</html>".encode())
    cybozu.on("GET", PATH, maintenance, Reply(429, headers={"X-ConcurrencyLimit-Limit": "100"}), directory)

    assert read(client, concurrency=1) == ["1"]
    assert len(clock.slept) == 2


def test_overload_that_outlasts_the_invocation_raises_provider_busy(cybozu: Transport, make_client: MakeClient) -> None:
    cybozu.on("GET", PATH, Reply(503))

    with pytest.raises(ProviderBusyError):
        read(make_client(seconds=30))
