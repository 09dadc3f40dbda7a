"""Fetch and validate the location of a finished job's file, which is a short-lived URL.

A location gives access to all exported users for 60 seconds. It is a secret: it is passed only to the copy, and
messages contain at most its host name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from meibo.errors import JobGoneError, LocationRefusedError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.jobs import FAILED_STATES, job_state, read_job

# Auth0 stores the files in S3 buckets of its regions, formerly behind CloudFront. us-east-2, us-west-2 and CloudFront
# were observed. The other regions are the documented regions of public cloud tenants.
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
# A URL that is signed with a session token has a length of about 2 KB.
MAX_LOCATION_LENGTH: Final = 16 * 1024

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PATTERN: Final = re.compile(rf"(\*\.)?({_LABEL}(?:\.{_LABEL})*)(?::([0-9]{{1,5}}))?")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def fresh_location(client: Auth0Client, job_id: str, allowed_hosts: Iterable[str]) -> str:
    """Return a new, validated location of a completed job.

    Raises JobGoneError if the job does not exist, is not completed or has no location. Raises LocationRefusedError if
    the location is not valid or its host is not allowed.
    """
    document = read_job(client, job_id)
    if document is None:
        raise JobGoneError(f"{client.name} no longer has the job {job_id}; Auth0 deletes jobs after 24 hours")
    state, location = job_state(client, job_id, document), document.get("location")
    if state != "completed":
        known = state if state in FAILED_STATES or state == "pending" else "in an unknown state"
        raise JobGoneError(f"{client.name} has no file for the job {job_id}: it is {known}")
    if not isinstance(location, str) or not location:
        raise JobGoneError(f"{client.name}: expected a location of the completed job {job_id}, found none")
    return validate_location(location, allowed_hosts)


def validate_location(location: str, allowed_hosts: Iterable[str]) -> str:
    """Return the location as an https URL.

    Raises LocationRefusedError if the location is not a valid https URL or if its host is not allowed. A
    location without a scheme, as in earlier versions of Auth0's documentation, is an https URL. The returned URL is
    built from the validated parts, so that other URL parsers cannot find a different host in it.
    """
    patterns = [_pattern(pattern) for pattern in allowed_hosts]
    if len(location) > MAX_LOCATION_LENGTH or not re.fullmatch(r"[\x21-\x7e]+", location) or "\\" in location:
        raise LocationRefusedError(
            f"the location: expected a URL of at most {MAX_LOCATION_LENGTH} characters, found other text"
        )
    scheme = _SCHEME.match(location)
    if scheme is not None and scheme[1].lower() != "https":
        raise LocationRefusedError("the location: expected https, found another scheme")
    rest = location[scheme.end() :] if scheme else location.removeprefix("//")
    try:
        parts = urlsplit("https://" + rest)
    except ValueError:
        # The ValueError contains the location, so it is not chained.
        raise LocationRefusedError("the location: expected a URL, found other text") from None
    if "@" in parts.netloc:
        raise LocationRefusedError("the location: expected no user name, found a user name")
    host, _, port = parts.netloc.lower().partition(":")
    if not _HOST.fullmatch(host) or not re.fullmatch(r"(?::[0-9]{1,5})?", parts.netloc[len(host) :]):
        raise LocationRefusedError("the location: expected a host name, found other text")
    if not any(_matches(host, int(port or 443), pattern) for pattern in patterns):
        raise LocationRefusedError(
            f"the location is on the host {host[:100]}{':' + port if port else ''}, which is not allowed; if Auth0"
            " stores the tenant's exports there, add it to location_hosts of the source"
        )
    netloc = host if port in {"", "443"} else f"{host}:{int(port)}"
    return f"https://{netloc}{parts.path or '/'}" + (f"?{parts.query}" if parts.query else "")


def check_location_hosts(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the patterns, raising ValueError if a pattern is not a host name or a domain after ``*.``."""
    for pattern in patterns:
        _pattern(pattern)
    return patterns


def _pattern(text: str) -> tuple[bool, str, int]:
    match = _PATTERN.fullmatch(text.strip().lower())
    # "*.com" would allow all hosts of a top-level domain.
    if match is None or (match[1] and match[2].count(".") < 1):
        raise ValueError(
            f"expected a host name, or a domain after *., such as *.s3.us-east-2.amazonaws.com; found {text[:100]!r}"
        )
    return bool(match[1]), match[2], int(match[3] or 443)


def _matches(host: str, port: int, pattern: tuple[bool, str, int]) -> bool:
    wildcard, name, pattern_port = pattern
    return port == pattern_port and (host.endswith("." + name) if wildcard else host == name)
