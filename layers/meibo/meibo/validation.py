"""Validate JSON documents with pydantic. The descriptions of errors do not contain values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

# The largest 64-bit integer has 19 digits. Python refuses to convert more than 4,300 digits.
MAX_INTEGER_DIGITS: Final = 19
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# The description of the expected value in messages, by the pattern of the field.
_EXPECTED: Final[dict[str, str]] = {}
# Messages by the type of pydantic's error: https://docs.pydantic.dev/latest/errors/validation_errors/
_PROBLEMS: Final = {
    "bool_type": "expected true or false",
    "extra_forbidden": "is not allowed here; remove it or check its spelling",
    "greater_than_equal": "expected a number ≥ {ge}",
    "int_type": "expected an integer",
    "less_than_equal": "expected a number ≤ {le}",
    "list_type": "expected a list",
    "literal_error": "expected {expected}",
    "missing": "is missing",
    "model_type": "expected a JSON object",
    "string_too_long": "expected at most {max_length} characters",
    "string_type": "expected a string",
    "too_long": "expected at most {max_length} {entries}, found {actual_length}",
    "too_short": "expected at least {min_length} {entries}, found {actual_length}",
    "union_tag_invalid": "expected {expected_tags}",
    "union_tag_not_found": "is missing",
    "value_error": "{error}",
}

T = TypeVar("T")


class StrictModel(BaseModel):
    """Base class of the models. They are immutable and reject unknown keys."""

    # hide_input_in_errors: messages must not repeat a secret or an address in the wrong place.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


@dataclass(frozen=True)
class Fault:
    """An error in a document: the keys and indexes of its path, and the problem, without the value."""

    steps: tuple[str | int, ...]
    problem: str

    @property
    def path(self) -> str:
        """The path as a string such as ``sources[0].name``. It is empty for the document itself."""
        return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.steps).removeprefix(".")

    def __str__(self) -> str:
        return f"{self.path or 'the document'}: {self.problem}"


def pattern_field(*, pattern: str, expected: str, description: str | None = None) -> Any:
    """Return a string field with a pattern. ``expected`` describes the expected value in messages."""
    _EXPECTED[pattern] = expected
    return Field(pattern=pattern, description=description)


def invalid(problem: str, *, steps: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """Return an error for a validator to raise. ``steps`` is the path from the validated value to the error.

    If the validated value itself is invalid, a validator can raise ValueError instead.
    """
    # The problem is passed in the context, because pydantic replaces braces in the template.
    return PydanticCustomError("meibo", "{problem}", {"problem": problem, "steps": steps})


def _not_null(value: Any) -> Any:
    if value is None:
        raise ValueError("expected a value, found null; remove the key")
    return value


# A field that can be missing but cannot be null.
Omissible = Annotated[T | None, BeforeValidator(_not_null)]


def parse_json(text: str) -> tuple[Any, list[Fault]]:
    """Return the document, and the errors that Python's parser accepts: repeated keys, long integers, lone surrogates.

    Raises ValueError with the line and the column if the text is not valid JSON.
    """
    try:
        document = json.loads(text, object_pairs_hook=_parse_object, parse_int=_parse_integer)
        return document, list(_json_faults(document, ()))
    except json.JSONDecodeError as error:
        reason = f"not valid JSON (line {error.lineno}, column {error.colno})"
    except RecursionError:
        reason = "not valid JSON: it has too many levels"
    raise ValueError(reason)


def model_faults(error: ValidationError, document: Any) -> list[Fault]:
    """Return the errors of a document that a model rejected."""
    return [_model_fault(details, document) for details in error.errors(include_url=False, include_input=False)]


@dataclass(frozen=True)
class _InvalidValue:
    """The replacement for a value that is valid JSON but is not accepted."""

    problem: str


def _parse_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        is_repeated = key in document
        document[key] = (
            _InvalidValue("expected the key once, found it more than once; remove the duplicates")
            if is_repeated
            else value
        )
    return document


def _parse_integer(literal: str) -> int | _InvalidValue:
    digits = len(literal.removeprefix("-"))
    if digits <= MAX_INTEGER_DIGITS:
        return int(literal)
    return _InvalidValue(f"expected an integer of at most {MAX_INTEGER_DIGITS} digits, found {digits:,} digits")


def _json_faults(value: Any, steps: tuple[str | int, ...]) -> Iterator[Fault]:
    if isinstance(value, _InvalidValue):
        yield Fault(steps, value.problem)
    elif isinstance(value, str) and _LONE_SURROGATE.search(value):
        # JSON can contain a lone surrogate as an escape sequence, but UTF-8 cannot encode it.
        yield Fault(steps, "expected text that can be encoded as UTF-8, found a lone surrogate")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _json_faults(item, (*steps, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _json_faults(key, steps)
            yield from _json_faults(item, (*steps, key))


def _model_fault(details: ErrorDetails, document: Any) -> Fault:
    kind, context, location = details["type"], details.get("ctx", {}), details["loc"]
    steps: list[str | int] = []
    node: Any = document
    for step in location:
        # pydantic adds the labels of union members to a location. They are not keys of the document.
        if isinstance(step, int) or (isinstance(node, dict) and step in node):
            steps.append(step)
            node = node[step]
    if kind == "meibo":
        return Fault((*steps, *context["steps"]), context["problem"])
    if kind == "missing":
        steps.append(location[-1])
    elif kind.startswith("union_tag"):
        steps.append(context["discriminator"].strip("'"))
    return Fault(tuple(steps), _problem(kind, details["msg"], context))


def _problem(kind: str, message: str, context: dict[str, Any]) -> str:
    if expected := _EXPECTED.get(context.get("pattern", "")):
        return f"expected {expected}"
    if kind in _PROBLEMS:
        tags = " or ".join(context.get("expected_tags", "").rsplit(", ", 1))
        entries = "entry" if 1 in (context.get("min_length"), context.get("max_length")) else "entries"
        return _PROBLEMS[kind].format_map({**context, "expected_tags": tags, "entries": entries})
    return f"{message[0].lower()}{message[1:]}"
