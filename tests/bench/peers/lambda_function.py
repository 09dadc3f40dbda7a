"""A function without checks that copies the file of a job to S3, for comparison with ``archive_export``.

The event, the secret and the layer are those of ``archive_export``.
"""

from __future__ import annotations

import json
import os
from typing import Any

import boto3
import requests


def handler(event: dict[str, Any], _context: Any) -> dict[str, str]:
    """Copy the file of the export's job."""
    export = event["export"]
    api = f"https://{export['endpoint']}"
    value = boto3.client("secretsmanager").get_secret_value(SecretId=export["secret"])
    credentials = json.loads(value["SecretString"])
    form = {**credentials, "grant_type": "client_credentials", "audience": f"{api}/api/v2/"}
    token = requests.post(f"{api}/oauth/token", data=form, timeout=30).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    job = requests.get(f"{api}/api/v2/jobs/{export['job']['id']}", headers=headers, timeout=30).json()
    key = f"{export['export_id']}/{event['run_id']}/users.ndjson.gz"
    with requests.get(job["location"], stream=True, timeout=60) as response:
        response.raise_for_status()
        boto3.client("s3").upload_fileobj(response.raw, os.environ["MEIBO_BUCKET"], key)  # type: ignore[arg-type]  # it has read()
    return {"key": key}
