"""Create sessions for HTTPS requests, and check the connection to a host."""

from __future__ import annotations

import logging
from http.cookiejar import DefaultCookiePolicy
from typing import Final

import requests

from meibo.errors import ConfigurationError, ProviderBusyError
from meibo.http.failures import CONNECTION_ERRORS, connection_failure

CONNECT_TIMEOUT_SECONDS: Final = 6.0
READ_TIMEOUT_SECONDS: Final = 30.0


class _Session(requests.Session):
    """A session that ignores redirects.

    By default, requests prepares the next request even with ``allow_redirects=False``: it reads the complete body into
    memory, and raises ValueError if the Location header is not a URL.
    """

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002  # defined by requests
        return None


def new_session(connections: int) -> requests.Session:
    """Return a session without cookies, retries, redirects, or credentials from ``~/.netrc``."""
    # At the level DEBUG, urllib3 logs URLs, which may contain an e-mail address or a signature.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)
    session = _Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    # requests reads ~/.netrc only if the session has no authentication.
    session.auth = lambda request: request
    session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=connections, max_retries=0))
    return session


def check_connection(provider: str, url: str, session: requests.Session) -> None:
    """Send one request without credentials, and ignore the response.

    Raises ConfigurationError if the host name does not resolve or the certificate is not trusted, and ProviderBusyError
    if the host does not respond.
    """
    try:
        timeout = (CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)
        with session.get(url, allow_redirects=False, stream=True, timeout=timeout):
            return
    except CONNECTION_ERRORS as error:
        failure = connection_failure(error)
    message = f"{provider} {failure.reason}"
    if failure.permanent or failure.unknown_host:
        raise ConfigurationError(message)
    raise ProviderBusyError(f"{message}; check the host name, the port, and the firewall or proxy of this network")
