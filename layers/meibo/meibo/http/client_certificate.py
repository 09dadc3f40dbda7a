"""Read client certificates for mutual TLS from secrets. The formats are PFX and PEM."""

from __future__ import annotations

import base64
import binascii
import secrets
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from requests.adapters import HTTPAdapter

from meibo.errors import SecretError
from meibo.observability import logger
from meibo.secrets import string_value

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

CERTIFICATE_KEY: Final = "client_certificate"
PRIVATE_KEY_KEY: Final = "client_certificate_key"
PASSWORD_KEY: Final = "client_certificate_password"  # noqa: S105  # the name of the key in the secret
CERTIFICATE_KEYS: Final = (CERTIFICATE_KEY, PRIVATE_KEY_KEY, PASSWORD_KEY)
EXPIRES_SOON: Final = timedelta(days=30)


@dataclass(frozen=True)
class ClientCertificate:
    """A client certificate with its chain and private key."""

    chain: list[x509.Certificate] = field(repr=False)
    private_key: PrivateKeyTypes = field(repr=False)

    @classmethod
    def from_secret(cls, document: Mapping[str, Any]) -> Self | None:
        """Return the certificate in a secret, or None if the secret contains no certificate.

        ``client_certificate`` is a PFX file in base64, with the password in ``client_certificate_password``, or a
        certificate in PEM format, with the private key in ``client_certificate_key``. Raises SecretError with the
        invalid key of the secret, but without its value.
        """
        text, key = string_value(document, CERTIFICATE_KEY), string_value(document, PRIVATE_KEY_KEY)
        password = string_value(document, PASSWORD_KEY)
        if text is None and key is None and password is None:
            return None
        if text is None:
            _fail(CERTIFICATE_KEY, "a certificate, because the secret contains a key or password for it, found none")
        if "-----BEGIN" in text:
            if key is None:
                _fail(PRIVATE_KEY_KEY, "the private key in PEM format, found none")
            chain, private_key = _read_pem(text, key, password)
        else:
            if key is not None:
                _fail(PRIVATE_KEY_KEY, "no value, because the PFX file contains the private key")
            chain, private_key = _read_pfx(text, password)
        if chain[0].public_key() != private_key.public_key():
            _fail(PRIVATE_KEY_KEY, "the private key of the certificate, found the key of another certificate")
        return cls(chain, private_key)

    @property
    def not_after(self) -> datetime:
        """The time at which the certificate expires."""
        return self.chain[0].not_valid_after_utc

    def check_validity(self) -> None:
        """Raise SecretError if the certificate is not valid at this time."""
        now, problem = datetime.now(UTC), ""
        if now >= self.not_after:
            problem = f"expired on {self.not_after:%Y-%m-%d}"
        elif now < (not_before := self.chain[0].not_valid_before_utc):
            problem = f"is valid from {not_before:%Y-%m-%d}"
        if problem:
            _fail(CERTIFICATE_KEY, f"a valid certificate, found a certificate that {problem}")

    def log_expiry(self, host: str) -> None:
        """Log a warning if the certificate expires within 30 days. An alarm monitors these warnings."""
        now = datetime.now(UTC)
        if now >= self.not_after - EXPIRES_SOON:
            logger.warning(
                "client certificate expires soon",
                extra={"host": host, "expires": f"{self.not_after:%Y-%m-%d}", "days_left": (self.not_after - now).days},
            )

    def ssl_context(self) -> ssl.SSLContext:
        """Return a TLS context that presents the certificate and trusts the platform's certificate authorities.

        OpenSSL reads certificates and keys only from files. The files exist only during this call, in a folder that
        only the owner can read. The key is encrypted with a random password that is not stored.
        """
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  # slow to import

        pem, password = serialization.Encoding.PEM, secrets.token_hex(32).encode()
        encryption = serialization.BestAvailableEncryption(password)
        context = ssl.create_default_context()
        with tempfile.TemporaryDirectory(prefix="meibo-") as folder:
            chain, key = Path(folder, "certificate.pem"), Path(folder, "key.pem")
            chain.write_bytes(b"".join(certificate.public_bytes(pem) for certificate in self.chain))
            key.write_bytes(self.private_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption))
            context.load_cert_chain(chain, key, password)
        return context

    def adapter(self, connections: int) -> HTTPAdapter:
        """Return an adapter for a session of requests, whose connections present the certificate."""
        return _CertificateAdapter(self.ssl_context(), connections)


class _CertificateAdapter(HTTPAdapter):
    def __init__(self, context: ssl.SSLContext, connections: int) -> None:
        self._context = context
        super().__init__(pool_maxsize=connections, max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, ssl_context=self._context)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **options, ssl_context=self._context)


def _read_pfx(text: str, password: str | None) -> tuple[list[x509.Certificate], PrivateKeyTypes]:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  # slow to import
    from cryptography.hazmat.primitives.serialization import pkcs12  # noqa: PLC0415  # slow to import

    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        _fail(CERTIFICATE_KEY, "a PFX file in base64 or a certificate in PEM format, found other text")
    try:
        key, certificate, others = pkcs12.load_key_and_certificates(data, password.encode() if password else None)
    except (ValueError, UnsupportedAlgorithm):
        _fail(
            CERTIFICATE_KEY,
            f'a PFX file with the password in "{PASSWORD_KEY}", found a file that cannot be opened',
        )
    if key is None or certificate is None:
        _fail(CERTIFICATE_KEY, "a PFX file that contains a certificate and its private key")
    return [certificate, *others], key


def _read_pem(text: str, key: str, password: str | None) -> tuple[list[x509.Certificate], PrivateKeyTypes]:
    from cryptography import x509  # noqa: PLC0415  # slow to import
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  # slow to import
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415  # slow to import

    try:
        chain = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        _fail(CERTIFICATE_KEY, "a certificate in PEM format, found other text")
    try:
        return chain, load_pem_private_key(key.encode(), password.encode() if password else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        _fail(PRIVATE_KEY_KEY, f'a private key in PEM format, with "{PASSWORD_KEY}" only if the key is encrypted')


def _fail(key: str, expected: str) -> NoReturn:
    raise SecretError(f'secret: "{key}": expected {expected}; correct the secret') from None
