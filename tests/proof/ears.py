"""Everything that leaves the functions besides the archive itself, kept as text to be searched."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3

from local.simulators import Auth0Tenant, CybozuDomain

from .outside import Call, Invocation
from .world import World

# Ids of messages and of people stand where the design puts them: in the outcomes and in the dead letters' bodies.
_TOLD_TO = frozenset({"events:PutEvents", "stepfunctions:StartExecution"})


@dataclass
class Secrets:
    """What must be heard nowhere, by what it is."""

    planted: dict[str, str] = field(default_factory=dict, repr=False)

    def add(self, kind: str, *values: str) -> None:
        """Remember values that nobody may hear; short ones would be found by chance."""
        self.planted.update({value: kind for value in values if len(value) >= 8})

    def heard_in(self, text: str) -> list[str]:
        """Return what of it is in a text, with some of what surrounds it."""
        found = []
        for value, kind in self.planted.items():
            at = text.find(value)
            if at >= 0:
                found.append(f"{kind}: …{text[max(0, at - 120) : at + 60]}…")
        return found

    @contextmanager
    def of_tenant(self, tenant: Auth0Tenant) -> Iterator[None]:
        """Remember each token and each location as the tenant gives it, and its people."""
        issue, query = tenant.tokens.issue, tenant.files.query
        self.add("client secret", tenant.credentials()["client_secret"])
        for user in tenant.expected_users():
            self.add("e-mail address", user["email"])
            self.add("name", *(user[name] for name in ("name", "nickname", "family_name") if user.get(name)))

        def issuing(form: dict[str, Any]) -> dict[str, Any]:
            answer = issue(form)
            if "access_token" in answer:
                self.add("token", answer["access_token"], answer["access_token"].rpartition(".")[2])
            return answer

        def signing(path: str) -> str:
            text = query(path)
            for part in text.split("&"):
                name, _, value = part.partition("=")
                if name in ("X-Amz-Signature", "X-Amz-Security-Token"):
                    self.add(name, value)
            return text

        tenant.tokens.issue, tenant.files.query = issuing, signing  # type: ignore[method-assign]
        yield
        tenant.tokens.issue, tenant.files.query = issue, query  # type: ignore[method-assign]

    def of_domain(self, domain: CybozuDomain) -> None:
        """Remember the domain's password and people."""
        self.add("password", domain.credentials()["password"])
        for user in domain.expected_users():
            self.add("e-mail address", user["email"] or "")
            self.add("login name", user["code"] if "@" in user["code"] else "")
            self.add("name", user["name"] or "")


class Ears(logging.Handler):
    """Hears logs, metrics, errors, events and the workflow of one run."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.heard: list[tuple[str, str]] = []
        self._began = time.time()

    # -- logs

    def emit(self, record: logging.LogRecord) -> None:
        """Keep all of a record, what a formatter would leave out as well."""
        error = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        self.heard.append(("log", f"{record.name} {record.getMessage()} {vars(record)!r} {error}"))

    # -- calls

    def before(self, invocation: Invocation, call: Call) -> None:
        """Keep what is told to the workflow and the event bus, and the attributes of messages."""
        if call.name in _TOLD_TO:
            self.heard.append((call.name, repr(call.details)))
        if call.name == "sqs:SendMessage":
            told = {name: value for name, value in call.details.items() if name != "MessageBody"}
            self.heard.append((call.name, repr(told)))

    def after(self, invocation: Invocation, call: Call) -> None:
        """Nothing is told by an answer."""

    def raised(self, error: BaseException) -> None:
        """Keep an error that left a handler, with everything that is chained to it."""
        self.heard.append(("error", "".join(traceback.format_exception(error))))

    # -- what is left behind

    def look_at(self, world: World) -> None:
        """Keep what went through the Lambda service and the workflow, and what stands beside the archived files."""
        for function, event, outcome in world.recorder.calls:
            # The queue's messages are the people's own; what comes of them is not.
            told = [outcome.payload] if function == "ChangeMembers" else [event, outcome.payload]
            self.heard.append((f"invocation of {function}", json.dumps(told, ensure_ascii=False)))
        client = boto3.client("stepfunctions")
        for execution in client.list_executions(stateMachineArn=world.aws.state_machine_arn)["executions"]:
            if execution["startDate"].timestamp() < self._began - 1:
                continue
            history = client.get_execution_history(executionArn=execution["executionArn"], includeExecutionData=True)
            self.heard.append(("history", repr(history["events"])))
            self.heard.append(("execution", repr(world.aws.execution(*_of(execution["name"])))))
        for key in world.aws.keys(""):
            self.heard.append(("key", key))
            if key.startswith("runs/") or key.rpartition("/")[2] == "_manifest.json" or _is_record(key):
                self.heard.append((key, world.aws.read(key).decode()))
        for letter in world.aws.changes.take_dead_letters():
            attributes = {name: value for name, value in letter.items() if name not in ("Body", "ReceiptHandle")}
            self.heard.append(("dead letter's attributes", repr(attributes)))

    def search(self, secrets: Secrets) -> list[str]:
        """Return what was heard that must not be, each kind and place once."""
        found: dict[tuple[str, str], str] = {}
        for place, text in self.heard:
            for one in secrets.heard_in(text):
                found.setdefault((place, one.partition(":")[0]), f"{place}: {one}")
        return list(found.values())


def _is_record(key: str) -> bool:
    return key.startswith("parts/") and key.endswith(".json")


def _of(name: str) -> tuple[str, int]:
    run_id, _, attempt = name.rpartition("-")
    return run_id, int(attempt)


@contextmanager
def listening(world: World, ears: Ears) -> Iterator[None]:
    """Hear everything while this is open."""
    root, out = logging.getLogger(), io.StringIO()
    level = root.level
    root.setLevel(logging.INFO)
    root.addHandler(ears)
    world.watch, world.service.raised = ears, ears.raised
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            yield
    finally:
        root.removeHandler(ears)
        root.setLevel(level)
        world.watch, world.service.raised = None, None
    ears.heard.append(("output", out.getvalue()))
    ears.look_at(world)


Break = Callable[[World], object]
