"""The users, organizations, titles, groups and services of a cybozu.com domain, generated from numbers."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Any

from meibo_simulators.profiles import AWKWARD, FAMILY, GIVEN, READING

Entry = dict[str, Any]

#: Ids are strings of 64-bit integers. From this user number on, they exceed the precision of a double.
LONG_IDS_FROM = 500
LONG_ID = 7532782697181632513
CUSTOM_ITEMS = ("employment", "座席")
LOCALES = ("ja", "en", "zh", "zh-TW", "es", "pt-BR", "th")
TITLES = ("部長", "課長", "主任", "Manager", '"Chief" of, staff')
SERVICES = ("ki", "gr", "of", "mw", "sa")
EVERYONE_ID = 7532782697181632512
DYNAMIC_GROUPS = 2
ADMINISTRATORS_EVERY = 100
_UNITS = ("営業部", "開発部", "人事部", "総務, 法務", 'R&D "Lab"', "支社\n東北", "Ünit")


def user_id(index: int) -> str:
    """Return the id of a user. The id of the built-in Administrator is 1."""
    return str(LONG_ID + index if index >= LONG_IDS_FROM else index + 2)


def user_code(seed: int, index: int) -> str:
    """Return the login name of a user, which is an e-mail address for some users."""
    name = f"u{seed}-{index:06d}"
    return f"{name}@example.jp" if index % 5 == 0 else name


def places(index: int, organizations: int) -> list[tuple[int, int | None]]:
    """Return the numbers of a user's organizations and titles. One in ten users has none, and some have several."""
    if not organizations or index % 10 == 0:
        return []
    first = index * 7 % organizations
    primary: list[tuple[int, int | None]] = [(first, index % 5 if index % 3 else None)]
    others = {(first + step * 3) % organizations for step in range(1, index % 4)} - {first}
    return primary + [(number, None if number % 2 else number % 5) for number in sorted(others)]


@lru_cache(maxsize=8192)
def generated_user(seed: int, index: int, organizations: int) -> Entry:
    """Return a user as in users.json. Values that were never set are None."""
    random_ = random.Random(f"cybozu:{seed}:{index}")
    family, given = random_.choice(FAMILY), random_.choice(GIVEN)
    code = user_code(seed, index)
    reading = random_.choice(READING) if random_.random() < 0.6 else None
    created = f"20{random_.randrange(12, 25)}-{random_.randrange(1, 13):02d}-{random_.randrange(1, 29):02d}"
    units = places(index, organizations)
    awkward = AWKWARD[index] if index < len(AWKWARD) else None
    return {
        "id": user_id(index),
        "code": code,
        "ctime": f"{created}T{random_.randrange(24):02d}:{random_.randrange(60):02d}:00Z",
        "mtime": f"2026-{random_.randrange(1, 11):02d}-{random_.randrange(1, 29):02d}T03:04:05Z",
        "valid": random_.random() < 0.95,
        "name": f"{family} {given}" if awkward is None else awkward[:128],
        "surName": family,
        "givenName": given,
        "surNameReading": reading,
        "givenNameReading": None if reading is None else "たろう",
        "localName": f"Local {index}" if index % 7 == 0 else None,
        "localNameLocale": random_.choice(LOCALES) if index % 7 == 0 else None,
        "timezone": random_.choice(("Asia/Tokyo", "America/Sao_Paulo", "Asia/Bangkok")),
        "locale": random_.choice(LOCALES) if random_.random() < 0.5 else None,
        "description": awkward if awkward is not None else random_.choice((None, "", "メモ\n二行目")),
        "phone": f"03-{random_.randrange(10000):04d}-{random_.randrange(10000):04d}" if index % 2 else None,
        "mobilePhone": f"090-0000-{index % 10000:04d}" if index % 3 == 0 else None,
        "extensionNumber": str(random_.randrange(1000, 9999)) if index % 4 == 0 else None,
        "email": f"user.{index:06d}@example.jp" if index % 11 else "",
        "callto": f"skype:{index}" if index % 13 == 0 else None,
        "url": f"https://people.example.invalid/{index}" if index % 17 == 0 else None,
        "employeeNumber": f"{index:07d}",
        "birthDate": f"19{random_.randrange(60, 100)}-02-{random_.randrange(1, 29):02d}" if index % 2 else None,
        "joinDate": f"20{random_.randrange(10, 25)}-04-01" if index % 3 else None,
        "primaryOrganization": str(units[0][0] + 1) if units else None,
        "sortOrder": index if index % 6 else None,
        "customItemValues": [
            {"code": item, "value": random_.choice(("", "正社員", "A-1", 'say "hi"'))} for item in CUSTOM_ITEMS
        ],
    }


def administrator_record() -> Entry:
    """Return the built-in administrator, which is in users.json but not in CSV files."""
    template = generated_user(0, 0, 0)
    shown = dict.fromkeys(template)
    shown |= {
        "id": "1",
        "code": "Administrator",
        "ctime": "2012-02-03T09:12:51Z",
        "mtime": "2012-02-03T09:12:51Z",
        "valid": False,
        "name": "Administrator",
        "timezone": "Asia/Tokyo",
        "description": "",
        "customItemValues": [],
    }
    return shown


class Directory:
    """The users of a domain, in the order of the API."""

    def __init__(self, seed: int, users: int, organizations: int = 0) -> None:
        self.seed = seed
        self.organizations = organizations
        self._lock = threading.RLock()
        self._order = list(range(users))
        self._next = users

    def count(self) -> int:
        """Return the number of users without the built-in Administrator."""
        return len(self._order)

    def user(self, index: int) -> Entry:
        """Return a user."""
        return copy.deepcopy(generated_user(self.seed, index, self.organizations))

    def users(self) -> Iterator[Entry]:
        """Yield every user except the built-in Administrator."""
        return (self.user(index) for index in self.numbers())

    def numbers(self) -> list[int]:
        """Return the numbers of the users, in the order of the API."""
        with self._lock:
            return list(self._order)

    def page(self, page: slice, *, administrator: bool) -> list[Entry]:
        """Return a page of users. If ``administrator`` is set, the built-in Administrator is the first user."""
        first = [administrator_record()] if administrator and page.start == 0 else []
        with self._lock:
            numbers = self._order[max(0, page.start - administrator) : page.stop - administrator]
            return first + [self.user(index) for index in numbers]

    def find(self, key: str, values: list[str], *, administrator: bool) -> list[Entry]:
        """Return the users whose ``id`` or ``code`` is one of the values. Unknown values are ignored."""
        built_in = administrator_record()
        matches = [built_in] if administrator and built_in[key] in values else []
        name = user_id if key == "id" else lambda index: user_code(self.seed, index)
        return matches + [self.user(index) for index in self.numbers() if name(index) in values]

    def remove(self, position: int) -> None:
        """Delete the user at a position of the list."""
        with self._lock:
            self._order.pop(position)

    def insert(self, position: int) -> int:
        """Insert a new user at a position of the list, and return the user's number."""
        with self._lock:
            self._order.insert(position, self._next)
            self._next += 1
            return self._next - 1


def services(index: int) -> list[str]:
    """Return the codes of a user's services. One in seven users has none."""
    if index % 7 == 6:
        return []
    return [service for number, service in enumerate(SERVICES) if number == 0 or index % (number + 2) == 0]


class Structure:
    """The organizations, titles and groups of a domain and their members."""

    def __init__(self, directory: Directory, *, organizations: int, groups: int) -> None:
        self.directory = directory
        self._count = organizations
        self._groups = groups

    # -- organizations and titles

    @cached_property
    def organizations(self) -> list[Entry]:
        """All organizations, with parents before children. The first organization is the only root."""
        return [
            {
                "id": str(number + 1),
                "code": f"org-{number:04d}",
                "name": f"{_UNITS[number % len(_UNITS)]} {number}",
                "localName": f"Unit {number}" if number % 3 == 0 else None,
                "localNameLocale": "en" if number % 3 == 0 else None,
                "parentCode": None if number == 0 else f"org-{(number - 1) // 4:04d}",
                "description": "=メモ" if number % 5 == 0 else None,
            }
            for number in range(self._count)
        ]

    @cached_property
    def titles(self) -> list[Entry]:
        """All titles."""
        return [
            {"id": str(number + 1), "code": f"title-{number}", "name": name, "description": None}
            for number, name in enumerate(TITLES)
        ]

    def places(self, index: int) -> list[tuple[Entry, Entry | None]]:
        """Return a user's organizations, the primary organization first, with the user's title in each or None."""
        return [
            (self.organizations[number], None if title is None else self.titles[title])
            for number, title in places(index, self._count)
        ]

    def in_organization(self, code: str) -> Iterator[tuple[int, Entry | None]]:
        """Yield the numbers of an organization's users with their titles in it."""
        for index in self.directory.numbers():
            for organization, title in self.places(index):
                if organization["code"] == code:
                    yield index, title

    # -- groups

    @cached_property
    def groups(self) -> list[Entry]:
        """All groups with their types, which are not part of groups.json."""
        static = [
            {
                "id": str(number + 1),
                "code": f"group-{number:03d}",
                "name": f"グループ {number}",
                "description": "" if number % 2 else "@memo\r\nline",
                "type": "static",
            }
            for number in range(self._groups)
        ]
        dynamic = [
            {
                "id": str(self._groups + number + 1),
                "code": f"dynamic-{number}",
                "name": f"動的 {number}",
                "description": None,
                "type": "dynamic",
            }
            for number in range(DYNAMIC_GROUPS if self._groups else 0)
        ]
        system = [
            {"id": str(EVERYONE_ID), "code": "everyone", "name": "Everyone", "description": None, "type": "system"},
            {
                "id": str(EVERYONE_ID + 1),
                "code": "Administrators",
                "name": "Administrators",
                "description": None,
                "type": "system",
            },
        ]
        return [*static, *dynamic, *system]

    def groups_of(self, index: int) -> list[Entry]:
        """Return the groups of a user."""
        return [group for group in self.groups if self._is_in(index, group)]

    def _is_in(self, index: int, group: Entry) -> bool:
        if group["code"] == "everyone":
            return True
        if group["code"] == "Administrators":
            return index % ADMINISTRATORS_EVERY == 1
        return index % (int(group["id"]) + 1) == 0

    def in_group(self, group: Entry) -> Iterator[int]:
        """Yield the numbers of a group's users."""
        return (index for index in self.directory.numbers() if self._is_in(index, group))
