"""Record the permissions that the calls of a run need."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fault_injection.external_calls import Call, Invocation
from tests.support.iam import Need, action_of

_WRITES = {"s3:PutObject", "s3:CreateMultipartUpload"}


class PermissionRecorder:
    """Records the permissions that the functions' calls need."""

    def __init__(self, logical_ids: Mapping[str, str]) -> None:
        self.needs: set[Need] = set()
        self._logical_ids = logical_ids

    def before(self, invocation: Invocation, call: Call) -> None:
        """Record the permissions of an AWS call. IAM does not cover calls of a provider."""
        if "host" in call.details:
            return
        actions: tuple[str, ...] = (action_of(call.name),)
        if actions == ("s3:GetObject",) and "VersionId" in call.details:
            actions = ("s3:GetObjectVersion",)
        if call.name in _WRITES and "ObjectLockMode" in call.details:
            actions = (*actions, "s3:PutObjectRetention")
        for action in actions:
            prefix = call.details.get("Prefix") if action == "s3:ListBucket" else None
            self.needs.add(Need(call.function, action, self._resource(call), prefix))

    def workflow_call(self, call: Call) -> None:
        """Record the permissions of a call that the workflow makes itself."""
        self.before(Invocation(call.function), call)

    def after(self, invocation: Invocation, call: Call) -> None:
        """Ignore responses: they need no permission."""

    def _resource(self, call: Call) -> str:
        service, _, operation = call.name.partition(":")
        details = call.details
        arn = "arn:aws:{}:eu-central-1:123456789012:{}"
        if service == "s3":
            assert details["Bucket"] == self._logical_ids["bucket"], "expected the archive bucket"
            return "ArchiveBucket.Arn" + ("" if operation == "ListObjectsV2" else f"/{details['Key']}")
        if service == "lambda":
            return f"{self._logical_ids[details['FunctionName']]}.Arn"
        if service == "ssm":
            return arn.format("ssm", f"parameter{details.get('Name') or details['Path']}")
        if service == "secretsmanager":
            return arn.format("secretsmanager", f"secret:{details['SecretId']}-AbCdEf")
        if service == "events":
            (entry,) = details["Entries"]
            return arn.format("events", f"event-bus/{entry['EventBusName']}")
        if service == "stepfunctions":
            named = str(details.get("stateMachineArn") or details["executionArn"])
            return arn.format("states", named.split(":", 5)[5])
        if service == "sqs":
            return {
                self._logical_ids["queue"]: "ChangesQueue.Arn",
                self._logical_ids["dead"]: "ChangesDeadLetters.Arn",
            }[details["QueueUrl"]]
        raise AssertionError(f"{call.function} calls {call.name}, which has no known resource")
