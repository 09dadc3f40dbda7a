"""Target of a copy: one object in S3, written once, with checksums that S3 verifies."""

from __future__ import annotations

import hashlib
import re
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from meibo.archive.copy.cancellation import RetryBudget
from meibo.archive.copy.connection import BROKEN, Connection, retry_after
from meibo.aws import busy_error, is_busy_code, put_if_absent
from meibo.errors import ArchiveConflictError, AwsBusyError, ConfigurationError, CopyBrokenError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from meibo.archive.content import Crc64Nvme, FileDigest
    from meibo.archive.copy.cancellation import CancelToken
    from meibo.archive.copy.model import CopyOptions, Counts, Target

URL_SECONDS = 900
READ_BACK_BYTES = 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
CODE = re.compile(rb"<Code>(\w+)</Code>")
ENDPOINT = re.compile(rb"<Endpoint>([\w.-]+)</Endpoint>")

PERMANENT = frozenset(
    {"AccessDenied", "NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled"}
)
"""S3 error codes that a retry does not resolve. The configuration must be changed."""

CONFLICT = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


class Written(NamedTuple):
    """The written object. ``already_there`` is true if the key already contained the same content."""

    etag: str
    version_id: str | None
    already_there: bool

    @classmethod
    def of(cls, response: Mapping[str, Any], *, already_there: bool = False) -> Written:
        """Return the object in a response of S3. Without versioning, the version ID is "null" or absent."""
        version: str | None = response.get("VersionId")
        return cls(response["ETag"].strip('"'), None if version == "null" else version, already_there)


class UploadedPart(NamedTuple):
    """A part that S3 has stored."""

    number: int
    etag: str
    checksum: str


class ObjectWriter:
    """Writes the target's object, with one request or as a multipart upload, if no object has this key."""

    def __init__(self, target: Target, checksum: Crc64Nvme) -> None:
        self._target = target
        self._client = target.client
        self._checksum = checksum
        self._upload_id: str | None = None
        self._creation = threading.Lock()
        # In regions launched before 2014, boto3 presigns with SigV2, which S3 rejects for KMS keys and which cannot
        # sign a checksum.
        self._client.meta.events.register(
            "choose-signer.s3.UploadPart", _sign_with_v4, unique_id="meibo-presign-parts-with-v4"
        )

    @property
    def _name(self) -> dict[str, Any]:
        return {"Bucket": self._target.bucket, "Key": self._target.key}

    @property
    def _properties(self) -> dict[str, Any]:
        return {"ContentType": self._target.content_type, **self._target.object_lock.parameters()}

    def _checksum_parameter(self, value: str) -> dict[str, Any]:
        return {f"Checksum{self._checksum.name}": value}

    def create_upload(self) -> None:
        """Create the multipart upload, unless another thread has created it."""
        with self._creation:
            if self._upload_id is None:
                with _meibo_errors("CreateMultipartUpload"):
                    response = self._client.create_multipart_upload(
                        **self._name,
                        **self._properties,
                        ChecksumAlgorithm=self._checksum.name,
                        ChecksumType="FULL_OBJECT",
                    )
                self._upload_id = response["UploadId"]

    def presign(self, number: int, checksum: str) -> tuple[str, dict[str, str]]:
        """Return the URL that uploads a part, and the headers that its signature covers."""
        parameters = {
            **self._name,
            "UploadId": self._upload_id,
            "PartNumber": number,
            **self._checksum_parameter(checksum),
        }
        url = self._client.generate_presigned_url("upload_part", Params=parameters, ExpiresIn=URL_SECONDS)
        return url, {f"x-amz-checksum-{self._checksum.name.lower()}": checksum}

    def complete_upload(self, parts: Sequence[UploadedPart], digest: FileDigest) -> Written:
        """Make the object visible if no object has this key. S3 verifies its size and its checksum."""
        numbered: list[Any] = [
            {"PartNumber": part.number, "ETag": part.etag, **self._checksum_parameter(part.checksum)} for part in parts
        ]
        with _meibo_errors("CompleteMultipartUpload"):
            try:
                response = self._client.complete_multipart_upload(
                    **self._name,
                    UploadId=self._upload_id or "",
                    MultipartUpload={"Parts": numbered},
                    ChecksumType="FULL_OBJECT",
                    MpuObjectSize=digest.bytes,
                    IfNoneMatch="*",
                    **self._checksum_parameter(digest.checksum),
                )
            except ClientError as error:
                # NoSuchUpload: the response to the first attempt was lost, and botocore's retry found no upload.
                code = _code(error)
                if code not in CONFLICT | {"NoSuchUpload"} and _status(error) != 412:
                    raise
            else:
                self._upload_id = None
                return Written.of(response)
        written = self._compare(digest, "CompleteMultipartUpload", code)
        if code != "NoSuchUpload":
            self.abort()
        return written

    def put(self, data: memoryview, digest: FileDigest, wait: Callable[[float], None]) -> Written:
        """Write a file of one part. ``wait`` sleeps between attempts while another write of the key is in progress."""
        with _meibo_errors("PutObject"):
            response = put_if_absent(
                self._client,
                data,
                wait=wait,
                **self._name,
                **self._properties,
                ContentLength=len(data),
                # S3 requires the algorithm in addition to the checksum if the object is locked:
                # https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
                ChecksumAlgorithm=self._checksum.name,
                **self._checksum_parameter(digest.checksum),
            )
        return self._compare(digest, "PutObject", "PreconditionFailed") if response is None else Written.of(response)

    def abort(self) -> None:
        """Abort the upload if there is one. If S3 rejects the request, the bucket's lifecycle rule aborts it later."""
        if self._upload_id is not None:
            with suppress(ClientError, BotoCoreError):
                self._client.abort_multipart_upload(**self._name, UploadId=self._upload_id)
            self._upload_id = None

    def _compare(self, digest: FileDigest, operation: str, code: str) -> Written:
        """Return the object at the key if it has this content; raise ArchiveConflictError if it has other content."""
        with _meibo_errors("HeadObject"):
            try:
                head = self._client.head_object(**self._name, ChecksumMode="ENABLED")
            except ClientError as error:
                if _status(error) != 404:
                    raise
                raise CopyBrokenError(
                    f"{operation} failed with {code}, which means that the object exists, but HeadObject returned 404"
                ) from error
            is_same = head["ContentLength"] == digest.bytes
            checksum = head.get(f"Checksum{self._checksum.name}")
            if is_same and head.get("ChecksumType") == "FULL_OBJECT" and checksum is not None:
                is_same = checksum == digest.checksum
            elif is_same:
                is_same = self._existing_sha256() == digest.sha256
        if not is_same:
            raise ArchiveConflictError(f"{self._target.key} already contains another file, which was not changed")
        return Written.of(head, already_there=True)

    def _existing_sha256(self) -> str:
        body, digest = self._client.get_object(**self._name)["Body"], hashlib.sha256()
        for chunk in body.iter_chunks(READ_BACK_BYTES):
            digest.update(chunk)
        return digest.hexdigest()


class PartUploader:
    """Uploads the parts of one worker with presigned URLs, from the buffer in which they were received."""

    def __init__(self, writer: ObjectWriter, options: CopyOptions, token: CancelToken, counts: Counts) -> None:
        self._writer = writer
        self._options = options
        self._token = token
        self._counts = counts
        self.connection = Connection(options.target_tls, options, token)

    def upload(self, number: int, data: memoryview, checksum: str) -> UploadedPart:
        """Upload a part; retry until S3 has stored it or the retry budget is spent."""
        budget = RetryBudget("the upload to S3", self._options, self._token, self._counts)
        while True:
            self._token.check()
            self._writer.create_upload()
            url, headers = self._writer.presign(number, checksum)
            self._counts.puts += 1
            failure = None
            try:
                response = self.connection.request("PUT", url, headers, data)
                body = response.read(MAX_ERROR_BYTES)
            except BROKEN as error:
                failure = type(error).__name__
            if failure is not None:
                self.connection.close()
                budget.spend(failure, error=AwsBusyError)
                continue
            status = response.status
            if status == 200:
                self._counts.parts += 1
                return UploadedPart(number, response.headers["ETag"], checksum)
            if status in {301, 307}:
                raise _redirect_error(url, status, body)
            match = CODE.search(body)
            code = match[1].decode() if match else f"status {status}"
            is_busy = status in {408, 429} or status >= 500 or is_busy_code(code)
            if not is_busy and status != 409 and code != "BadDigest":
                raise _rejection("UploadPart", code, status)
            wait = retry_after(response.headers.get("Retry-After"))
            budget.spend(code, retry_after=wait, error=AwsBusyError if is_busy else CopyBrokenError)


def _redirect_error(url: str, status: int, body: bytes) -> AwsBusyError | ConfigurationError:
    """Return the error of a redirect. It is not followed, because the signature covers the host.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/Redirects.html
    """
    endpoint = ENDPOINT.search(body)
    hosts = f"from {urlsplit(url).hostname} to {endpoint[1].decode() if endpoint else 'an endpoint without a name'}"
    if status == 307:
        return AwsBusyError(
            f"S3 redirects UploadPart (307) {hosts}, because the DNS name of a new bucket becomes available up to 24"
            " hours after its creation; retry later"
        )
    return ConfigurationError(
        f"S3 redirects UploadPart (301) {hosts}, because the bucket is in another region; use a bucket in the region of"
        " the function"
    )


def _rejection(operation: str, code: str, status: int) -> ConfigurationError | CopyBrokenError:
    """Return the error of a request that S3 rejected for a reason other than throttling."""
    if code in PERMANENT or status == 403:
        return ConfigurationError(f"S3 rejected {operation} with {code}: check the function's role and the bucket")
    return CopyBrokenError(f"S3 rejected {operation} with {code}")


@contextmanager
def _meibo_errors(operation: str) -> Iterator[None]:
    """Raise the Meibo error for a boto3 error: AwsBusyError, ConfigurationError or CopyBrokenError."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        if busy := busy_error(error):
            raise busy from error
        if isinstance(error, ClientError):
            raise _rejection(operation, _code(error), _status(error)) from error
        raise CopyBrokenError(f"{operation} failed with {type(error).__name__}") from error


def _sign_with_v4(signature_version: str, **_: object) -> Any:
    return "s3v4-query" if signature_version.endswith("-query") else None


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
