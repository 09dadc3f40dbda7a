"""Read the proxy from the environment variables HTTPS_PROXY and NO_PROXY.

requests and botocore evaluate these variables themselves. The connections of a copy use ``proxy_for``.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from requests.utils import get_environ_proxies, select_proxy

from meibo.errors import ConfigurationError

EXAMPLE: Final = "HTTPS_PROXY=http://user:password@host:port"


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy. ``headers`` are the headers of the CONNECT request, which may contain credentials."""

    host: str
    port: int
    headers: dict[str, str] = field(repr=False)


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy for a URL, or None for a direct connection.

    Raises ConfigurationError if HTTPS_PROXY is not the URL of an HTTP proxy.
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
