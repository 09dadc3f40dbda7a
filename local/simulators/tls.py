"""A throw-away certificate authority, so that the simulators speak real TLS on loopback."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("localhost", "127.0.0.1", "::1")


def make_certificates(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """Make an authority and a server certificate; return the server's context and the authority's PEM file.

    The authority's key never leaves this process, so nothing that trusts the file can be deceived later.
    """
    authority = trustme.CA(organization_name="Meibo simulators")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*NAMES).configure_cert(context)
    ca_file = directory / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    return context, ca_file
