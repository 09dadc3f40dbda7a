"""The cybozu.com client against a simulated domain that requires client certificates, over real mutual TLS."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from meibo.errors import ConfigurationError, MeiboError, ScopeMissingError, SecretError
from meibo.http.client_certificate import ClientCertificate
from meibo.providers.cybozu.client import CybozuClient, CybozuCredentials
from meibo.providers.cybozu.directory import stream_users_ndjson
from meibo.providers.cybozu.pagination import PagingReport
from meibo_local.template import read_template
from meibo_simulators import SimulatedDomain, Simulators
from meibo_simulators.cybozu.secure_access import PASSWORD, SecureAccess
from tests.support.clock import FakeClock


@pytest.fixture(params=[True, False], ids=["alert", "page"])
def domain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedDomain]:
    domain = SimulatedDomain(users=230, secure_access=SecureAccess(rejects_in_handshake=request.param))
    with Simulators(cybozu=[domain]) as simulators:
        for name, value in simulators.environment().items():
            monkeypatch.setenv(name, value)
        yield domain


def client_of(domain: SimulatedDomain, secret: dict[str, str]) -> CybozuClient:
    return CybozuClient(domain.base_url, CybozuCredentials.from_secret(secret), clock=FakeClock())


def login(domain: SimulatedDomain) -> dict[str, str]:
    return {"login": domain.account.login, "password": domain.account.password}


def access(domain: SimulatedDomain) -> SecureAccess:
    assert domain.secure_access is not None
    return domain.secure_access


@pytest.mark.parametrize("form", ["pfx", "pem", "api_token"])
def test_domain_is_read_with_a_client_certificate(domain: SimulatedDomain, form: str) -> None:
    certificate = access(domain).issue_pem("hr-export") if form == "pem" else access(domain).issue("hr-export")
    secret = domain.token_credentials() if form == "api_token" else login(domain)
    client = client_of(domain, {**secret, **certificate})

    assert b"".join(client.stream_csv("users")) == domain.expected_csv()
    assert sum(1 for _ in stream_users_ndjson(client, report=PagingReport())) > 0


def test_missing_certificate_is_named(domain: SimulatedDomain) -> None:
    expected: type[MeiboError] = ConfigurationError if access(domain).rejects_in_handshake else ScopeMissingError

    with pytest.raises(expected, match="client certificate"):
        b"".join(client_of(domain, login(domain)).stream_csv("users"))

    assert len(domain.requests) <= 1


def test_certificate_of_another_domain_is_rejected(domain: SimulatedDomain) -> None:
    secret = {**login(domain), **SecureAccess().issue("hr-export")}

    with pytest.raises(
        ConfigurationError, match=r"rejected the certificate in the secret \(.*\); issue a new certificate"
    ):
        b"".join(client_of(domain, secret).stream_csv("users"))


def test_expired_certificate_is_named_before_a_request(domain: SimulatedDomain) -> None:
    secret = {**login(domain), **access(domain).issue("hr-export", lifetime=timedelta(days=-1))}
    expired = datetime.now(UTC) - timedelta(days=1)

    with pytest.raises(SecretError) as error:
        client_of(domain, secret)

    assert str(error.value) == (
        'secret: "client_certificate": expected a valid certificate, found a certificate that expired on'
        f" {expired:%Y-%m-%d}; correct the secret"
    )
    assert not domain.requests


def test_certificate_of_a_domain_is_sent_to_its_secure_host() -> None:
    secret = {"login": "a", "password": "b", **SecureAccess().issue("a")}

    client = CybozuClient("https://example.cybozu.com", CybozuCredentials.from_secret(secret))

    assert client.host == "example.s.cybozu.com"


def test_secure_host_needs_a_certificate() -> None:
    credentials = CybozuCredentials.from_secret({"login": "a", "password": "b"})

    with pytest.raises(SecretError, match=r'expected "client_certificate", because example\.s\.cybozu\.com requires'):
        CybozuClient("https://example.s.cybozu.com", credentials)


# -- the keys of the secret


CANNOT_BE_OPENED = (
    'expected a PFX file with the password in "client_certificate_password", found a file that cannot be opened'
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"client_certificate_password": "wrong"}, CANNOT_BE_OPENED),
        ({"client_certificate_password": ""}, CANNOT_BE_OPENED),
        ({"client_certificate": "not base64!"}, "expected a PFX file in base64 or a certificate in PEM format"),
        ({"client_certificate": base64.b64encode(b"other").decode()}, CANNOT_BE_OPENED),
        ({"client_certificate_key": "-----BEGIN"}, "expected no value, because the PFX file contains the private key"),
        ({"client_certificate": ""}, "expected a certificate, because the secret contains a key or password for it"),
    ],
)
def test_faults_of_a_pfx_file_are_named(change: dict[str, str], message: str) -> None:
    secret = {**SecureAccess().issue("a"), **change}

    with pytest.raises(SecretError, match=message) as error:
        ClientCertificate.from_secret(secret)

    assert PASSWORD not in str(error.value)
    assert error.value.__cause__ is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"client_certificate_key": ""}, "expected the private key in PEM format, found none"),
        ({"client_certificate_key": "-----BEGIN PRIVATE KEY-----"}, "expected a private key in PEM format"),
        ({"client_certificate": "-----BEGIN CERTIFICATE-----"}, "expected a certificate in PEM format"),
        (SecureAccess().issue_pem("b"), None),
        (
            {"client_certificate_key": SecureAccess().issue_pem("b")["client_certificate_key"]},
            "expected the private key of the certificate, found the key of another certificate",
        ),
    ],
)
def test_faults_of_a_pem_pair_are_named(change: dict[str, str], message: str | None) -> None:
    secret = {**SecureAccess().issue_pem("a"), **change}
    if message is None:
        assert ClientCertificate.from_secret(secret) is not None
        return

    with pytest.raises(SecretError, match=message):
        ClientCertificate.from_secret(secret)


def test_key_is_never_written_unencrypted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pem = SecureAccess().issue_pem("a")
    certificate = ClientCertificate.from_secret(pem)
    assert certificate is not None
    written: list[bytes] = []
    write = Path.write_bytes

    def record(path: Path, data: bytes) -> int:
        written.append(data)
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", record)

    certificate.ssl_context()

    assert any(b"ENCRYPTED PRIVATE KEY" in data for data in written)
    assert not any(b"BEGIN PRIVATE KEY" in data or b"BEGIN EC PRIVATE KEY" in data for data in written)
    assert list(tmp_path.iterdir()) == []
    assert pem["client_certificate_key"] not in repr(certificate)


@pytest.mark.parametrize(("days", "warned"), [(29, True), (31, False)])
def test_expiry_is_logged_30_days_ahead_for_the_metric_filter(
    days: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    secure_access = SecureAccess()
    secret = {"login": "a", "password": "b", **secure_access.issue("a", lifetime=timedelta(days=days, minutes=1))}
    pattern = read_template()["Resources"]["ExpiringCertificates"]["Properties"]["FilterPattern"]

    CybozuClient("https://example.cybozu.com", CybozuCredentials.from_secret(secret))

    matching = [vars(record) for record in caplog.records if pattern == f'{{ $.message = "{record.getMessage()}" }}']
    expires = datetime.now(UTC) + timedelta(days=days, minutes=1)
    assert [(fields["host"], fields["expires"], fields["days_left"]) for fields in matching] == (
        [("example.s.cybozu.com", f"{expires:%Y-%m-%d}", days)] if warned else []
    )
