"""Reduce the data of botocore in the layer to what Meibo's clients read: ``botocore_data.py DATA SERVICE…``.

botocore contains the descriptions of about 400 services, and a list of their endpoints. Each cold start parses this
list and the descriptions of the services that are called, which consist mostly of documentation.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from pathlib import Path
from typing import Any


def without_documentation(value: Any) -> Any:
    """Return a part of a service description without its documentation."""
    if isinstance(value, dict):
        # A member of a shape may also have the name "documentation", but its value is an object.
        return {
            key: without_documentation(item)
            for key, item in value.items()
            if key != "documentation" or not isinstance(item, str)
        }
    return [without_documentation(item) for item in value] if isinstance(value, list) else value


def reduce_data(data: Path, services: set[str]) -> None:
    """Remove all other services and their endpoints, and the documentation of these services."""
    for folder in [path for path in data.iterdir() if path.is_dir() and path.name not in services]:
        shutil.rmtree(folder)
    prefixes = set()
    for path in data.glob("*/*/service-2.json.gz"):
        description = json.loads(gzip.decompress(path.read_bytes()))
        prefixes.add(description["metadata"]["endpointPrefix"])
        # botocore requires the documentation of the other sections.
        for section in ("operations", "shapes"):
            description[section] = without_documentation(description[section])
        path.write_bytes(gzip.compress(_compact(description), mtime=0))
    path = data / "endpoints.json"
    endpoints = json.loads(path.read_bytes())
    for partition in endpoints["partitions"]:
        partition["services"] = {
            prefix: service for prefix, service in partition["services"].items() if prefix in prefixes
        }
    path.write_bytes(_compact(endpoints))


def _compact(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


if __name__ == "__main__":
    reduce_data(Path(sys.argv[1]), set(sys.argv[2:]))
