"""Copy a file from a short-lived location, or from an iterator, into one object in S3.

``copy(source, target)`` returns a ``CopyResult`` or raises an error. The object becomes visible only after the whole
file was received, hashed and validated. The package does not depend on providers or manifests.

``transfer`` runs the workers and the ordered consumers of a copy, ``source`` reads, ``target`` writes, ``connection``
sends requests, and ``cancellation`` cancels and retries. ``meibo.archive.content`` validates the file and computes its
checksums.
"""

from meibo.archive.content import Content
from meibo.archive.copy.model import CopyOptions, CopyResult, Counts, Target
from meibo.archive.copy.source import LocationSource, StreamSource
from meibo.archive.copy.transfer import copy

__all__ = [
    "Content",
    "CopyOptions",
    "CopyResult",
    "Counts",
    "LocationSource",
    "StreamSource",
    "Target",
    "copy",
]
