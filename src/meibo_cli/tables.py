"""The tables that ``meibo query`` and Athena share: names, columns, and the keys of their files.

The datasets of the providers define the columns, which have the provider's own names; the template's Glue tables have
the same columns, which a test compares. A column that an export lacks is null. Metadata and lists are JSON strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from meibo.providers import all_providers

PARTITIONS: Final = ("provider", "source", "dataset", "format", "scope", "dt", "run")


@dataclass(frozen=True)
class Table:
    """One dataset of one provider, over all runs."""

    name: str
    provider: str
    dataset: str
    columns: Mapping[str, str]

    @property
    def pattern(self) -> str:
        """The keys of its files, as a glob."""
        return (
            f"archive/provider={self.provider}/source=*/dataset={self.dataset}/format=ndjson/scope=*/dt=*/run=*/"
            f"{self.dataset}.ndjson*"
        )


def tables() -> list[Table]:
    """Return the tables of every registered provider."""
    return [
        Table(f"{provider.name}_{dataset.name}", provider.name, dataset.name, dataset.table)
        for provider in all_providers()
        for dataset in provider.datasets
        if dataset.table is not None
    ]
