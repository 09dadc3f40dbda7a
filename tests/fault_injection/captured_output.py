"""Everything that leaves the functions besides the archive itself, kept as text to be searched."""

from __future__ import annotations

import contextlib
import html
import io
import json
import logging
import re
import time
import traceback
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3

from meibo_simulators import SimulatedDomain, SimulatedTenant
from tests.fault_injection.external_calls import Call, Invocation
from tests.fault_injection.kill_points import service_of
from tests.fault_injection.system import WholeSystem

# What a call carries to where the design wants it: an archived file, a message of people's own.
_CARGO = frozenset({"Body", "MessageBody", "SecretString"})
# Where the design puts ids of people, and what those who sent a message wrote into it: the outcomes under changes/.
_OF_AN_OUTCOME = frozenset({"member", "requested_by", "change_id"})
# The same text as JSON, a URL and HTML may spell it.
_ESCAPED = re.compile(r"\\+u([0-9a-fA-F]{4})")


def _joined(text: str) -> str:
    # JSON escapes what is beyond 16 bits as two halves.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_SPELLINGS: tuple[Callable[[str], str], ...] = (
    str,
    lambda text: _joined(_ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)),
    urllib.parse.unquote,
    html.unescape,
)


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
        for spelled in dict.fromkeys(spelling(text) for spelling in _SPELLINGS):
            for value, kind in self.planted.items():
                at = spelled.find(value)
                if at >= 0:
                    found.append(f"{kind}: …{spelled[max(0, at - 120) : at + 60]}…")
        return found

    @contextmanager
    def of_tenant(self, tenant: SimulatedTenant) -> Iterator[None]:
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

    def of_domain(self, domain: SimulatedDomain) -> None:
        """Remember the domain's password and people."""
        self.add("password", domain.credentials()["password"])
        for user in domain.expected_users():
            self.add("e-mail address", user["email"] or "")
            self.add("login name", user["code"] if "@" in user["code"] else "")
            self.add("name", user["name"] or "")


class CapturedOutput(logging.Handler):
    """Hears logs, metrics, errors, events and the workflow of one run."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.heard: list[tuple[str, str]] = []
        self._began = time.time()

    # -- logs

    def emit(self, record: logging.LogRecord) -> None:
        """Keep all of a record, what a formatter would leave out as well."""
        # What moto is made with tells of each request that it lets through; it is no part of the functions.
        if record.name == "responses":
            return
        error = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        self.heard.append(("log", f"{record.name} {record.getMessage()} {vars(record)!r} {error}"))

    # -- calls

    def before(self, invocation: Invocation, call: Call) -> None:
        """Keep what AWS is told besides its cargo: events, the workflow's input, attributes, metadata, names."""
        if service_of(call.name) != "HTTP":
            told = {name: value for name, value in call.details.items() if name not in _CARGO}
            self.heard.append((call.name, repr(told)))

    def after(self, invocation: Invocation, call: Call) -> None:
        """Nothing is told by an answer."""

    def raised(self, error: BaseException) -> None:
        """Keep an error that left a handler, with everything that is chained to it."""
        self.heard.append(("error", "".join(traceback.format_exception(error))))

    # -- what is left behind

    def look_at(self, world: WholeSystem) -> None:
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
            if key.startswith("changes/"):
                self.heard += [(key, line) for line in _outcomes(world.aws.read(key).decode())]
            elif not _is_cargo(key):
                self.heard.append((key, world.aws.read(key).decode()))
        for letter in world.aws.changes.take_dead_letters():
            attributes = {name: value for name, value in letter.items() if name not in ("Body", "ReceiptHandle")}
            self.heard.append(("dead letter's attributes", repr(attributes)))
            self.heard.append(("dead letter's reasons", _reasons(letter["Body"])))

    def search(self, secrets: Secrets) -> list[str]:
        """Return what was heard that must not be, each kind and place once."""
        found: dict[tuple[str, str], str] = {}
        for place, text in self.heard:
            for one in secrets.heard_in(text):
                found.setdefault((place, one.partition(":")[0]), f"{place}: {one}")
        return list(found.values())


def _is_cargo(key: str) -> bool:
    """Tell whether an object holds what a provider delivered; all others are ours, and tell of nobody."""
    ours = key.endswith("/_manifest.json") if key.startswith("archive/") else key.endswith(".json")
    return key.startswith(("archive/", "parts/")) and not ours


def _outcomes(lines: str) -> Iterator[str]:
    for line in lines.splitlines():
        told = {name: value for name, value in json.loads(line).items() if name not in _OF_AN_OUTCOME}
        yield json.dumps(told, ensure_ascii=False)


def _reasons(body: str) -> str:
    """Return what Meibo added to a message that it rejected: why."""
    try:
        change = json.loads(body)
    except ValueError:
        return ""
    rejections = change.get("rejections", []) if isinstance(change, dict) else []
    return json.dumps([{**one, "members": None} for one in rejections], ensure_ascii=False)


def _of(name: str) -> tuple[str, int]:
    run_id, _, attempt = name.rpartition("-")
    return run_id, int(attempt)


@contextmanager
def listening(world: WholeSystem, ears: CapturedOutput) -> Iterator[None]:
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


Break = Callable[[WholeSystem], object]
