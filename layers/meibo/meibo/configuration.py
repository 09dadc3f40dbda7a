"""The configuration: the sources and their exports.

The configuration consists of one or more JSON documents, which contain the names of secrets, but no secrets. Each
provider defines the model of its sources. The JSON Schema of a document is ``docs/configuration.schema.json``.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

from pydantic import Field, ValidationError, create_model, model_validator

from meibo.errors import ConfigurationError
from meibo.providers import all_providers
from meibo.providers.configuration import SourceModel
from meibo.validation import StrictModel, invalid, model_faults, parse_json


class Configuration(StrictModel):
    """One document of the configuration, or all documents combined."""

    schema_location: Annotated[
        str | None,
        Field(alias="$schema", description="Path or URL of this schema, for editors. Meibo does not read it."),
    ] = None
    sources: Sequence[SourceModel]

    @model_validator(mode="after")
    def _check_names(self) -> Configuration:
        first: dict[str, int] = {}
        for index, source in enumerate(self.sources):
            if source.name in first:
                raise invalid(
                    f"{source.name!r} is already the name of sources[{first[source.name]}]; names are part of the keys"
                    " in the bucket, so use each name once",
                    steps=("sources", index, "name"),
                )
            first[source.name] = index
        return self

    @model_validator(mode="after")
    def _check_keys(self) -> Configuration:
        for index, source in enumerate(self.sources):
            first: dict[tuple[str, str, str], int] = {}
            for position, entry in enumerate(source.exports_by_entry()):
                for export in entry:
                    identity = (export.dataset, export.format, export.scope)
                    if identity in first:
                        raise invalid(
                            f"has the same dataset, format and scope ({', '.join(identity)}) as"
                            f" exports[{first[identity]}], so both would write the same key; remove one of them",
                            steps=("sources", index, "exports", position),
                        )
                    first[identity] = position
        return self

    def source(self, name: str) -> SourceModel | None:
        """Return the source with a name, or None if it is not configured."""
        return next((source for source in self.sources if source.name == name), None)


def _document_model() -> type[Configuration]:
    """Return the model of a document, with the source models of all registered providers."""
    models = [provider.source_model() for provider in all_providers()]
    source = Annotated[functools.reduce(operator.or_, models), Field(discriminator="provider")]  # type: ignore[valid-type]  # a union that is only known at run time
    sources: Any = (Annotated[list[source], Field(min_length=1)], ...)  # type: ignore[valid-type]  # as above
    return cast("type[Configuration]", create_model("Configuration", __base__=Configuration, sources=sources))


def parse_configuration(text: str) -> Configuration:
    """Parse one document of the configuration. Raises one ConfigurationError with the paths of all errors."""
    try:
        document, faults = parse_json(text)
    except ValueError as error:
        raise ConfigurationError(f"the configuration is {error}") from None
    if not faults:
        try:
            return _document_model().model_validate(document)
        except ValidationError as error:
            faults = model_faults(error, document)
    detail = "; ".join(map(str, faults))
    raise ConfigurationError(f"invalid configuration: {detail}", detail=detail)


def parse_documents(documents: Mapping[str, str]) -> Configuration:
    """Parse and combine the documents of the configuration. The keys of ``documents`` are the names of SSM parameters.

    Raises one ConfigurationError with the parameters and paths of all errors. Two parameters must not contain a source
    with the same name.
    """
    sources: list[SourceModel] = []
    parameter_of: dict[str, str] = {}
    faults: list[str] = []
    for parameter, text in documents.items():
        try:
            configuration = parse_configuration(text)
        except ConfigurationError as error:
            faults.append(f"SSM parameter {parameter}: {error}")
            continue
        for source in configuration.sources:
            first = parameter_of.setdefault(source.name, parameter)
            if first != parameter:
                faults.append(
                    f"SSM parameters {first} and {parameter}: expected each source's name once, found {source.name!r}"
                    " in both; rename or remove one of the two sources"
                )
        sources += configuration.sources
    if faults:
        raise ConfigurationError("; ".join(faults))
    return Configuration(sources=sources)


def configuration_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a document of the configuration."""
    schema = _document_model().model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Meibo configuration",
        **{key: value for key, value in schema.items() if key != "title"},
    }
