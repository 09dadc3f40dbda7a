"""Copy a file from a short-lived location, or from an iterator, into one object in S3.

``copy(source, target)`` returns a ``CopyResult`` or raises. The object becomes visible only after the whole file was
received, hashed and validated. The package knows nothing of providers or manifests.

``transfer`` runs the workers and the ordered consumers of one copy, ``source`` reads, ``target`` writes,
``connection`` sends requests, and ``cancellation`` ends all threads together. ``content`` validates the file with
``gunzip`` and ``rows``; ``digest`` computes its checksums.
"""

from meibo.archive.copy.model import Content, CopyOptions, CopyResult, Counts, ObjectLock, Target
from meibo.archive.copy.source import LocationSource, StreamSource
from meibo.archive.copy.transfer import copy

__all__ = [
    "Content",
    "CopyOptions",
    "CopyResult",
    "Counts",
    "LocationSource",
    "ObjectLock",
    "StreamSource",
    "Target",
    "copy",
]
