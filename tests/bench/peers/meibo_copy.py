"""Run Meibo's copy and print its result as JSON: URL ENDPOINT CA KEY [--format F] [--no-decode] [--warm].

With ``--warm``, the file is copied twice, and the second copy is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import ssl
import time

from meibo.archive.copy import Content, CopyOptions, CopyResult, LocationSource, Target, copy
from meibo.aws import s3

parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("endpoint")
parser.add_argument("ca")
parser.add_argument("key")
parser.add_argument("--format", default="opaque")
parser.add_argument("--no-decode", action="store_true")
parser.add_argument("--warm", action="store_true")
parser.add_argument("--workers", type=int, default=CopyOptions.workers)
arguments = parser.parse_args()

os.environ |= {"AWS_ENDPOINT_URL_S3": arguments.endpoint, "AWS_CA_BUNDLE": arguments.ca}
client = s3()
tls = ssl.create_default_context(cafile=arguments.ca)


def copy_to(key: str) -> CopyResult:
    return copy(
        LocationSource(lambda: arguments.url),
        Target(client, "archive", key),
        content=Content(arguments.format, "detect", header=True, decode=not arguments.no_decode),
        options=CopyOptions(workers=arguments.workers, source_tls=tls, target_tls=tls),
    )


if arguments.warm:
    copy_to(f"{arguments.key}-first")
before = resource.getrusage(resource.RUSAGE_SELF)
begun = time.perf_counter()
result = copy_to(arguments.key)
usage = resource.getrusage(resource.RUSAGE_SELF)
print(
    json.dumps(
        {
            "seconds": time.perf_counter() - begun,
            "sha256": result.sha256,
            "rows": result.rows,
            "workers": result.counts.workers,
            "gets": result.counts.gets,
            "puts": result.counts.puts,
            "breaks": result.counts.breaks,
            "cpu": usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime,
        }
    )
)
