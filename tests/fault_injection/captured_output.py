"""Capture everything that leaves the functions except the archived files, to search it for secrets."""

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

# Parameters that carry user data by design: an archived file, a message on the queue, a secret.
_CONTENT_PARAMETERS = frozenset({"Body", "MessageBody", "SecretString"})
# Fields of an outcome record that contain user ids and the sender's text by design.
_OUTCOME_FIELDS = frozenset({"member", "requested_by", "change_id"})
_ESCAPED = re.compile(r"\\+u([0-9a-fA-F]{4})")


def _joined(text: str) -> str:
    # JSON escapes a character beyond U+FFFF as two surrogates.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# Undo the escapes of JSON, URLs and HTML.
_DECODERS: tuple[Callable[[str], str], ...] = (
    str,
    lambda text: _joined(_ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)),
    urllib.parse.unquote,
    html.unescape,
)


@dataclass
class Secrets:
    """Values that must not appear in any output, with their kinds."""

    planted: dict[str, str] = field(default_factory=dict, repr=False)
    # The tokens and locations that were issued since the last reset of the system.
    issued: dict[str, str] = field(default_factory=dict, repr=False)

    def add(self, kind: str, *values: str) -> None:
        """Add values to search for. Short values are ignored: they would match by chance."""
        self.planted.update({value: kind for value in values if len(value) >= 8})

    def find_in(self, text: str) -> list[str]:
        """Return the secrets that a string contains, each with its kind and the surrounding text."""
        leaks = []
        for decoded in dict.fromkeys(decode(text) for decode in _DECODERS):
            for value, kind in (*self.planted.items(), *self.issued.items()):
                index = decoded.find(value)
                if index >= 0:
                    leaks.append(f"{kind}: …{decoded[max(0, index - 120) : index + 60]}…")
        return leaks

    @contextmanager
    def track_tenant(self, tenant: SimulatedTenant) -> Iterator[None]:
        """Add the tenant's credentials and users, and the tokens and locations issued while the context is open."""
        issue, query = tenant.tokens.issue, tenant.files.query
        self.add("client secret", tenant.credentials()["client_secret"])
        for user in tenant.expected_users():
            self.add("e-mail address", user["email"])
            self.add("name", *(user[name] for name in ("name", "nickname", "family_name") if user.get(name)))

        def recorded_issue(form: dict[str, Any]) -> dict[str, Any]:
            response = issue(form)
            if "access_token" in response:
                token = response["access_token"]
                self.issued.update(dict.fromkeys((token, token.rpartition(".")[2]), "token"))
            return response

        def recorded_query(path: str) -> str:
            signed = query(path)
            for part in signed.split("&"):
                name, _, value = part.partition("=")
                if name in ("X-Amz-Signature", "X-Amz-Security-Token"):
                    self.issued[value] = name
            return signed

        tenant.tokens.issue, tenant.files.query = recorded_issue, recorded_query  # type: ignore[method-assign]
        yield
        tenant.tokens.issue, tenant.files.query = issue, query  # type: ignore[method-assign]

    def add_domain(self, domain: SimulatedDomain) -> None:
        """Add the domain's password and users."""
        self.add("password", domain.credentials()["password"])
        for user in domain.expected_users():
            self.add("e-mail address", user["email"] or "")
            self.add("login name", user["code"] if "@" in user["code"] else "")
            self.add("name", user["name"] or "")


class CapturedOutput(logging.Handler):
    """The logs, metrics, errors, events and workflow history of one run."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.entries: list[tuple[str, str]] = []
        self._started_at = time.time()

    # -- logs

    def emit(self, record: logging.LogRecord) -> None:
        """Add a log record with all its attributes, including those that a formatter would omit."""
        # moto's library for HTTP logs each request that it passes through. It is not a part of the functions.
        if record.name == "responses":
            return
        error = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        self.entries.append(("log", f"{record.name} {record.getMessage()} {vars(record)!r} {error}"))

    # -- calls

    def before(self, invocation: Invocation, call: Call) -> None:
        """Add the parameters of an AWS call: events, the workflow's input, attributes, metadata, names."""
        if service_of(call.name) != "HTTP":
            parameters = {name: value for name, value in call.details.items() if name not in _CONTENT_PARAMETERS}
            self.entries.append((call.name, repr(parameters)))

    def after(self, invocation: Invocation, call: Call) -> None:
        """Ignore responses: they do not leave the function."""

    def on_error(self, error: BaseException) -> None:
        """Add an error that a handler raised, with its chain of causes."""
        self.entries.append(("error", "".join(traceback.format_exception(error))))

    # -- after the run

    def collect(self, system: WholeSystem) -> None:
        """Add the invocations, the workflow's history, and the bucket's documents without the archived files."""
        for function, event, outcome in system.invocations.calls:
            # The queue's messages contain user ids by design; the function's response must not.
            documents = [outcome.payload] if function == "ChangeMembers" else [event, outcome.payload]
            self.entries.append((f"invocation of {function}", json.dumps(documents, ensure_ascii=False)))
        client = boto3.client("stepfunctions")
        for execution in client.list_executions(stateMachineArn=system.aws.state_machine_arn)["executions"]:
            if execution["startDate"].timestamp() < self._started_at - 1:
                continue
            history = client.get_execution_history(executionArn=execution["executionArn"], includeExecutionData=True)
            self.entries.append(("history", repr(history["events"])))
            run_id, _, attempt = execution["name"].rpartition("-")
            self.entries.append(("execution", repr(system.aws.execution(run_id, int(attempt)))))
        for key in system.aws.keys(""):
            self.entries.append(("key", key))
            if key.startswith("changes/"):
                self.entries += [(key, line) for line in _outcomes(system.aws.read(key).decode())]
            elif not _is_provider_data(key):
                self.entries.append((key, system.aws.read(key).decode()))
        for message in system.aws.changes.take_dead_letters():
            attributes = {name: value for name, value in message.items() if name not in ("Body", "ReceiptHandle")}
            self.entries.append(("attributes of a DLQ message", repr(attributes)))
            self.entries.append(("rejections of a DLQ message", _rejections(message["Body"])))

    def search(self, secrets: Secrets) -> list[str]:
        """Return the secrets in the output: the first leak of each kind in each place."""
        leaks: dict[tuple[str, str], str] = {}
        for place, text in self.entries:
            for leak in secrets.find_in(text):
                leaks.setdefault((place, leak.partition(":")[0]), f"{place}: {leak}")
        return list(leaks.values())


def _is_provider_data(key: str) -> bool:
    """Return whether an object holds data of a provider. All other objects must not contain user data."""
    is_document = key.endswith("/_manifest.json") if key.startswith("archive/") else key.endswith(".json")
    return key.startswith(("archive/", "parts/")) and not is_document


def _outcomes(lines: str) -> Iterator[str]:
    for line in lines.splitlines():
        fields = {name: value for name, value in json.loads(line).items() if name not in _OUTCOME_FIELDS}
        yield json.dumps(fields, ensure_ascii=False)


def _rejections(body: str) -> str:
    """Return the reasons that Meibo added to a rejected message, without the members."""
    try:
        change = json.loads(body)
    except ValueError:
        return ""
    rejections = change.get("rejections", []) if isinstance(change, dict) else []
    return json.dumps([{**rejection, "members": None} for rejection in rejections], ensure_ascii=False)


@contextmanager
def capture(system: WholeSystem) -> Iterator[CapturedOutput]:
    """Capture the output of the system while the context is open, and collect the documents at its end."""
    output = CapturedOutput()
    root, out = logging.getLogger(), io.StringIO()
    level = root.level
    root.setLevel(logging.INFO)
    root.addHandler(output)
    system.observer, system.service.on_error = output, output.on_error
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            yield output
    finally:
        root.removeHandler(output)
        root.setLevel(level)
        system.observer, system.service.on_error = None, None
    output.entries.append(("output", out.getvalue()))
    output.collect(system)
