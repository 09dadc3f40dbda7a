"""The S3 side: one object, written once, with a checksum that S3 verifies."""

from __future__ import annotations

import hashlib
import re
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from meibo.archive.copy.connection import BROKEN, Connection, retry_after, told
from meibo.archive.copy.stop import Patience
from meibo.aws import busy_error, is_busy_code, put_if_absent
from meibo.errors import ArchiveConflictError, AwsBusyError, ConfigurationError, CopyBrokenError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

    from meibo.archive.copy.digest import Checksum, FileDigest
    from meibo.archive.copy.model import CopyOptions, Counts, Target
    from meibo.archive.copy.stop import Stop

SIGNED_SECONDS = 900
READ_BACK_BYTES = 1024 * 1024
CODE = re.compile(rb"<Code>(\w+)</Code>")
ENDPOINT = re.compile(rb"<Endpoint>([\w.-]+)</Endpoint>")

REFUSED = frozenset(
    {"AccessDenied", "NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled"}
)
"""Codes that no retry mends."""

CONFLICT = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


class Written(NamedTuple):
    """An object that is there now."""

    etag: str
    version_id: str | None
    already_there: bool


class Part(NamedTuple):
    """One part that S3 has."""

    number: int
    etag: str
    checksum: str


class Object:
    """Writes the target's object, whole or in parts, and never over another."""

    def __init__(self, target: Target, checksum: Checksum) -> None:
        self._target = target
        self._client = target.client
        self._checksum = checksum
        self._upload_id: str | None = None
        self._beginning = threading.Lock()
        # In the older regions boto3 presigns with SigV2, which S3 refuses for KMS keys and cannot cover a
        # checksum.
        self._client.meta.events.register(
            "choose-signer.s3.UploadPart", _sign_with_v4, unique_id="meibo-presign-parts-with-v4"
        )

    @property
    def _name(self) -> dict[str, Any]:
        return {"Bucket": self._target.bucket, "Key": self._target.key}

    @property
    def _properties(self) -> dict[str, Any]:
        properties: dict[str, Any] = {"ContentType": self._target.content_type}
        if self._target.metadata:
            properties["Metadata"] = dict(self._target.metadata)
        if self._target.object_lock is not None:
            properties["ObjectLockMode"] = self._target.object_lock.mode
            properties["ObjectLockRetainUntilDate"] = self._target.object_lock.retain_until
        return properties

    def _checksum_parameter(self, value: str) -> dict[str, Any]:
        return {f"Checksum{self._checksum.name}": value}

    def begin(self) -> None:
        """Create the multipart upload, once."""
        with self._beginning:
            if self._upload_id is None:
                self._upload_id = self._create()

    def _create(self) -> str:
        try:
            answer = self._client.create_multipart_upload(
                **self._name,
                **self._properties,
                ChecksumAlgorithm=self._checksum.name,
                ChecksumType="FULL_OBJECT",
            )
        except (ClientError, BotoCoreError) as error:
            raise _named("CreateMultipartUpload", error) from error
        return answer["UploadId"]

    def sign(self, number: int, checksum: str) -> tuple[str, dict[str, str]]:
        """Presign the upload of a part with its checksum; return the URL and the headers that it signs."""
        url = self._client.generate_presigned_url(
            "upload_part",
            Params={
                **self._name,
                "UploadId": self._upload_id,
                "PartNumber": number,
                **self._checksum_parameter(checksum),
            },
            ExpiresIn=SIGNED_SECONDS,
        )
        return url, {f"x-amz-checksum-{self._checksum.name.lower()}": checksum}

    def complete(self, parts: Sequence[Part], digest: FileDigest) -> Written:
        """Make the object visible if its key is free, and have S3 check its size and checksum."""
        listed: list[Any] = [
            {"PartNumber": part.number, "ETag": part.etag, **self._checksum_parameter(part.checksum)} for part in parts
        ]
        try:
            answer: Mapping[str, Any] = self._client.complete_multipart_upload(
                **self._name,
                UploadId=self._upload_id or "",
                MultipartUpload={"Parts": listed},
                ChecksumType="FULL_OBJECT",
                MpuObjectSize=digest.bytes,
                IfNoneMatch="*",
                **self._checksum_parameter(digest.checksum),
            )
        except ClientError as error:
            # NoSuchUpload: botocore tried again after an answer that got lost, and the first try had
            # succeeded.
            if _code(error) in CONFLICT | {"NoSuchUpload"} or _status(error) == 412:
                written = self._compare(digest, "CompleteMultipartUpload", _code(error))
                if _code(error) != "NoSuchUpload":
                    self.abort()
                return written
            raise _named("CompleteMultipartUpload", error) from error
        except BotoCoreError as error:
            raise _named("CompleteMultipartUpload", error) from error
        self._upload_id = None
        return Written(answer["ETag"].strip('"'), _version(answer), already_there=False)

    def put(self, data: memoryview, digest: FileDigest, wait: Callable[[float], None]) -> Written:
        """Write a file of one part with PutObject; ``wait`` sleeps between attempts that meet another write."""
        try:
            answer = put_if_absent(
                self._client,
                data,
                wait=wait,
                **self._name,
                **self._properties,
                ContentLength=len(data),
                # Where an object is locked, S3 wants the algorithm named beside the checksum:
                # https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
                ChecksumAlgorithm=self._checksum.name,
                **self._checksum_parameter(digest.checksum),
            )
        except (ClientError, BotoCoreError) as error:
            raise _named("PutObject", error) from error
        if answer is None:
            return self._compare(digest, "PutObject", "PreconditionFailed")
        return Written(answer["ETag"].strip('"'), _version(answer), already_there=False)

    def abort(self) -> None:
        """Drop the upload; where S3 refuses even that, the bucket's lifecycle rule does it later."""
        if self._upload_id is not None:
            with suppress(ClientError, BotoCoreError):
                self._client.abort_multipart_upload(**self._name, UploadId=self._upload_id)
            self._upload_id = None

    def _compare(self, digest: FileDigest, call: str, code: str) -> Written:
        """Find out whether what is at the key is this very file; ``code`` is S3's answer to the call."""
        try:
            there: Mapping[str, Any] = self._client.head_object(**self._name, ChecksumMode="ENABLED")
            same = there["ContentLength"] == digest.bytes
            checksum = there.get(f"Checksum{self._checksum.name}")
            if same and there.get("ChecksumType") == "FULL_OBJECT" and checksum is not None:
                same = checksum == digest.checksum
            elif same:
                same = self._sha256_there() == digest.sha256
        except ClientError as missing:
            if _status(missing) == 404:
                raise CopyBrokenError(f"{call} failed with {code} and no object is there") from missing
            raise _named("HeadObject", missing) from missing
        except BotoCoreError as broken:
            raise _named("HeadObject", broken) from broken
        if not same:
            raise ArchiveConflictError(f"another object is already at {self._target.key}; it was left as it is")
        return Written(there["ETag"].strip('"'), _version(there), already_there=True)

    def _sha256_there(self) -> str:
        digest = hashlib.sha256()
        body = self._client.get_object(**self._name)["Body"]
        for chunk in body.iter_chunks(READ_BACK_BYTES):
            digest.update(chunk)
        return digest.hexdigest()


class PartSender:
    """Uploads parts over one connection."""

    def __init__(self, target: Object, options: CopyOptions, stop: Stop, counts: Counts, tls: ssl.SSLContext) -> None:
        self._target = target
        self._counts = counts
        self._stop = stop
        self._connection = Connection(options, tls)
        stop.on_set(self._connection.interrupt)
        self._patience = Patience("the archive", options, stop, counts)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def send(self, number: int, data: memoryview, checksum: str) -> Part:
        """Upload one part until S3 has it."""
        while True:
            self._stop.check()
            self._target.begin()
            url, headers = self._target.sign(number, checksum)
            self._counts.puts += 1
            broken = None
            try:
                body = self._connection.send("PUT", url, headers, data)
                answer = body.text()
            except BROKEN as error:
                broken = told(error)
            if broken is not None:
                self._connection.close()
                self._patience.broke(broken, error=AwsBusyError)
                continue
            if body.status == 200:
                self._patience.progress(len(data))
                self._counts.parts += 1
                return Part(number, body.headers["ETag"], checksum)
            found = CODE.search(answer)
            code = found[1].decode() if found else f"status {body.status}"
            if body.status in {408, 429} or body.status >= 500 or is_busy_code(code):
                self._patience.broke(code, wait=retry_after(body.headers) or 0.001, error=AwsBusyError)
                continue
            if body.status == 409 or code == "BadDigest":
                self._patience.broke(code, wait=retry_after(body.headers) or 0.001)
                continue
            if body.status in {301, 307}:
                raise _redirected(url, body.status, answer)
            if code in REFUSED:
                raise ConfigurationError(f"S3 refuses UploadPart with {code}: check the function's role and bucket")
            raise CopyBrokenError(f"S3 refuses UploadPart with {code}")


def _redirected(url: str, status: int, answer: bytes) -> AwsBusyError | ConfigurationError:
    """Return the error of a redirect. It is not followed, because the signature covers the host.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/Redirects.html
    """
    endpoint = ENDPOINT.search(answer)
    where = (
        f"from {urlsplit(url).hostname} to {endpoint[1].decode() if endpoint else 'an endpoint that it does not name'}"
    )
    if status == 307:
        return AwsBusyError(
            f"S3 redirects UploadPart (307) {where}, because the bucket's DNS name is not in place yet; that takes up"
            " to a day after the bucket was created, so retry later"
        )
    return ConfigurationError(
        f"S3 redirects UploadPart (301) {where}, because the bucket is in another region; use a bucket in the region of"
        " the function"
    )


def _sign_with_v4(signature_version: str, **_: object) -> Any:
    return "s3v4-query" if signature_version.endswith("-query") else None


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _named(call: str, error: ClientError | BotoCoreError) -> AwsBusyError | ConfigurationError | CopyBrokenError:
    """Tell what no retry mends from what one may."""
    if busy := busy_error(error):
        return busy
    if isinstance(error, ClientError):
        code = _code(error)
        if code in REFUSED or _status(error) == 403:
            return ConfigurationError(f"S3 refuses {call} with {code}: check the function's role and the bucket")
        return CopyBrokenError(f"S3 answered {call} with {code}")
    return CopyBrokenError(f"{call} failed with {told(error)}")


def _version(answer: Mapping[str, Any]) -> str | None:
    """Return the version id; "null" is what a bucket without versions may say."""
    version: str | None = answer.get("VersionId")
    return None if version == "null" else version
