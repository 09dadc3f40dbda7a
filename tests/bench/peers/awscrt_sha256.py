"""Copy a file with requests and awscrt's S3 client, and compute SHA-256: URL ENDPOINT CA KEY."""

from __future__ import annotations

import hashlib
import sys
from urllib.parse import urlsplit

import requests
from awscrt.auth import AwsCredentialsProvider
from awscrt.http import HttpHeaders, HttpRequest
from awscrt.io import ClientBootstrap, ClientTlsContext, DefaultHostResolver, EventLoopGroup, TlsContextOptions
from awscrt.s3 import (
    S3Client,
    S3RequestTlsMode,
    S3RequestType,
    create_default_s3_signing_config,
)

url, endpoint, ca, key = sys.argv[1:5]
options = TlsContextOptions()
options.override_default_trust_store_from_path(ca_filepath=ca)
group = EventLoopGroup()
bootstrap = ClientBootstrap(group, DefaultHostResolver(group))
credentials = AwsCredentialsProvider.new_static("test", "test-secret")
client = S3Client(
    bootstrap=bootstrap,
    region="us-east-1",
    signing_config=create_default_s3_signing_config(region="us-east-1", credential_provider=credentials),
    tls_mode=S3RequestTlsMode.ENABLED,
    tls_connection_options=ClientTlsContext(options).new_connection_options(),
    part_size=8 << 20,
)
digest = hashlib.sha256()


class Hashed:
    """A stream that computes the hash of the bytes that are read."""

    def __init__(self, raw: object) -> None:
        self._raw = raw

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._raw.read(size)  # type: ignore[attr-defined]
        digest.update(data)
        return data

    def readinto(self, view: memoryview) -> int:
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


with requests.get(url, stream=True, verify=ca, timeout=60) as response:
    response.raise_for_status()
    parts = urlsplit(endpoint)
    headers = HttpHeaders([("Host", parts.netloc), ("Content-Length", response.headers["Content-Length"])])
    request = HttpRequest("PUT", f"/archive/{key}", headers, Hashed(response.raw))
    client.make_request(request=request, type=S3RequestType.PUT_OBJECT).finished_future.result()
print(digest.hexdigest())
