"""Produce the condition of each alarm on the local system, then apply the fix from the operations page."""

from __future__ import annotations

import operator
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.backends import get_backend

from meibo import observability
from meibo_local.aws import REGION
from meibo_local.lambda_service import LambdaContext
from meibo_local.template import ROOT, read_template
from meibo_local.template import translate as sam_translate
from meibo_simulators import FIRST_CONNECTION
from meibo_simulators.cybozu.secure_access import SecureAccess
from tests.fault_injection.external_calls import Call, Invocation, InvocationKilled
from tests.fault_injection.system import ACCOUNT, DELIVERIES_OF_A_TICK, WholeSystem, start_system
from tests.support.changes import change_message
from tests.support.template import PSEUDO_PARAMETERS, Template

pytestmark = pytest.mark.timeout(300)

WRONG = {"login": "Administrator", "password": "wrong"}
USERS: list[dict[str, Any]] = [{"dataset": "users", "connection_id": FIRST_CONNECTION}]
CYBOZU: list[dict[str, Any]] = [{"dataset": "users"}]
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
}


class KillEveryInvocation:
    """Kills every invocation at its first call."""

    def before(self, invocation: Invocation, call: Call) -> None:
        invocation.killed = True
        raise InvocationKilled

    def after(self, invocation: Invocation, call: Call) -> None:
        pass


@pytest.fixture(scope="module")
def stack() -> Iterator[WholeSystem]:
    with start_system(users=60, organizations=2, cybozu_users=20) as running:
        yield running


@pytest.fixture
def system(stack: WholeSystem) -> WholeSystem:
    stack.reset()
    return stack


@pytest.fixture(scope="module")
def template() -> Template:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", PSEUDO_PARAMETERS["AWS::Region"])
        # A stack in use: the schedule is enabled, and a role may send changes.
        parameters = {"ScheduleState": "ENABLED", "ChangeSenders": f"arn:aws:iam::{ACCOUNT}:role/hr-sync"}
        return Template(sam_translate(read_template(), parameters), parameters)


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], float]:
    """Return a function that returns a metric's sum, or the maximum of an age.

    The template's tests check that the alarms watch the namespace and dimensions of these metrics.
    """
    totals = Counter[str]()
    add = observability.metrics.add_metric

    def counted_add(name: str, unit: Any, value: float) -> None:
        totals[name] = max(totals[name], int(value)) if name.endswith("Age") else totals[name] + int(value)
        add(name=name, unit=unit, value=value)

    monkeypatch.setattr(observability.metrics, "add_metric", counted_add)
    return lambda name: totals[name]


def is_in_alarm(template: Template, name: str, value: float) -> bool:
    """Return whether an alarm of the template is in alarm state at a value of its metric."""
    alarm = template.properties(name)
    return COMPARISONS[alarm["ComparisonOperator"]](value, float(alarm["Threshold"]))


def queue_size(queue_url: str) -> int:
    answer = boto3.client("sqs").get_queue_attributes(
        QueueUrl=queue_url, AttributeNames=["ApproximateNumberOfMessages"]
    )
    return int(answer["Attributes"]["ApproximateNumberOfMessages"])


def test_incomplete_run_raises_alarms_and_repair_fetches_only_missing_exports(
    system: WholeSystem, template: Template, metrics: Callable[[str], float]
) -> None:
    # given: a domain with a wrong password
    system.configure_exports(USERS, CYBOZU, **{"meibo/example": WRONG})

    run_id = system.run()

    # then: the failed execution triggers RunFailedAlarm, and the lack of a complete run triggers SilenceAlarm
    failed = int(system.wait(run_id, 1) == "FAILED")
    assert is_in_alarm(template, "RunFailedAlarm", failed)
    assert is_in_alarm(template, "SilenceAlarm", metrics("CompleteRuns"))
    (missing,) = system.run_manifest(run_id)["missing"]
    assert missing["error"] == "CredentialsRefusedError"

    # when: the password is fixed and the run is repaired
    system.configure_exports(USERS, CYBOZU)
    system.tenant.requests.clear()
    outcome = system.aws.invoke({"run_id": run_id, "repair": True})

    # then: only the missing export is fetched, and the alarm conditions end
    assert system.wait(run_id, outcome.payload["attempt"]) == "SUCCEEDED"
    assert not is_in_alarm(template, "SilenceAlarm", metrics("CompleteRuns"))
    assert list(system.tenant.requests) == []
    assert len(system.archived()) == 2


def test_tick_that_exhausts_its_retries_goes_to_the_dead_letter_queue_and_can_be_invoked_again(
    system: WholeSystem, template: Template
) -> None:
    # given: an invalid configuration
    system.aws.configure("{", {})
    moment = system.next_tick()

    # when: Lambda delivers the tick with the template's retries
    retries = template.properties("CreateExportsEventInvokeConfig")["MaximumRetryAttempts"]
    outcomes = [system.aws.tick(moment) for _ in range(retries + 1)]

    # then: every delivery fails, and the failure destination is the queue that the alarm watches
    assert retries + 1 == DELIVERIES_OF_A_TICK
    assert {outcome.payload["errorType"] for outcome in outcomes} == {"ConfigurationError"}
    destination = template.properties("CreateExportsEventInvokeConfig")["DestinationConfig"]["OnFailure"]["Destination"]
    (dimension,) = template.properties("ScheduleDeadLettersAlarm")["Dimensions"]
    assert (destination, dimension["Value"]) == ("ScheduleDeadLetters.Arn", "ScheduleDeadLetters.QueueName")
    assert is_in_alarm(template, "ScheduleDeadLettersAlarm", 1)

    # when: the configuration is fixed and the tick is invoked again
    system.configure_exports([], CYBOZU)
    run_id = system.run(moment)

    assert system.run_manifest(run_id)["complete"] is True


def test_verification_that_exhausts_its_retries_goes_to_the_dead_letter_queue(
    system: WholeSystem, template: Template
) -> None:
    # given: invocations that never end
    config = template.properties("VerifyArchiveEventInvokeConfig")
    system.observer = KillEveryInvocation()

    # when: Lambda retries as often as the template configures
    outcomes = [system.invoke("VerifyArchive") for _ in range(config["MaximumRetryAttempts"] + 1)]

    # then: nothing is recorded, and the failure destination is the queue that the alarm watches
    assert all(outcome.failed for outcome in outcomes)
    assert system.aws.keys("verifications/") == []
    assert config["DestinationConfig"]["OnFailure"]["Destination"] == "ScheduleDeadLetters.Arn"
    assert is_in_alarm(template, "ScheduleDeadLettersAlarm", 1)

    # when: the function works and is invoked again
    system.observer = None
    system.verify()

    assert len(system.aws.keys("verifications/")) == 1


def test_shrunken_export_is_suspect_until_the_new_level_is_accepted(
    system: WholeSystem, template: Template, metrics: Callable[[str], float]
) -> None:
    system.configure_exports(USERS, [])
    system.run()
    assert not is_in_alarm(template, "SuspectExportsAlarm", metrics("SuspectExports"))

    system.configure_exports([{**USERS[0], "limit": 3}], [])
    run_id = system.run()

    assert is_in_alarm(template, "SuspectExportsAlarm", metrics("SuspectExports"))
    (export,) = system.run_manifest(run_id)["exports"]
    sanity = system.aws.read_json(export["manifest_key"])["sanity"]
    assert (sanity["verdict"], sanity["previous_rows"]) == ("suspect", 30)

    # when: the next day's export is as small
    tomorrow = system.next_tick() + timedelta(days=1)
    system.run(tomorrow)

    assert metrics("SuspectExports") == 2

    # when: the new level is accepted
    system.configure_exports([{**USERS[0], "limit": 3, "accept_from": f"{tomorrow:%Y-%m-%d}"}], [])
    system.run(tomorrow + timedelta(days=1))

    assert metrics("SuspectExports") == 2


def test_overwritten_object_is_reported_as_damage(
    system: WholeSystem, template: Template, metrics: Callable[[str], float]
) -> None:
    system.configure_exports([], CYBOZU)
    system.run()
    assert system.verify()["damaged"] == 0
    assert not is_in_alarm(template, "DamageAlarm", metrics("DamagedObjects"))

    (archived,) = system.archived().values()
    system.aws.write(archived.manifest["object"]["key"], archived.body[:-1])

    assert system.verify()["damaged"] == 1
    assert is_in_alarm(template, "DamageAlarm", metrics("DamagedObjects"))


def test_export_that_was_not_verified_in_time_raises_an_alarm(
    system: WholeSystem, template: Template, metrics: Callable[[str], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: an archive that is small enough for a verification
    system.configure_exports([], CYBOZU)
    system.run()
    assert system.verify()["unchecked"] == 0
    assert not is_in_alarm(template, "UncheckedExportsAlarm", metrics("UncheckedExports"))

    # when: the invocation has less time than it reserves for its end
    monkeypatch.setattr(LambdaContext, "get_remaining_time_in_millis", lambda _context: 45_000)
    system.remove("verifications/")
    counts = system.verify()

    # then: the export is reported as unchecked, not as verified or damaged
    assert (counts["exports"], counts["unchecked"], counts["damaged"]) == (1, 1, 0)
    assert is_in_alarm(template, "UncheckedExportsAlarm", metrics("UncheckedExports"))
    (record,) = system.aws.keys("verifications/")
    (unchecked,) = system.aws.read_json(record)["could_not_check"]
    assert unchecked["key"].startswith("archive/provider=cybozu/source=example/dataset=users/")
    assert unchecked["reason"] == "the invocation ran out of time; a later verification includes it"


def _change(system: WholeSystem, *members: str) -> dict[str, Any]:
    return change_message(system.tenant.organizations.ids()[0], *members)


def test_rejected_member_is_counted_and_sent_to_the_dead_letter_queue(
    system: WholeSystem, template: Template, metrics: Callable[[str], float]
) -> None:
    system.configure_exports(USERS, [])
    system.aws.changes.send(_change(system, "auth0|0000000000000000000000ff"))

    while system.aws.changes.source.poll():
        pass

    assert is_in_alarm(template, "RejectedMembersAlarm", metrics("RejectedMembers"))
    assert is_in_alarm(template, "ChangesDeadLettersAlarm", queue_size(system.aws.changes.dead_letters_url))
    assert not is_in_alarm(template, "ChangesDeadLettersAlarm", queue_size(system.aws.changes.queue_url))


def test_change_with_refused_credentials_raises_alarms_and_is_applied_after_the_fix(
    system: WholeSystem, template: Template, metrics: Callable[[str], float]
) -> None:
    # given: credentials that the provider rejects
    wrong = {"client_id": "meibo-acme", "client_secret": "wrong"}
    system.configure_exports(USERS, [], **{"meibo/acme": wrong})
    person = next(iter(system.tenant.expected_users()))["user_id"]
    system.aws.changes.send(_change(system, person))
    queue = get_backend("sqs")[ACCOUNT][REGION].queues[system.aws.changes.queue_url.rpartition("/")[2]]

    # when: two hours pass, and the message is received repeatedly
    for _ in range(3):
        assert system.aws.changes.source.poll()
        system.show_hidden_messages()
    assert not is_in_alarm(template, "ReturnedChangesAgeAlarm", metrics("OldestReturnedChangeAge"))
    (message,) = queue._messages
    sent = int(time.time() * 1000) - 2 * 3600 * 1000
    vars(message)["sent_timestamp"] = sent
    assert system.aws.changes.source.poll()
    system.show_hidden_messages()

    # then: the message is still on the queue, and each receive counts as a failure. SQS excludes a message that was
    # received three times from its own metric, so two alarms watch the age.
    assert is_in_alarm(template, "ChangesAgeAlarm", time.time() - sent / 1000)
    assert is_in_alarm(template, "ReturnedChangesAgeAlarm", metrics("OldestReturnedChangeAge"))
    assert is_in_alarm(template, "FailedChangeGroupsAlarm", metrics("FailedChangeGroups"))
    assert queue_size(system.aws.changes.dead_letters_url) == 0

    # when: the credentials are fixed
    system.configure_exports(USERS, [])
    while system.aws.changes.source.poll():
        pass

    assert system.aws.changes.source.queue.size() == 0
    assert [line["outcome"] for line in system.outcomes()] == ["applied"]


def test_change_of_a_killed_invocation_counts_as_a_function_error_and_is_applied_by_the_next(
    system: WholeSystem, template: Template, metrics: Callable[[str], float]
) -> None:
    system.configure_exports(USERS, [])
    person = next(iter(system.tenant.expected_users()))["user_id"]
    system.aws.changes.send(_change(system, person))
    batches = system.aws.changes.source.batches
    batches.clear()

    # when: an invocation is killed
    system.observer = KillEveryInvocation()
    assert system.aws.changes.source.poll()

    # then: it emits no metric of its own, and Lambda counts an error
    assert metrics("FailedChangeGroups") == 0
    assert is_in_alarm(template, "ChangeMembersErrorsAlarm", batches["failed"])

    # when: the next invocation completes
    system.observer = None
    system.show_hidden_messages()
    while system.aws.changes.source.poll():
        pass

    assert [line["outcome"] for line in system.outcomes()] == ["applied"]


def test_expiring_certificate_raises_an_alarm_until_it_is_replaced(
    system: WholeSystem, template: Template, caplog: pytest.LogCaptureFixture
) -> None:
    pattern = template.properties("ExpiringCertificates")["FilterPattern"]

    def warnings_of_a_run(lifetime: timedelta) -> int:
        certificate = SecureAccess().issue("hr-export", lifetime=lifetime)
        system.configure_exports([], CYBOZU, **{"meibo/example": {**system.domain.credentials(), **certificate}})
        caplog.clear()
        assert system.wait(system.run(), 1) == "SUCCEEDED"
        return sum(pattern == f'{{ $.message = "{record.getMessage()}" }}' for record in caplog.records)

    # given: a domain whose client certificate expires in 20 days
    assert is_in_alarm(template, "ExpiringCertificatesAlarm", warnings_of_a_run(timedelta(days=20)))

    # when: the certificate is replaced
    assert not is_in_alarm(template, "ExpiringCertificatesAlarm", warnings_of_a_run(timedelta(days=365)))


def test_operations_page_lists_every_alarm_and_every_error(template: Template) -> None:
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    errors = (ROOT / "layers/meibo/meibo/errors.py").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| `")}

    alarms = set(template.of_type("AWS::CloudWatch::Alarm"))
    assert {f"`{name}`" for name in alarms} <= rows
    # The tests above produce the condition of each alarm.
    assert set(re.findall(r'is_in_alarm\(template, "(\w+)"', Path(__file__).read_text(encoding="utf-8"))) == alarms
    raised = set(re.findall(r"^class (\w+Error)\(", errors, re.MULTILINE)) - {"MeiboError", "BadFileError"}
    assert {name for name in raised if f"`{name}`" not in " ".join(rows)} == set()
