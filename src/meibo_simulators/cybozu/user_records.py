"""The people of a cybozu.com domain, by number."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

from meibo_simulators.profiles import AWKWARD, FAMILY, GIVEN, READING

#: Ids are 64-bit numbers printed as text; from this number on they no longer fit a floating-point number.
LONG_IDS_FROM = 500
LONG_ID = 7532782697181632513
CUSTOM_ITEMS = ("employment", "座席")
LOCALES = ("ja", "en", "zh", "zh-TW", "es", "pt-BR", "th")


def user_id(index: int) -> str:
    """Return the id; ``Administrator`` has 1."""
    return str(LONG_ID + index if index >= LONG_IDS_FROM else index + 2)


def user_code(seed: int, index: int) -> str:
    """Return the login name; some people log in with an address."""
    name = f"u{seed}-{index:06d}"
    return f"{name}@example.jp" if index % 5 == 0 else name


def places(index: int, organizations: int) -> list[tuple[int, int | None]]:
    """Return the numbers of somebody's organizations and titles: none for one in ten, several for some."""
    if not organizations or index % 10 == 0:
        return []
    first = index * 7 % organizations
    where: list[tuple[int, int | None]] = [(first, index % 5 if index % 3 else None)]
    others = {(first + step * 3) % organizations for step in range(1, index % 4)} - {first}
    return where + [(number, None if number % 2 else number % 5) for number in sorted(others)]


@lru_cache(maxsize=8192)
def user(seed: int, index: int, organizations: int) -> dict[str, Any]:
    """Return a user as users.json shows it, None where nothing was ever set."""
    random_ = random.Random(f"cybozu:{seed}:{index}")
    family, given = random_.choice(FAMILY), random_.choice(GIVEN)
    code = user_code(seed, index)
    reading = random_.choice(READING) if random_.random() < 0.6 else None
    created = f"20{random_.randrange(12, 25)}-{random_.randrange(1, 13):02d}-{random_.randrange(1, 29):02d}"
    where = places(index, organizations)
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
        "primaryOrganization": str(where[0][0] + 1) if where else None,
        "sortOrder": index if index % 6 else None,
        "customItemValues": [
            {"code": item, "value": random_.choice(("", "正社員", "A-1", 'say "hi"'))} for item in CUSTOM_ITEMS
        ],
    }


def administrator() -> dict[str, Any]:
    """Return the built-in account, which is in users.json but in no CSV file."""
    template = user(0, 0, 0)
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


def csv_row(person: dict[str, Any], new_code: str, password: str, *, delete_column: bool) -> list[str]:
    """Return the 25 columns of user.csv (24 without the delete column) and one per custom item."""

    def text(name: str) -> str:
        value = person[name]
        return "" if value is None else str(value)

    row = [text("code"), text("name"), new_code, password]
    row += [text(name) for name in ("surName", "givenName", "surNameReading", "givenNameReading")]
    row += [text("localName"), text("localNameLocale"), text("email"), "1" if person["valid"] else "0"]
    row += [text(name) for name in ("locale", "timezone", "phone", "extensionNumber", "mobilePhone", "url")]
    row += [text(name) for name in ("employeeNumber", "joinDate", "birthDate", "description", "sortOrder", "callto")]
    if delete_column:
        row.append("")
    return row + [item["value"] for item in person["customItemValues"]]
