from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from meibo.archive.copy.connection import trust


def test_trusted_authorities_are_those_of_the_environment_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # given: two certificate authorities, because a process can contain two local systems
    files = [tmp_path / "first.pem", tmp_path / "second.pem"]
    for file in files:
        trustme.CA().cert_pem.write_to_path(str(file))

    monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    first = trust()
    monkeypatch.setenv("SSL_CERT_FILE", str(files[1]))
    second = trust()

    # then: the certificates of each authority are loaded once
    assert first.get_ca_certs(binary_form=True) != second.get_ca_certs(binary_form=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    assert trust() is first
