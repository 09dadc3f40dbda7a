"""The proxy of the environment variables HTTPS_PROXY and NO_PROXY.

requests and botocore read these variables themselves. The copy opens its own connections and uses ``proxy_for``.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from requests.utils import get_environ_proxies, select_proxy

from meibo.errors import ConfigurationError

EXAMPLE: Final = "HTTPS_PROXY=http://user:password@host:port"


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy, and the headers of the CONNECT request, which may contain credentials."""

    host: str
    port: int
    headers: dict[str, str] = field(repr=False)


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy for a URL, or None if the connection is direct.

    Raises ConfigurationError if the proxy of the environment is not the URL of an HTTP proxy.
    """
    proxy = select_proxy(url, get_environ_proxies(url))
    if not proxy:
        return None
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        port = parts.port or 80
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigurationError(
            f"{urlsplit(url).hostname} cannot be reached: expected HTTPS_PROXY to be the URL of an HTTP proxy; set"
            f" {EXAMPLE}"
        )
    headers = {}
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {b64encode(credentials.encode()).decode()}"
    return Proxy(parts.hostname, port, headers)


@dataclass(frozen=True)
class ProxyFailure:
    """The reason that a proxy opened no connection, without its URL; ``permanent`` if a retry cannot help."""

    reason: str
    permanent: bool


def proxy_failure(errors: Iterable[BaseException]) -> ProxyFailure:
    """Return the reason of a failed connection to a proxy; ``errors`` are the error and its causes."""
    # http.client reports the status of the proxy in the text of an OSError only.
    matches = [re.match(r"Tunnel connection failed: ([0-9]{3})", str(error)) for error in errors]
    status = next((match[1] for match in matches if match), None)
    if status is None:
        return ProxyFailure("cannot be reached: the proxy does not respond; check HTTPS_PROXY", permanent=False)
    if status == "407":
        return ProxyFailure(
            f"cannot be reached: the proxy rejected its credentials (407); set {EXAMPLE}", permanent=True
        )
    return ProxyFailure(
        f"cannot be reached: the proxy rejected the connection ({status}); allow the host in the proxy",
        permanent=status < "500",
    )
