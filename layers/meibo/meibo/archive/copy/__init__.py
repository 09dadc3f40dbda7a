"""Copy a file from a short-lived URL into S3: as fast as the network, in bounded memory, proven.

Knows nothing of providers or manifests: ``copy(source, target)`` returns a ``CopyResult`` or raises, and an
object is visible only after the whole file arrived, was digested and looked at.
"""

from meibo.archive.copy.engine import copy
from meibo.archive.copy.model import Content, CopyOptions, CopyResult, Counts, ObjectLock, Target
from meibo.archive.copy.source import LocationSource, StreamSource

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
