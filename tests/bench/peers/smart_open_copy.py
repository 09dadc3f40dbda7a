"""Copy a file with smart_open from an HTTPS URL to S3: URL ENDPOINT CA KEY."""

from __future__ import annotations

import os
import shutil
import sys

import boto3
import smart_open
from botocore.config import Config

url, endpoint, ca, key = sys.argv[1:5]
os.environ["REQUESTS_CA_BUNDLE"] = ca
client = boto3.client(
    "s3",
    endpoint_url=endpoint,
    verify=ca,
    region_name="us-east-1",
    aws_access_key_id="test",
    aws_secret_access_key="test-secret",
    config=Config(s3={"addressing_style": "path"}),
)
parameters = {"client": client, "min_part_size": 8 << 20}
with (
    smart_open.open(url, "rb", compression="disable") as source,
    smart_open.open(f"s3://archive/{key}", "wb", compression="disable", transport_params=parameters) as target,
):
    shutil.copyfileobj(source, target, 1 << 20)
