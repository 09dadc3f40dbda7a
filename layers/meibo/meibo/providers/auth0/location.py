"""The short-lived URL of a finished job's file: fetched at the moment of use and vetted before it is used.

A location gives 60 seconds of access to every user of the export. It is a secret: it is returned to the copy
and to nobody else, and no message holds more of it than its host name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import SplitResult, urlsplit

from meibo.errors import ConfigurationError, JobGoneError, LocationRefusedError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.jobs import GONE_STATES, job_state, read_job

# Auth0 stores the files in S3 buckets of its regions, formerly behind CloudFront. us-east-2, us-west-2 and CloudFront
# were observed; the other regions are those that Auth0 lists for public cloud tenants.
DEFAULT_LOCATION_HOSTS: Final = (
    *(
        f"*.s3.{region}.amazonaws.com"
        for region in (
            *("us-east-1", "us-east-2", "us-west-2", "ca-central-1", "eu-central-1", "eu-west-1", "eu-west-2"),
            *("ap-southeast-2", "ap-northeast-1"),
        )
    ),
    "user-exports.auth0.com",
)
# A URL that S3 signs with a session token has about 2 KB.
MAX_LOCATION_LENGTH: Final = 16 * 1024

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PATTERN: Final = re.compile(rf"(\*\.)?({_LABEL}(?:\.{_LABEL})*)(?::([0-9]{{1,5}}))?")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def fresh_location(client: Auth0Client, job_id: str, allowed_hosts: Iterable[str]) -> str:
    """Return a new location of a completed job, vetted.

    Raises JobGoneError when the job does not offer one (any more), LocationRefusedError for a foreign host.
    """
    document = read_job(client, job_id)
    if document is None:
        raise JobGoneError(f"{client.name} has no job {job_id} any more; jobs are deleted after 24 hours")
    state, location = job_state(client, job_id, document), document.get("location")
    if state != "completed":
        known = state if state in GONE_STATES or state == "pending" else "in an unknown state"
        raise JobGoneError(f"{client.name} has no file for the job {job_id}: it is {known}")
    if not isinstance(location, str) or not location:
        raise JobGoneError(f"{client.name} says that the job {job_id} is completed and gives no location")
    return vet_location(location, allowed_hosts)


def vet_location(location: str, allowed_hosts: Iterable[str]) -> str:
    """Return the location as an https URL if its host is allowed; raises LocationRefusedError.

    A location without a scheme, as Auth0's documentation showed it for years, is taken as https. The URL that is
    returned is put together again from the parts that were looked at, so that no other reader of URLs can see
    another host in it.
    """
    patterns = [_pattern(pattern) for pattern in allowed_hosts]
    if len(location) > MAX_LOCATION_LENGTH or not re.fullmatch(r"[\x21-\x7e]+", location) or "\\" in location:
        raise LocationRefusedError("the location is too long or holds characters that a URL cannot hold")
    scheme = _SCHEME.match(location)
    if scheme is not None and scheme[1].lower() != "https":
        raise LocationRefusedError("the location does not use https")
    rest = location[scheme.end() :] if scheme else location.removeprefix("//")
    parts = _split(rest)
    if parts is None:
        raise LocationRefusedError("the location is not a URL")
    if "@" in parts.netloc:
        raise LocationRefusedError("the location holds a user name, which is never part of one")
    host, _, port = parts.netloc.lower().partition(":")
    if not _HOST.fullmatch(host) or not re.fullmatch(r"(?::[0-9]{1,5})?", parts.netloc[len(host) :]):
        raise LocationRefusedError("the location has no proper host name")
    if not any(_fits(host, int(port or 443), pattern) for pattern in patterns):
        raise LocationRefusedError(
            f"the location is on the host {host[:100]}{':' + port if port else ''}, which is not allowed; if Auth0"
            " stores the tenant's exports there, add it to location_hosts of the source"
        )
    netloc = host if port in {"", "443"} else f"{host}:{int(port)}"
    return f"https://{netloc}{parts.path or '/'}" + (f"?{parts.query}" if parts.query else "")


def check_location_hosts(patterns: Iterable[str]) -> None:
    """Raise ConfigurationError for a pattern that is neither a host name nor ``*.`` and a domain."""
    for pattern in patterns:
        _pattern(pattern)


def _pattern(text: str) -> tuple[bool, str, int]:
    found = _PATTERN.fullmatch(text.strip().lower())
    # "*.com" would allow anybody's host.
    if found is None or (found[1] and found[2].count(".") < 1):
        raise ConfigurationError(
            f"expected a host name, or a domain after *., such as *.s3.us-east-2.amazonaws.com; got {text[:100]!r}"
        )
    return bool(found[1]), found[2], int(found[3] or 443)


def _fits(host: str, port: int, pattern: tuple[bool, str, int]) -> bool:
    wildcard, name, its_port = pattern
    return port == its_port and (host.endswith("." + name) if wildcard else host == name)


def _split(rest: str) -> SplitResult | None:
    try:
        return urlsplit("https://" + rest)
    except ValueError:
        return None
