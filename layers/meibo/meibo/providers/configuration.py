"""Base models for a source and its exports in the configuration. Each provider extends these models."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from meibo.providers.datasets import DEFAULT_SUSPECT_SHARE, ExportFormat
from meibo.validation import StrictModel, pattern_field

NAME: Final = "^[a-z0-9][a-z0-9-]{0,62}$"
Name = Annotated[
    str,
    pattern_field(
        pattern=NAME,
        description="Lower-case letters, digits and hyphens; part of every key in the bucket.",
        expected="lower-case letters, digits and hyphens, such as acme-jp",
    ),
]
SecretName = Annotated[
    str,
    pattern_field(
        pattern=r"^[A-Za-z0-9/_+=.@-]{1,512}$",
        description="Name of the Secrets Manager secret that contains the credentials.",
        expected="the name of a Secrets Manager secret, such as meibo/acme",
    ),
]


def _is_date(value: str) -> str:
    try:
        date.fromisoformat(value)
    except ValueError:
        raise ValueError("expected a calendar date such as 2026-11-21; correct the month or the day") from None
    return value


class ExportModel(StrictModel):
    """One entry of a source's ``exports``."""

    dataset: str
    format: ExportFormat = "ndjson"
    accept_from: Annotated[
        Annotated[
            str,
            pattern_field(
                pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
                description="A date such as 2026-11-21",
                expected="a date such as 2026-11-21",
            ),
            AfterValidator(_is_date),
        ]
        | None,
        Field(description="Date (UTC) from which the number of rows is accepted; earlier exports are ignored."),
    ] = None

    @property
    def scope(self) -> str:
        """The part of the source that the export covers."""
        return "all"

    def expand(self) -> Sequence[ExportModel]:
        """Return the exports of this entry. An entry can configure several exports."""
        return [self]


class SourceModel(StrictModel):
    """One source: a tenant or a domain. The model of a provider adds the endpoint and the type of the exports."""

    provider: str
    name: Name
    secret: SecretName
    suspect_share: Annotated[
        float,
        Field(ge=0, le=1, description="An export with fewer rows than this share of the last export is suspect."),
    ] = DEFAULT_SUSPECT_SHARE
    exports: Sequence[ExportModel]

    @property
    def endpoint(self) -> str:
        """The host name or base URL of the source."""
        raise NotImplementedError

    def exports_by_entry(self) -> list[Sequence[ExportModel]]:
        """Return the exports of each entry of ``exports``."""
        return [entry.expand() for entry in self.exports]
