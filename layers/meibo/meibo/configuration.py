"""The configuration: the sources and their exports.

One JSON document lists the sources; it names secrets and never contains them. Each provider defines the model of its
sources. The JSON Schema that is generated from the models is ``docs/configuration.schema.json``.
"""

from __future__ import annotations

import functools
import json
import operator
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import Field, ValidationError, create_model, model_validator
from pydantic_core import ErrorDetails

from meibo.errors import ConfigurationError
from meibo.providers import all_providers
from meibo.providers.configuration import EXPECTED, ConfigurationModel, SourceModel, invalid

# The largest 64-bit integer has 19 digits; no setting needs more.
MAX_INTEGER_DIGITS = 19


class Configuration(ConfigurationModel):
    """The configuration document."""

    sources: Sequence[SourceModel]

    @model_validator(mode="after")
    def _check_names(self) -> Configuration:
        first: dict[str, int] = {}
        for index, source in enumerate(self.sources):
            if source.name in first:
                raise invalid(
                    f"{source.name!r} is already the name of sources[{first[source.name]}]; names are part of the keys"
                    " in the bucket, so use each name once",
                    path=f"sources[{index}].name",
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
                            f" exports[{first[identity]}], so both would write the same key; remove one",
                            path=f"sources[{index}].exports[{position}]",
                        )
                    first[identity] = position
        return self

    def source(self, name: str) -> SourceModel | None:
        """Return the source with this name, or None if it is not or no longer configured."""
        return next((source for source in self.sources if source.name == name), None)


def _document_model() -> type[Configuration]:
    """Return the model of the document, with the source models of all registered providers."""
    models = [provider.source_model() for provider in all_providers()]
    source = Annotated[functools.reduce(operator.or_, models), Field(discriminator="provider")]  # type: ignore[valid-type]  # a union that is only known at run time
    sources: Any = (Annotated[list[source], Field(min_length=1)], ...)  # type: ignore[valid-type]  # as above
    return cast("type[Configuration]", create_model("Configuration", __base__=Configuration, sources=sources))


def parse_configuration(text: str) -> Configuration:
    """Parse the sources document, raising one ConfigurationError that names the path of every fault."""
    try:
        document = json.loads(text, object_pairs_hook=_json_object, parse_int=_json_integer)
        faults = list(_json_faults(document))
    except (json.JSONDecodeError, RecursionError) as error:
        place = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise ConfigurationError(f"the configuration is not valid JSON{place}") from None
    if not faults:
        try:
            return _document_model().model_validate(document)
        except ValidationError as error:
            faults = [_describe(fault, document) for fault in error.errors(include_input=False)]
    raise ConfigurationError("the configuration is not valid: " + "; ".join(faults))


def parse_documents(documents: Mapping[str, str]) -> Configuration:
    """Parse a configuration of one or more sources documents, given by the names of their SSM parameters.

    Raises one ConfigurationError that names the parameter and the path of every fault, and both parameters if a
    source's name is in two of them.
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


class _RepeatedKeys(dict[str, Any]):
    """A JSON object in which keys are repeated; ``repeated`` lists them."""

    repeated: tuple[str, ...]


@dataclass(frozen=True)
class _OversizedInteger:
    """A JSON integer that is too long for any setting. Python refuses to convert more than 4,300 digits."""

    digits: int


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    counts = Counter(key for key, _ in pairs)
    if len(counts) == len(pairs):
        return dict(pairs)
    document = _RepeatedKeys(pairs)
    document.repeated = tuple(key for key, count in counts.items() if count > 1)
    return document


def _json_integer(literal: str) -> int | _OversizedInteger:
    digits = len(literal.removeprefix("-"))
    return int(literal) if digits <= MAX_INTEGER_DIGITS else _OversizedInteger(digits)


def _json_faults(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, _OversizedInteger):
        yield (
            f"{path or 'the document'}: expected an integer of at most {MAX_INTEGER_DIGITS} digits, found"
            f" {value.digits:,} digits"
        )
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _json_faults(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        repeated = value.repeated if isinstance(value, _RepeatedKeys) else ()
        for key, item in value.items():
            step = f"{path}.{key}" if path else key
            if key in repeated:
                yield f"{step}: expected the key once, found it more than once; remove the others"
            yield from _json_faults(item, step)


def configuration_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the sources document."""
    schema = _document_model().model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Meibo configuration",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def _describe(fault: ErrorDetails, document: Any) -> str:
    path, node = "", document
    for step in fault["loc"]:
        # pydantic adds the labels of chosen union members to a location; they are not keys of the document.
        is_key = isinstance(node, dict) and (step in node or (fault["type"] == "missing" and step == fault["loc"][-1]))
        if isinstance(step, int):
            path += f"[{step}]"
        elif is_key:
            path += f".{step}" if path else step
        else:
            continue
        node = node[cast("int", step)] if isinstance(node, list) or step in node else None
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "meibo":
        path, message = context["path"] or path, context["message"]
        return f"{path or 'the document'}: {message}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        key = context["discriminator"].strip("'")
        known = context.get(
            "expected_tags",
            ", ".join(repr(provider.name) for provider in all_providers()) if key == "provider" else "",
        )
        return f"{path}.{key}: expected {' or '.join(known.rsplit(', ', 1))}" if known else f"{path}.{key}: is missing"
    if kind == "extra_forbidden":
        return f"{path}: is not a known key; remove it or check its spelling"
    if kind == "missing":
        return f"{path}: is missing"
    if kind == "string_pattern_mismatch" and (expected := EXPECTED.get(context["pattern"])):
        return f"{path}: expected {expected}"
    message = fault["msg"]
    return f"{path or 'the document'}: {message[0].lower()}{message[1:]}"
