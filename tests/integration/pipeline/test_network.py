"""The stack in both network shapes with real mutual TLS, and ``meibo run`` through a real proxy."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from meibo_simulators import SimulatedDomain, SimulatedTenant
from meibo_simulators.cybozu.secure_access import SecureAccess
from tests.integration.cli.conftest import invoke
from tests.support.local_runs import local_runs
from tests.support.proxies import PASSWORD, USER, running_proxy
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
        running_proxy("--basic-auth", f"{USER}:{PASSWORD}") as address,
        local_runs(tmp_path, monkeypatch, secure_access=SecureAccess()) as runs,
    ):
        runs.configure(AUTH0, CYBOZU)
        monkeypatch.setenv("HTTPS_PROXY", f"http://{USER}:{quote(PASSWORD)}@{address}")

        result = invoke("run")
        check = invoke("check")

    assert result.status == 0, result.output + result.errors
    assert "4 of 4 exports archived" in result.output + result.errors
    assert check.status == 0, check.output + check.errors
    assert "client certificate that expires on" in check.output
    assert PASSWORD not in result.output + result.errors + check.output + check.errors
