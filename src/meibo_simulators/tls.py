"""A temporary certificate authority, so that the simulators serve real TLS on loopback."""

from __future__ import annotations

import functools
import ssl
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("localhost", "127.0.0.1", "::1")


@functools.cache
def _authority() -> tuple[ssl.SSLContext, bytes]:
    authority = trustme.CA(organization_name="Meibo simulators")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*NAMES).configure_cert(context)
    return context, authority.cert_pem.bytes()


def make_certificates(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """Return the server's TLS context and the PEM file of the certificate authority that clients must trust.

    The authority's key never leaves this process, so the file cannot be misused afterwards.
    """
    context, certificate = _authority()
    ca_file = directory / "ca.pem"
    ca_file.write_bytes(certificate)
    return context, ca_file
