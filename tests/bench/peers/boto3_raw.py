"""boto3's upload_fileobj from a requests stream: URL ENDPOINT CA KEY."""

from __future__ import annotations

import sys

import boto3
import requests
from botocore.config import Config

url, endpoint, ca, key = sys.argv[1:5]
client = boto3.client(
    "s3",
    endpoint_url=endpoint,
    verify=ca,
    region_name="us-east-1",
    aws_access_key_id="test",
    aws_secret_access_key="test-secret",
    config=Config(s3={"addressing_style": "path"}),
)
with requests.get(url, stream=True, verify=ca, timeout=60) as response:
    response.raise_for_status()
    client.upload_fileobj(response.raw, "archive", key)  # type: ignore[arg-type]  # it has read()
