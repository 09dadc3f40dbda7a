"""The complete system, with every function in a Lambda container as ``sam build`` packaged it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from meibo_local.aws import local_aws
from meibo_local.lambda_service import LocalFunction
from meibo_local.template import ROOT
from meibo_simulators import SimulatedDomain, SimulatedTenant, Simulators
from tests.e2e.relay import relayed
from tests.e2e.sam_functions import BUILT, SAM, SamFunctions
from tests.support.stack import Invocations, System

FOLDER = ROOT / ".local/e2e"


@pytest.fixture(scope="session")
def built() -> Path:
    """Return the template that sam build wrote. Fail if it does not exist."""
    if not (SAM.exists() and BUILT.exists()):
        pytest.fail(
            "expected the SAM CLI in .venv-sam and the result of sam build, but one of them is missing; run: make e2e",
            pytrace=False,
        )
    return BUILT


@pytest.fixture(scope="session")
def system(built: Path) -> Iterator[System]:
    """A tenant, a domain, AWS, and the functions in containers."""
    tenant = SimulatedTenant("acme", users=300, organizations=12, members=5)
    domain = SimulatedDomain("example", users=130)
    invocations = Invocations()

    with Simulators([tenant], [domain]) as simulators:

        def serve(functions: list[LocalFunction], endpoint: str) -> SamFunctions:
            return SamFunctions(functions, invocations, FOLDER, endpoint, simulators.ca_file)

        with local_aws(
            # Each export starts a container, and the machine may have only two cores.
            parameters={"MaxParallelExports": "2"},
            environment=simulators.environment(),
            serve=serve,
        ) as aws:
            service = aws.service
            assert isinstance(service, SamFunctions)
            addresses = [aws.s3_endpoint, tenant.domain, tenant.file_host, domain.base_url]
            folders = [service.code_folder(function) for function in service.functions]
            with relayed(folders, [int(address.rsplit(":", 1)[1]) for address in addresses]):
                yield System(aws, simulators, invocations)
            service.forget_image()


@pytest.fixture(scope="session")
def containers(system: System) -> SamFunctions:
    """The service that invokes the functions."""
    assert isinstance(system.aws.service, SamFunctions)
    return system.aws.service
