"""Generate the files that are copied: random bytes, which cannot be compressed, and exports of users.

``files.py PATH noise|ndjson|csv BYTES`` prints the result as JSON. It is a separate command, because the peak memory of
a measured process includes the memory of the process that starts it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import sys
from pathlib import Path

MIB = 1024 * 1024

GIVEN = ["Hanako", "花子", "Jürgen", "Zoë", "太郎", "Ana María", "Åsa", "Olivia", "健一", "Nguyễn"]
FAMILY = ["Sato", "鈴木", "Müller", "O'Neill", "高橋", "García", "Ångström", "Smith", "渡辺", "Trần"]


def noise(path: Path, size: int) -> str:
    """Write random bytes, which represent a compressed file that is not decoded, and return their SHA-256."""
    block = random.Random(1).randbytes(64 * MIB)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, len(block)):
            file.write(block[: size - start])
            digest.update(block[: size - start])
    return digest.hexdigest()


def user(number: int, chance: random.Random) -> dict[str, object]:
    """Return a random user."""
    given, family = chance.choice(GIVEN), chance.choice(FAMILY)
    second = (
        f"{chance.randrange(24):02}:{chance.randrange(60):02}:{chance.randrange(60):02}.{chance.randrange(1000):03}Z"
    )
    return {
        "user_id": f"auth0|{chance.getrandbits(96):024x}",
        "email": f"user{number}.{chance.randrange(10**6)}@example.com",
        "email_verified": chance.random() < 0.9,
        "name": f"{given} {family}",
        "given_name": given,
        "family_name": family,
        "nickname": f"{given}\n{number}" if number % 997 == 0 else f'{given} "{number}"',
        "created_at": f"2024-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}T{second}",
        "last_login": f"2026-{chance.randrange(1, 12):02}-{chance.randrange(1, 29):02}T{second}",
        "logins_count": chance.randrange(500),
        "last_ip": f"203.0.113.{chance.randrange(256)}",
        "connection": "Username-Password-Authentication",
        "country": chance.choice(["JP", "DE", "US", "VN", "ES"]),
        "department": chance.choice(["sales", "engineering", "people", "finance"]),
    }


def users(path: Path, form: str, size: int) -> tuple[int, int]:
    """Write a gzip file of users with at least this size, and return the number of users and of decompressed bytes.

    The file repeats a gzip member with 250,000 different users.
    """
    chance = random.Random(2)
    people = [user(number, chance) for number in range(250_000)]
    if form == "ndjson":
        plain = b"".join(json.dumps(person, ensure_ascii=False).encode() + b"\n" for person in people)
    else:
        plain = b"".join(map(csv_line, people))
    member = gzip.compress(plain, 6)
    times = -(-size // len(member))
    with path.open("wb") as file:
        for _ in range(times):
            file.write(member)
    return times * len(people), times * len(plain)


def csv_line(person: dict[str, object]) -> bytes:
    """Return a record in the format of Auth0. Strings are quoted and begin with an apostrophe."""
    fields = []
    for name, value in person.items():
        if isinstance(value, str) and name not in {"created_at", "last_login"}:
            escaped = value.replace('"', '""')
            fields.append(f'"\'{escaped}"')
        else:
            fields.append(str(value))
    return ",".join(fields).encode() + b"\n"


if __name__ == "__main__":
    path, kind, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    result = noise(path, size) if kind == "noise" else users(path, kind, size)
    print(json.dumps(result))
