"""The tables that ``meibo query`` and Athena share.

The datasets of the providers define the columns. A test compares them with the Glue tables of the template. A column
that an export does not contain is null. Metadata and lists are JSON strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from meibo.archive.keys import dataset_pattern
from meibo.providers import all_providers

PARTITIONS: Final = ("provider", "source", "dataset", "format", "scope", "dt", "run")


@dataclass(frozen=True)
class Table:
    """A dataset of a provider in all runs."""

    name: str
    provider: str
    dataset: str
    columns: Mapping[str, str]

    @property
    def pattern(self) -> str:
        """The glob pattern of the keys of its files."""
        return dataset_pattern(self.provider, self.dataset, "ndjson")


def tables() -> list[Table]:
    """Return the tables of every registered provider."""
    return [
        Table(f"{provider.name}_{dataset.name}", provider.name, dataset.name, dataset.table)
        for provider in all_providers()
        for dataset in provider.datasets
        if dataset.table is not None
    ]
