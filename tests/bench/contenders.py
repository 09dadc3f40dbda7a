"""The contenders: their commands, the checksums that they compute, and their numbers of connections."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
OURS = ROOT / ".venv" / "bin" / "python"
BIN = Path(sys.executable).parent
# Quoted for the shell, because the path of the checkout can contain spaces.
PEERS, BIN_QUOTED = shlex.quote(str(HERE / "peers")), shlex.quote(str(BIN))
# A script with a space in the path of its interpreter cannot be executed.
AWS = f"{BIN_QUOTED}/python {BIN_QUOTED}/aws"

CURL = "curl -sS --fail --cacert {ca} {source}/{file}"
RCLONE = (
    f"{BIN_QUOTED}/rclone --config /dev/null --ca-cert {{ca}} --s3-provider Other --s3-region us-east-1 --s3-env-auth"
    " --s3-no-check-bucket --s3-chunk-size 8M --s3-endpoint {sink} --retries 1"
)
RCLONE_STREAMS = (
    f"{RCLONE} copyto --http-url {{source}} :http:{{file}} :s3:archive/{{key}} --no-check-dest"
    " --multi-thread-cutoff 1M --multi-thread-chunk-size 8M"
    " --multi-thread-streams {streams} --s3-upload-concurrency {streams}"
)
MEIBO = f"{shlex.quote(str(OURS))} {PEERS}/meibo_copy.py {{source}}/{{file}} {{sink}} {{ca}} {{key}}"


@dataclass(frozen=True)
class Contender:
    """A program that copies the file: a shell command with placeholders for addresses, file and key."""

    name: str
    command: str
    verifies: str
    streams: int = 1
    sha256: bool = False
    ours: bool = False
    floor: bool = False
    s3: bool = True

    def line(self, *, source: str, sink: str, ca: Path, file: str, key: str) -> str:
        """Return the command with the placeholders replaced."""
        return self.command.format(
            source=source, sink=sink, ca=shlex.quote(str(ca)), file=file, key=key, streams=self.streams
        )


def python(script: str) -> str:
    """Return the command of a peer that is a Python library."""
    return f"{BIN_QUOTED}/python {PEERS}/{script} {{source}}/{{file}} {{sink}} {{ca}} {{key}}"


CONTENDERS = [
    Contender(
        "meibo",
        MEIBO,
        "SHA-256 of the file; CRC64NVME of each part and the object; size, ETag; If-None-Match",
        streams=16,
        sha256=True,
        ours=True,
    ),
    Contender(
        "curl | aws s3 cp",
        f"{CURL} | {AWS} s3 cp - s3://archive/{{key}} --endpoint-url {{sink}} --only-show-errors",
        "CRC64NVME of each part",
    ),
    Contender("rclone copyurl", f"{RCLONE} copyurl {{source}}/{{file}} :s3:archive/{{key}}", "MD5 of each part"),
    Contender("rclone, 8 streams", RCLONE_STREAMS, "MD5 of each part", streams=8),
    Contender("rclone, 16 streams", RCLONE_STREAMS, "MD5 of each part", streams=16),
    Contender(
        "curl | s5cmd pipe",
        f"{CURL} | {BIN_QUOTED}/s5cmd --endpoint-url {{sink}} pipe s3://archive/{{key}} > /dev/null",
        "SigV4 payload hash of each part",
    ),
    Contender("boto3 upload_fileobj", python("boto3_raw.py"), "CRC32 of each part"),
    Contender("awscrt + SHA-256", python("awscrt_sha256.py"), "SHA-256 of the file", sha256=True),
    Contender("obstore + SHA-256", python("obstore_sha256.py"), "SHA-256 of the file", sha256=True),
    Contender("smart_open", python("smart_open_copy.py"), "CRC32 of each part"),
    Contender(
        "curl | curl",
        f"{CURL} | curl -sS --fail --cacert {{ca}} -T - {{sink}}/archive/{{key}} > /dev/null",
        "nothing (the minimum)",
        floor=True,
        s3=False,
    ),
]

# These contenders copy the file a second time in the same process, like a warm function.
WARM_CONTENDERS = [
    Contender("meibo, warm", f"{MEIBO} --warm", CONTENDERS[0].verifies, streams=16, sha256=True, ours=True),
    Contender("boto3 upload_fileobj, warm", f"{python('boto3_raw.py')} --warm", "CRC32 of each part"),
]

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
