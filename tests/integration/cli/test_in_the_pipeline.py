"""The report page of a run, and the verification by the template's function."""

from __future__ import annotations

import boto3

from meibo_simulators import SimulatedDomain, SimulatedTenant
from tests.support.stack import RUN, running_system


def test_run_ends_with_a_page_and_is_verified_by_the_function() -> None:
    tenant = SimulatedTenant("acme", users=40)
    tenant.switches.polls_until_completed = 0
    with running_system(tenant, SimulatedDomain("example", users=10)) as system:
        system.configure(
            system.auth0_source({"dataset": "users"}), system.cybozu_source({"dataset": "users", "format": "csv"})
        )
        assert system.run()["complete"]

        page = system.aws.read(f"reports/dt=2026-11-21/run={RUN}/index.html").decode()
        functions = boto3.client("lambda").list_functions()["Functions"]
        (name,) = [item["FunctionName"] for item in functions if "VerifyArchive" in item["FunctionName"]]
        outcome = system.aws.invoke_raw(name, b"{}")

        assert "The latest run is complete: 2 exports" in page
        assert not outcome.failed, outcome.payload
        assert outcome.payload == {"runs": 1, "exports": 2, "quick": 0, "damaged": 0, "unchecked": 0}
        (record,) = system.aws.keys("verifications/")
        assert system.aws.read_json(record)["damage"] == []
