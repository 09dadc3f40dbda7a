"""The condition of each alarm, produced on the local system, and what the operations page says to do about it."""

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
from tests.fault_injection.external_calls import Call, Invocation, InvocationKilled
from tests.fault_injection.system import ACCOUNT, DELIVERIES_OF_A_TICK, WholeSystem, world
from tests.template.conftest import PSEUDO_PARAMETERS, Template

pytestmark = pytest.mark.timeout(300)

WRONG = {"login": "Administrator", "password": "wrong"}
USERS: list[dict[str, Any]] = [{"dataset": "users", "connection_id": FIRST_CONNECTION}]
CYBOZU: list[dict[str, Any]] = [{"dataset": "users"}]
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
}


class AlwaysGone:
    """Lets every invocation vanish at its first call."""

    def before(self, invocation: Invocation, call: Call) -> None:
        invocation.killed = True
        raise InvocationKilled

    def after(self, invocation: Invocation, call: Call) -> None:
        pass


@pytest.fixture(scope="module")
def stack() -> Iterator[WholeSystem]:
    with world(users=60, organizations=2, cybozu_users=20) as running:
        yield running


@pytest.fixture
def everything(stack: WholeSystem) -> WholeSystem:
    stack.empty()
    return stack


@pytest.fixture(scope="module")
def template() -> Template:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", PSEUDO_PARAMETERS["AWS::Region"])
        # A stack at work: its schedule is on, and somebody may send changes.
        parameters = {"ScheduleState": "ENABLED", "ChangeSenders": f"arn:aws:iam::{ACCOUNT}:role/hr-sync"}
        return Template(sam_translate(read_template(), parameters), parameters)


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], float]:
    """Return a metric of the functions as CloudWatch sums it up, an age as its maximum.

    That the metrics go where the alarms look for them is asserted on the template.
    """
    counted = Counter[str]()
    add = observability.metrics.add_metric

    def adding(name: str, unit: Any, value: float) -> None:
        counted[name] = max(counted[name], int(value)) if name.endswith("Age") else counted[name] + int(value)
        add(name=name, unit=unit, value=value)

    monkeypatch.setattr(observability.metrics, "add_metric", adding)
    return lambda name: counted[name]


def goes_off(template: Template, name: str, value: float) -> bool:
    """Tell whether an alarm of the template goes off at a value of what it watches."""
    alarm = template.properties(name)
    return COMPARISONS[alarm["ComparisonOperator"]](value, float(alarm["Threshold"]))


def size(queue_url: str) -> int:
    answer = boto3.client("sqs").get_queue_attributes(
        QueueUrl=queue_url, AttributeNames=["ApproximateNumberOfMessages"]
    )
    return int(answer["Attributes"]["ApproximateNumberOfMessages"])


def test_a_run_that_lacks_an_export_fails_and_a_repair_fetches_only_what_is_missing(
    everything: WholeSystem, template: Template, metrics: Callable[[str], float]
) -> None:
    # given: a domain whose password is wrong
    everything.configure(USERS, CYBOZU, **{"meibo/example": WRONG})

    # when
    run_id = everything.run()

    # then: RunFailedAlarm has its failed execution, SilenceAlarm no complete run
    failed = int(everything.wait(run_id, 1) == "FAILED")
    assert goes_off(template, "RunFailedAlarm", failed)
    assert goes_off(template, "SilenceAlarm", metrics("CompleteRuns"))
    (missing,) = everything.run_manifest(run_id)["missing"]
    assert missing["error"] == "CredentialsRefusedError"

    # when: it is mended and the run repaired, as the page says
    everything.configure(USERS, CYBOZU)
    everything.tenant.requests.clear()
    outcome = everything.aws.invoke({"run_id": run_id, "repair": True})

    # then: only what was missing is fetched, and the alarms have no reason any more
    assert everything.wait(run_id, outcome.payload["attempt"]) == "SUCCEEDED"
    assert not goes_off(template, "SilenceAlarm", metrics("CompleteRuns"))
    assert list(everything.tenant.requests) == []
    assert len(everything.archived()) == 2


def test_a_tick_that_fails_to_the_end_is_kept_and_can_be_fired_again(
    everything: WholeSystem, template: Template
) -> None:
    # given: a configuration that is not valid
    everything.aws.configure("{", {})
    moment = everything.next_tick()

    # when: Lambda delivers the tick as often as the template says
    retries = template.properties("CreateExportsEventInvokeConfig")["MaximumRetryAttempts"]
    outcomes = [everything.aws.tick(moment) for _ in range(retries + 1)]

    # then: each fails, and the template sends such a tick to the queue that the alarm watches
    assert retries + 1 == DELIVERIES_OF_A_TICK
    assert {outcome.payload["errorType"] for outcome in outcomes} == {"ConfigurationError"}
    kept = template.properties("CreateExportsEventInvokeConfig")["DestinationConfig"]["OnFailure"]["Destination"]
    (watched,) = template.properties("ScheduleDeadLettersAlarm")["Dimensions"]
    assert (kept, watched["Value"]) == ("ScheduleDeadLetters.Arn", "ScheduleDeadLetters.QueueName")
    assert goes_off(template, "ScheduleDeadLettersAlarm", 1)

    # when: it is mended and the tick fired again, as the page says
    everything.configure([], CYBOZU)
    run_id = everything.run(moment)

    # then
    assert everything.run_manifest(run_id)["complete"] is True


def test_a_verification_that_fails_to_the_end_is_kept(everything: WholeSystem, template: Template) -> None:
    # given: an invocation that never comes to its end
    config = template.properties("VerifyArchiveEventInvokeConfig")
    everything.watch = AlwaysGone()

    # when: Lambda repeats it as often as the template says
    outcomes = [everything.invoke("VerifyArchive") for _ in range(config["MaximumRetryAttempts"] + 1)]

    # then: it left nothing, and the template sends it to the queue that the alarm watches
    assert all(outcome.failed for outcome in outcomes)
    assert everything.aws.keys("verifications/") == []
    assert config["DestinationConfig"]["OnFailure"]["Destination"] == "ScheduleDeadLetters.Arn"
    assert goes_off(template, "ScheduleDeadLettersAlarm", 1)

    # when: it is mended and invoked again, as the page says
    everything.watch = None
    everything.verify()

    # then
    assert len(everything.aws.keys("verifications/")) == 1


def test_an_export_that_shrinks_is_suspect(
    everything: WholeSystem, template: Template, metrics: Callable[[str], float]
) -> None:
    everything.configure(USERS, [])
    everything.run()
    assert not goes_off(template, "SuspectExportsAlarm", metrics("SuspectExports"))

    everything.configure([{**USERS[0], "limit": 3}], [])
    run_id = everything.run()

    assert goes_off(template, "SuspectExportsAlarm", metrics("SuspectExports"))
    (export,) = everything.run_manifest(run_id)["exports"]
    sanity = everything.aws.read_json(export["manifest_key"])["sanity"]
    assert (sanity["verdict"], sanity["previous_rows"]) == ("suspect", 30)

    # when: it stays so on the next day
    tomorrow = everything.next_tick() + timedelta(days=1)
    everything.run(tomorrow)

    # then
    assert metrics("SuspectExports") == 2

    # when: the new level is accepted, as the page says
    everything.configure([{**USERS[0], "limit": 3, "accept_from": f"{tomorrow:%Y-%m-%d}"}], [])
    everything.run(tomorrow + timedelta(days=1))

    # then
    assert metrics("SuspectExports") == 2


def test_an_object_that_somebody_wrote_over_is_damage(
    everything: WholeSystem, template: Template, metrics: Callable[[str], float]
) -> None:
    everything.configure([], CYBOZU)
    everything.run()
    assert everything.verify()["damaged"] == 0
    assert not goes_off(template, "DamageAlarm", metrics("DamagedObjects"))

    (archived,) = everything.archived().values()
    everything.aws.write(archived.manifest["object"]["key"], archived.body[:-1])

    assert everything.verify()["damaged"] == 1
    assert goes_off(template, "DamageAlarm", metrics("DamagedObjects"))


def test_export_that_a_verification_has_no_time_for_raises_an_alarm(
    everything: WholeSystem, template: Template, metrics: Callable[[str], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: an archive that is verified in time
    everything.configure([], CYBOZU)
    everything.run()
    assert everything.verify()["unchecked"] == 0
    assert not goes_off(template, "UncheckedExportsAlarm", metrics("UncheckedExports"))

    # when: an invocation has less time left than the end of it needs
    monkeypatch.setattr(LambdaContext, "get_remaining_time_in_millis", lambda _context: 45_000)
    everything.forget("verifications/")
    counts = everything.verify()

    # then: the export is reported as unchecked, not as verified or damaged
    assert (counts["exports"], counts["unchecked"], counts["damaged"]) == (1, 1, 0)
    assert goes_off(template, "UncheckedExportsAlarm", metrics("UncheckedExports"))
    (record,) = everything.aws.keys("verifications/")
    (unchecked,) = everything.aws.read_json(record)["could_not_check"]
    assert unchecked["key"].startswith("archive/provider=cybozu/source=example/dataset=users/")
    assert "time was used up" in unchecked["reason"]


def _change(everything: WholeSystem, *members: str) -> dict[str, Any]:
    organization = everything.tenant.organizations.ids()[0]
    change = {"version": 1, "change_id": "hr-1", "source": "acme", "organization_id": organization, "action": "add"}
    return {**change, "members": list(members)}


def test_a_rejected_member_is_counted_and_waits_as_a_dead_letter(
    everything: WholeSystem, template: Template, metrics: Callable[[str], float]
) -> None:
    # given
    everything.configure(USERS, [])
    everything.aws.changes.send(_change(everything, "auth0|0000000000000000000000ff"))

    # when
    while everything.aws.changes.source.poll():
        pass

    # then
    assert goes_off(template, "RejectedMembersAlarm", metrics("RejectedMembers"))
    assert goes_off(template, "ChangesDeadLettersAlarm", size(everything.aws.changes.dead_letters_url))
    assert not goes_off(template, "ChangesDeadLettersAlarm", size(everything.aws.changes.queue_url))


def test_a_change_that_nothing_can_be_done_for_grows_old_and_is_done_once_that_is_mended(
    everything: WholeSystem, template: Template, metrics: Callable[[str], float]
) -> None:
    # given: credentials that are refused
    wrong = {"client_id": "meibo-acme", "client_secret": "wrong"}
    everything.configure(USERS, [], **{"meibo/acme": wrong})
    person = next(iter(everything.tenant.expected_users()))["user_id"]
    everything.aws.changes.send(_change(everything, person))
    queue = get_backend("sqs")[ACCOUNT][REGION].queues[everything.aws.changes.queue_url.rpartition("/")[2]]

    # when: two hours pass, in which it is received again and again
    for _ in range(3):
        assert everything.aws.changes.source.poll()
        everything.let_time_pass()
    assert not goes_off(template, "ReturnedChangesAgeAlarm", metrics("OldestReturnedChangeAge"))
    (message,) = queue._messages
    sent = int(time.time() * 1000) - 2 * 3600 * 1000
    vars(message)["sent_timestamp"] = sent
    assert everything.aws.changes.source.poll()
    everything.let_time_pass()

    # then: it still waits, and each receive counts as a failure. SQS leaves a message that was received three times out
    # of its own metric, so two alarms watch the age.
    assert goes_off(template, "ChangesAgeAlarm", time.time() - sent / 1000)
    assert goes_off(template, "ReturnedChangesAgeAlarm", metrics("OldestReturnedChangeAge"))
    assert goes_off(template, "FailedChangeGroupsAlarm", metrics("FailedChangeGroups"))
    assert size(everything.aws.changes.dead_letters_url) == 0

    # when: the credentials are mended
    everything.configure(USERS, [])
    while everything.aws.changes.source.poll():
        pass

    # then
    assert everything.aws.changes.source.queue.size() == 0
    assert [line["outcome"] for line in everything.lines()] == ["applied"]


def test_a_change_whose_invocations_vanish_is_an_error_of_the_function_and_is_done_by_the_next(
    everything: WholeSystem, template: Template, metrics: Callable[[str], float]
) -> None:
    # given
    everything.configure(USERS, [])
    person = next(iter(everything.tenant.expected_users()))["user_id"]
    everything.aws.changes.send(_change(everything, person))
    batches = everything.aws.changes.source.batches
    batches.clear()

    # when: an invocation never comes to its end
    everything.watch = AlwaysGone()
    assert everything.aws.changes.source.poll()

    # then: it counts nothing itself, and Lambda counts an error
    assert metrics("FailedChangeGroups") == 0
    assert goes_off(template, "ChangeMembersErrorsAlarm", batches["failed"])

    # when: the next one does
    everything.watch = None
    everything.let_time_pass()
    while everything.aws.changes.source.poll():
        pass

    # then
    assert [line["outcome"] for line in everything.lines()] == ["applied"]


def test_the_operations_page_has_every_alarm_and_every_error(template: Template) -> None:
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    errors = (ROOT / "layers/meibo/meibo/errors.py").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| `")}

    alarms = set(template.of_type("AWS::CloudWatch::Alarm"))
    assert {f"`{name}`" for name in alarms} <= rows
    # Each has its condition produced above.
    assert set(re.findall(r'goes_off\(template, "(\w+)"', Path(__file__).read_text(encoding="utf-8"))) == alarms
    raised = set(re.findall(r"^class (\w+Error)\(", errors, re.MULTILINE)) - {"MeiboError", "BadFileError"}
    assert {name for name in raised if f"`{name}`" not in " ".join(rows)} == set()
