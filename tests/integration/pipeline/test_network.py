"""Both network shapes of the stack with real mutual TLS, ``meibo run`` through a proxy, and no route to AWS."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from meibo import aws
from meibo.errors import AwsBusyError
from meibo.secrets import read_configuration
from meibo_simulators import SimulatedDomain, SimulatedTenant
from meibo_simulators.cybozu.secure_access import SecureAccess
from meibo_simulators.proxy import SimulatedProxy
from tests.integration.cli.conftest import invoke
from tests.support.local_runs import local_runs
from tests.support.stack import running_system

AUTH0 = [{"dataset": "users"}, {"dataset": "organizations"}]
CYBOZU = [{"dataset": "users"}, {"dataset": "members", "format": "ndjson"}]
VPC = {"SubnetIds": "subnet-0123456789abcdef0", "SecurityGroupIds": "sg-0123456789abcdef0"}


def new_tenant() -> SimulatedTenant:
    tenant = SimulatedTenant("acme", users=60, organizations=3)
    tenant.switches.polls_until_completed = 0
    return tenant


@pytest.mark.parametrize("parameters", [{}, VPC], ids=["no-vpc", "vpc"])
def test_stack_is_deployed_and_archives_with_a_client_certificate(parameters: dict[str, str]) -> None:
    domain = SimulatedDomain("example", users=20, secure_access=SecureAccess())
    with running_system(new_tenant(), domain, **parameters) as system:
        system.configure(system.auth0_source(*AUTH0), system.cybozu_source(*CYBOZU))

        manifest = system.run()

    assert (manifest["complete"], manifest["counts"]["archived"]) == (True, 4)


def test_meibo_run_archives_through_a_proxy_and_with_a_client_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        SimulatedProxy(credentials=("meibo", "p@ss:word")) as proxy,
        local_runs(tmp_path, monkeypatch, secure_access=SecureAccess()) as runs,
    ):
        runs.configure(AUTH0, CYBOZU)
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)

        result = invoke("run")
        check = invoke("check")

    assert result.status == 0, result.output + result.errors
    assert "4 of 4 exports archived" in result.output + result.errors
    assert check.status == 0, check.output + check.errors
    assert "client certificate that expires on" in check.output
    assert "ss:word" not in result.output + result.errors + check.output + check.errors
    assert set(proxy.connections) >= {runs.tenant.domain, runs.tenant.file_host, runs.domain.host}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The environment of a function whose clients of AWS make one attempt."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "ap-northeast-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    aws.clear_clients()
    yield monkeypatch
    aws.clear_clients()


@pytest.fixture
def unreachable_port() -> Iterator[int]:
    """A port whose connections time out, because the kernel drops them: its queue of connections is full."""
    with socket.socket() as server, socket.socket() as first:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        first.connect(server.getsockname())
        yield server.getsockname()[1]


def test_function_without_a_route_to_aws_reports_what_to_check(
    environment: pytest.MonkeyPatch, unreachable_port: int
) -> None:
    environment.setenv("AWS_ENDPOINT_URL_SSM", f"http://127.0.0.1:{unreachable_port}")
    environment.setattr(aws, "_CONNECT_TIMEOUT_SECONDS", 0.1)

    with pytest.raises(AwsBusyError) as caught:
        read_configuration("/meibo/sources")

    assert str(caught.value) == (
        "127.0.0.1 cannot be reached (ConnectTimeoutError); check HTTPS_PROXY and, for functions in a VPC, the route to"
        " AWS services and the outbound rules of the security groups"
    )


def test_unreachable_proxy_is_reported_without_its_credentials(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", "http://user:s3cr3t@127.0.0.1:1")

    with pytest.raises(AwsBusyError) as caught:
        read_configuration("/meibo/sources")

    assert str(caught.value) == (
        "an AWS service cannot be reached (ProxyConnectionError); check HTTPS_PROXY and, for functions in a VPC, the"
        " route to AWS services and the outbound rules of the security groups"
    )
