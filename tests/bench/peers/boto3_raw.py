"""Copy a file with requests and boto3's upload_fileobj: URL ENDPOINT CA KEY [--warm].

With ``--warm``, the file is copied twice, and the seconds of the second copy are printed as JSON.
"""

from __future__ import annotations

import json
import sys
import time

import boto3
import requests
from botocore.config import Config

url, endpoint, ca, key, *options = sys.argv[1:]
client = boto3.client(
    "s3",
    endpoint_url=endpoint,
    verify=ca,
    region_name="us-east-1",
    aws_access_key_id="test",
    aws_secret_access_key="test-secret",
    config=Config(s3={"addressing_style": "path"}),
)


def copy_to(target: str) -> None:
    with requests.get(url, stream=True, verify=ca, timeout=60) as response:
        response.raise_for_status()
        client.upload_fileobj(response.raw, "archive", target)  # type: ignore[arg-type]  # it has read()


if "--warm" in options:
    copy_to(f"{key}-first")
begun = time.perf_counter()
copy_to(key)
print(json.dumps({"seconds": time.perf_counter() - begun}))
