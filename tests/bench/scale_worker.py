"""Run one function in a separate process, as Lambda does, and measure it: ``python -m tests.bench.scale_worker``.

Reads one JSON line per invocation from standard input, and writes one JSON line with the result and the measurement.
The first line contains the code folder, the handler and the limits of the function.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import botocore.handlers

from meibo_local.lambda_service import LambdaContext, load_handler


class _RequestCounter:
    """Counts the requests to AWS of all clients."""

    def __init__(self) -> None:
        self.count = 0
        # Every session copies this list.
        botocore.handlers.BUILTIN_HANDLERS.append(("before-send", self._add))

    def _add(self, **_: Any) -> None:
        self.count += 1


def _peak_bytes() -> int:
    # Not ru_maxrss, which includes the memory of the parent process from before the exec.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Serve until standard input is closed."""
    # Logs and metrics must not mix with the results. The logger uses the stdout that is current when it is imported.
    results, sys.stdout = sys.stdout, sys.stderr
    requests = _RequestCounter()
    setup = json.loads(sys.stdin.readline())
    handler = load_handler(setup["code_uri"], setup["handler"])
    for line in sys.stdin:
        event = json.loads(line)
        context = LambdaContext(
            function_name=setup["name"],
            invoked_function_arn=setup["arn"],
            memory_limit_in_mb=setup["memory_mb"],
            ends_at=time.monotonic() + setup["timeout_seconds"],
        )
        requests_before, cpu, start = requests.count, time.process_time(), time.monotonic()
        reply: dict[str, Any] = {"failed": False}
        try:
            reply["payload"] = handler(event, context)
        except Exception as error:  # noqa: BLE001  # Lambda reports any exception of a handler
            reply = {"failed": True, "payload": {"errorMessage": str(error), "errorType": type(error).__name__}}
        reply |= {
            "seconds": time.monotonic() - start,
            "cpu_seconds": time.process_time() - cpu,
            "requests": requests.count - requests_before,
            "peak_bytes": _peak_bytes(),
        }
        print(json.dumps(reply), file=results, flush=True)


if __name__ == "__main__":
    main()
