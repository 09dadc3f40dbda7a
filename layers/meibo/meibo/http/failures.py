"""Classify the failures of requests that receive no usable response."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Final

import requests
import urllib3

from meibo.http.proxy import EXAMPLE

CONNECTION_ERRORS: Final = (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError)
# The TLS alerts of servers that require a client certificate. The names are those of OpenSSL.
CERTIFICATE_ALERTS: Final = frozenset(
    {
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV1_ALERT_UNKNOWN_CA",
    }
)
_MAX_CAUSES: Final = 20


@dataclass(frozen=True)
class Failure:
    """A request without a usable response.

    ``reason`` contains no URL. In a message, it follows the name of the provider. ``permanent`` is true if a retry
    cannot succeed. ``had_no_effect`` is true if the provider did not execute the request.
    """

    reason: str
    permanent: bool = False
    had_no_effect: bool = False
    unknown_host: bool = False


def connection_failure(error: BaseException) -> Failure:
    """Return the failure for one of ``CONNECTION_ERRORS``.

    The messages of these errors contain the URL, so only their types are evaluated.
    """
    causes = _causes(error)
    types = list(dict.fromkeys(type(cause).__name__ for cause in causes))
    alert = next((cause.reason for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return Failure("has a certificate that is not trusted here; check the host name", permanent=True)
    if alert in CERTIFICATE_ALERTS:
        return Failure(
            f"requires a client certificate or rejected the certificate in the secret ({alert}); issue a new"
            ' certificate and replace "client_certificate" in the secret',
            permanent=True,
        )
    if "ProxyError" in types:
        return proxy_failure(causes)
    if not {"InvalidURL", "MissingSchema", "InvalidSchema", "LocationParseError", "InvalidHeader"}.isdisjoint(types):
        return Failure(
            "cannot be called: its URL or a header value is not valid; check the domain and the secret", permanent=True
        )
    unknown_host = "NameResolutionError" in types
    timed_out = not {"ConnectTimeout", "ConnectTimeoutError"}.isdisjoint(types)
    reason = f"did not return a response ({', '.join(types)})"
    if unknown_host:
        reason = "has a host name that does not resolve; check its spelling"
    elif timed_out:
        reason = (
            "does not accept connections (timeout); check the domain and, for functions in a VPC, the route to the"
            " internet and the outbound rules of the security groups"
        )
    had_no_effect = unknown_host or timed_out or "NewConnectionError" in types
    return Failure(reason, had_no_effect=had_no_effect, unknown_host=unknown_host)


def proxy_failure(errors: Iterable[BaseException]) -> Failure:
    """Return the failure for an error of a proxy. ``errors`` contains the error and its causes."""
    # http.client reports the status of the proxy only in the message of an OSError.
    matches = [re.match(r"Tunnel connection failed: ([0-9]{3})", str(error)) for error in errors]
    status = next((match[1] for match in matches if match), None)
    problem = f"the proxy rejected the connection ({status}); allow the host in the proxy"
    if status is None:
        problem = "the proxy does not respond; check HTTPS_PROXY"
    elif status == "407":
        problem = f"the proxy rejected its credentials (407); set {EXAMPLE}"
    permanent = status is not None and status < "500"
    return Failure(f"cannot be reached: {problem}", permanent=permanent, had_no_effect=True)


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and its causes, including the causes that requests and urllib3 store as arguments."""
    causes: dict[int, BaseException] = {}
    waiting: list[object] = [error]
    while waiting and len(causes) < _MAX_CAUSES:
        cause = waiting.pop()
        if isinstance(cause, BaseException) and id(cause) not in causes:
            causes[id(cause)] = cause
            waiting += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]
    return list(causes.values())
