"""Copy a file with obstore's HTTP store and open_writer, and compute SHA-256: URL ENDPOINT CA KEY."""

from __future__ import annotations

import hashlib
import os
import sys
from urllib.parse import urlsplit

url, endpoint, ca, key = sys.argv[1:5]
os.environ["SSL_CERT_FILE"] = ca

import obstore
from obstore.store import HTTPStore, S3Store

parts = urlsplit(url)
source = HTTPStore.from_url(f"{parts.scheme}://{parts.netloc}", client_options={"timeout": "600s"})
target = S3Store(
    "archive",
    endpoint=endpoint,
    region="us-east-1",
    access_key_id="test",
    secret_access_key="test-secret",
    virtual_hosted_style_request=False,
    client_options={"timeout": "600s"},
)
digest = hashlib.sha256()
with obstore.open_writer(target, key, buffer_size=8 << 20, max_concurrency=16) as writer:
    for chunk in obstore.get(source, parts.path.lstrip("/")).stream(min_chunk_size=1 << 20):
        digest.update(chunk)
        writer.write(chunk)
print(digest.hexdigest())
