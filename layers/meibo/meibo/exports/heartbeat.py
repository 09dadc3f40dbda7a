"""Send a heartbeat after each complete run, so that an external service can report missing runs."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from http.client import HTTPSConnection
from threading import Thread
from typing import Final
from urllib.parse import SplitResult, urlsplit

import meibo
from meibo.errors import SecretError
from meibo.observability import logger, safe_description
from meibo.secrets import read_secret, string_value

SOCKET_TIMEOUT_SECONDS: Final = 3.0
# The timeout of all attempts together. It includes DNS resolution, which has no timeout of its own.
TOTAL_TIMEOUT_SECONDS = 10.0
MAX_ATTEMPTS: Final = 3


@dataclass(frozen=True)
class Heartbeat:
    """A GET request to the URL in a secret, ``{"url": "https://…"}``.

    The URL may contain a token, so it is never logged or included in an error.
    """

    secret: str

    def send(self) -> None:
        """Send the request. Errors are logged and not raised, because the run is already archived."""
        # The request runs in a thread, because the timeout of a socket does not limit the duration of a request.
        thread = Thread(target=self._send, name="heartbeat", daemon=True)
        thread.start()
        thread.join(TOTAL_TIMEOUT_SECONDS)
        if thread.is_alive():
            _log_failure(f"no response within {TOTAL_TIMEOUT_SECONDS:g} seconds")

    def _send(self) -> None:
        try:
            url = _parse(string_value(read_secret(self.secret), "url") or "", self.secret)
            tls = ssl.create_default_context()
        except SecretError as error:
            _log_failure(f"SecretError: {error}")
            return
        except Exception as error:  # noqa: BLE001  # see send(); the message may contain the URL
            _log_failure(safe_description(error))
            return
        for attempt in range(1, MAX_ATTEMPTS + 1):
            failure = _request(url, tls)
            if failure is None:
                logger.info("heartbeat sent", extra={"attempt": attempt})
                return
        _log_failure(failure or "")


def _parse(text: str, secret: str) -> SplitResult:
    invalid = SecretError(
        f'the secret {secret!r}: expected {{"url": "https://…"}} with a host name, and without a user name and password'
    )
    try:
        url = urlsplit(text)
        valid = url.scheme == "https" and bool(url.hostname) and url.username is None and url.port != 0
    except ValueError:
        raise invalid from None
    if not valid or not text.isascii() or not text.isprintable() or " " in text:
        raise invalid
    return url


def _request(url: SplitResult, tls: ssl.SSLContext) -> str | None:
    """Send the request once, and return the reason if it fails. Redirects are not followed."""
    target = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
    connection = HTTPSConnection(url.hostname or "", url.port, timeout=SOCKET_TIMEOUT_SECONDS, context=tls)
    try:
        connection.request("GET", target, headers={"User-Agent": f"meibo/{meibo.__version__}"})
        status = connection.getresponse().status
    except Exception as error:  # noqa: BLE001  # see send(); the message may contain the URL
        return safe_description(error)
    finally:
        connection.close()
    return None if 200 <= status < 300 else f"status {status}"


def _log_failure(reason: str) -> None:
    logger.warning("cannot send the heartbeat", extra={"reason": reason})
