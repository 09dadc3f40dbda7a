"""Client certificates of a domain (セキュアアクセス).

https://jp.cybozu.help/general/ja/admin/list_security/list_access/secureaccess.html
"""

from __future__ import annotations

import base64
import ssl
from datetime import UTC, datetime, timedelta

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key, pkcs12

PASSWORD = "simulated-pfx-password"  # noqa: S105 - opens the simulated certificates


class SecureAccess:
    """The client certificates of one domain.

    Cybozu does not document the response to a request without a certificate. With ``rejects_in_handshake``, the server
    sends a TLS alert. Otherwise, ``Access`` returns a 403 page. A certificate of another authority always causes a TLS
    alert.
    """

    def __init__(self, *, rejects_in_handshake: bool = True) -> None:
        self.rejects_in_handshake = rejects_in_handshake
        self._authority = trustme.CA(organization_name="Client certificates of a simulated domain")

    def require(self, context: ssl.SSLContext) -> None:
        """Configure the TLS context of a server to require or request the certificates of this domain."""
        context.verify_mode = ssl.CERT_REQUIRED if self.rejects_in_handshake else ssl.CERT_OPTIONAL
        self._authority.configure_trust(context)

    def issue(self, user: str, *, lifetime: timedelta = timedelta(days=365)) -> dict[str, str]:
        """Return the keys of a secret with a new certificate as a PFX file, which has expired if ``lifetime`` < 0."""
        pem = self.issue_pem(user, lifetime=lifetime)
        pfx = pkcs12.serialize_key_and_certificates(
            user.encode(),
            load_pem_private_key(pem["client_certificate_key"].encode(), None),  # type: ignore[arg-type]  # an EC key
            x509.load_pem_x509_certificate(pem["client_certificate"].encode()),
            None,
            BestAvailableEncryption(PASSWORD.encode()),
        )
        return {"client_certificate": base64.b64encode(pfx).decode(), "client_certificate_password": PASSWORD}

    def issue_pem(self, user: str, *, lifetime: timedelta = timedelta(days=365)) -> dict[str, str]:
        """Return the keys of a secret with a new certificate and its private key in PEM format."""
        end = datetime.now(UTC) + lifetime
        issued = self._authority.issue_cert(f"{user}@example.com", not_before=end - timedelta(days=1096), not_after=end)
        return {
            "client_certificate": issued.cert_chain_pems[0].bytes().decode(),
            "client_certificate_key": issued.private_key_pem.bytes().decode(),
        }
