"""Generate user profiles from a seed and an index, without storing them.

Users are generated in blocks, so that millions of rows are written quickly. A block contains each of the ``BLOCK``
shapes once. A shape is a profile with a placeholder for the number of the block, which is a part of ids and addresses.
Therefore, a block is written by replacing the placeholders in a serialized template.
"""

from __future__ import annotations

import hashlib
import random
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

BLOCK = 1024
BLOCK_DIGITS = 6
#: The placeholder: private-use characters, which no name contains and no format escapes.
MARK = "\ue0b0" * 2

FAMILY = (
    *("佐藤", "鈴木", "高橋", "田中", "渡辺", "伊藤", "山本", "中村", "小林", "齋藤", "髙橋", "﨑山", "𠮷田"),
    *("Müller", "Nguyễn", "O'Connor", "Łukaszewski", "García Márquez", "Þórsdóttir", "de la Cruz", "Smith"),
    *("Иванов", "Παπαδόπουλος", "김", "王", "שלום", "الحسن", "สมชาย"),
)
GIVEN = (
    *("太郎", "花子", "さくら", "健一", "ゆうき", "美咲", "大輔", "アレックス", "蓮", "陽菜"),
    *("Zoë", "Renée", "Søren", "Ngọc", "José", "Ana-Lucía", "Mary Ann", "Björk"),
    *("Дмитрий", "Ελένη", "민준", "伟", "נועה", "فاطمة", "ปรีชา"),
)
READING = ("さとう", "すずき", "たかはし", "たなか", "わたなべ", "いとう", "やまもと", "なかむら", "こばやし")
COUNTRIES = ("JP", "US", "DE", "BR", "KR", "TH", "IL", "EG", "VN", "IS")
DEPARTMENTS = ("営業部", "開発部", "人事部", "R&D", "Support; EMEA", "総務 / 法務")
PLANS = ("free", "team", "enterprise")

#: Values that break careless parsers. Each is the name or note of a shape, so the first users have all of them.
AWKWARD = (
    'Robert "Bobby" Tables',
    'ends with a quote"',
    "line one\nline two",
    "windows\r\nnote",
    "comma, semicolon; tab\there",
    "=SUM(A1:A9)",
    '=HYPERLINK("https://example.invalid","click")',
    "+81-3-1234-5678",
    "-1",
    "@mention",
    "'leading apostrophe",
    "''two apostrophes",
    "👩‍👩‍👧‍👦 family",
    "🇯🇵 日本",
    "مرحبا بالعالم",
    "\u200fשלום עולם\u200e",
    "line\u2028separator and paragraph\u2029separator",
    "next\u0085line",
    "zero\u200bwidth\ufeffmarks",
    "back\\slash and \\n written out",
    "</script><b>&amp;",
    "%s %d {0} {{}}",
    " leading and trailing spaces ",
    "e\u0301 decomposed, é composed",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 beyond the first plane",
    "NULL",
    "true",
    "0012",
    "1e5",
    "2024-01-01",
    "../../etc/passwd",
    "con_0000000000000001/users",
    "ｶﾀｶﾅ ﾊﾝｶｸ",
    "x" * 300,
)
_START = datetime(2019, 4, 1, tzinfo=UTC)

Profile = dict[str, Any]


def block_number(index: int) -> str:
    """Return the block number of a user in hexadecimal digits, which replace ``MARK``."""
    return f"{index // BLOCK:0{BLOCK_DIGITS}x}"


def fill(value: Any, number: str) -> Any:
    """Return a value of a shape with the block number instead of the placeholder."""
    if isinstance(value, str):
        return value.replace(MARK, number)
    if isinstance(value, list):
        return [fill(item, number) for item in value]
    if isinstance(value, dict):
        return {key: fill(item, number) for key, item in value.items()}
    return value


def timestamp(seconds: float) -> str:
    """Return a time in Auth0's format: ``2023-01-25T17:48:15.325Z``."""
    return _iso(datetime.fromtimestamp(seconds, UTC))


def _iso(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _local_part(shape: int) -> str:
    return f"user.{MARK}{shape:03x}"


@lru_cache(maxsize=4 * BLOCK)
def auth0_shape(seed: int, shape: int, connection: str) -> Profile:
    """Return the Auth0 profile of a shape in a connection, with placeholders."""
    random_ = random.Random(f"auth0:{seed}:{shape}")
    digest = hashlib.sha256(f"{seed}:{shape}".encode()).hexdigest()
    own_id = f"{digest[:15]}{MARK}{shape:03x}"
    email = f"{_local_part(shape)}@example.{random_.choice(('jp', 'com', 'org'))}"
    family, given = random_.choice(FAMILY), random_.choice(GIVEN)
    name = f"{family} {given}"
    if shape < len(AWKWARD):
        name = AWKWARD[shape]
    created = _START + timedelta(seconds=random_.randrange(200_000_000), milliseconds=random_.randrange(1000))
    updated = created + timedelta(seconds=random_.randrange(30_000_000), milliseconds=random_.randrange(1000))
    profile: Profile = {
        "created_at": _iso(created),
        "email": email,
        "email_verified": random_.random() < 0.8,
        "family_name": family,
        "given_name": given,
        "identities": [{"connection": connection, "user_id": own_id, "provider": "auth0", "isSocial": False}],
        "name": name,
        "nickname": random_.choice((given, _local_part(shape))),
        "picture": f"https://cdn.example.invalid/avatars/{digest[:12]}{MARK}.png?s=480&r=pg",
        "updated_at": _iso(updated),
        "user_id": f"auth0|{own_id}",
    }
    if random_.random() < 0.7:
        profile["last_login"] = _iso(updated)
        profile["last_ip"] = f"203.0.113.{random_.randrange(256)}"
        profile["logins_count"] = random_.randrange(1, 2000)
    if random_.random() < 0.3:
        profile["username"] = _local_part(shape)
    if random_.random() < 0.2:
        profile["phone_number"] = f"+8190{random_.randrange(10**8):08d}"
        profile["phone_verified"] = random_.random() < 0.5
    if random_.random() < 0.05:
        profile["blocked"] = True
    if random_.random() < 0.1:
        profile["last_password_reset"] = _iso(created + timedelta(days=3))
        profile["multifactor"] = ["guardian"]
        profile["multifactor_last_modified"] = _iso(created + timedelta(days=4))
    if random_.random() < 0.75 or shape < 2 * len(AWKWARD):
        metadata: Profile = {
            "country": random_.choice(COUNTRIES),
            "lang": random_.choice(("ja", "en", "pt-BR")),
        }
        if shape < 2 * len(AWKWARD):
            metadata["note"] = AWKWARD[shape % len(AWKWARD)]
        if random_.random() < 0.4:
            metadata["preferences"] = {
                "theme": "暗い",
                "newsletter": random_.random() < 0.5,
                "tags": ["α", "β"],
            }
        if random_.random() < 0.2:
            metadata["score"] = random_.choice((0, -1, 12.5, 1e21, 9007199254740993))
        profile["user_metadata"] = metadata
    if random_.random() < 0.6:
        profile["app_metadata"] = {
            "employee_id": f"E{MARK}{shape:04d}",
            "department": random_.choice(DEPARTMENTS),
            "plan": random_.choice(PLANS),
            "active": random_.random() < 0.9,
            "manager": None,
            "roles": random_.sample(("admin", "編集者", "viewer"), k=random_.randrange(3)),
        }
    return profile


def auth0_user(seed: int, index: int, connection: str) -> Profile:
    """Return a user as GET /api/v2/users/{id} returns it."""
    filled: Profile = fill(auth0_shape(seed, index % BLOCK, connection), block_number(index))
    return filled


def auth0_index(seed: int, user_id: str) -> int | None:
    """Return the index of the generated user with an id, or None."""
    provider, _, own_id = user_id.partition("|")
    if provider != "auth0" or len(own_id) != 24:
        return None
    try:
        shape, number = int(own_id[21:], 16), int(own_id[15:21], 16)
    except ValueError:
        return None
    if shape >= BLOCK or auth0_user_id(seed, number * BLOCK + shape) != user_id:
        return None
    return number * BLOCK + shape


def auth0_user_id(seed: int, index: int) -> str:
    """Return the id of a user without generating the rest of the profile."""
    shape = index % BLOCK
    return f"auth0|{_id_head(seed, shape)}{block_number(index)}{shape:03x}"


@lru_cache(maxsize=4 * BLOCK)
def _id_head(seed: int, shape: int) -> str:
    return hashlib.sha256(f"{seed}:{shape}".encode()).hexdigest()[:15]
