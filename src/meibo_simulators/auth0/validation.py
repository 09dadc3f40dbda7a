"""Validate bodies, queries and paths against the API's schemas, with the messages of the z-schema library.

Three recorded messages of the API are those of this library, so the other messages are also taken from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from meibo_simulators.auth0.errors import ApiError

Schema = dict[str, Any]
NON_EMPTY: Schema = {"type": "string", "minLength": 1}
_CODES = {"Payload": "invalid_body", "Query": "invalid_query_string", "Path": "invalid_uri"}


def object_schema(properties: dict[str, Schema], *required: str, additional: bool = False) -> Schema:
    """Return the schema of an object. ``additional`` allows other properties."""
    return {
        "type": "object",
        "required": required,
        "additionalProperties": additional,
        "properties": properties,
    }


def array_schema(items: Schema, **more: Any) -> Schema:
    """Return the schema of an array with at least one item."""
    return {"type": "array", "minItems": 1, "items": items, **more}


def connection_id_schema(description: str = "Connection identifier.") -> Schema:
    """Return the schema of a connection id."""
    return {"type": "string", "pattern": "^con_[A-Za-z0-9]{16}$", "description": description}


def type_name(value: Any) -> str:
    """Return z-schema's name for the JSON type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _violations(value: Any, schema: Schema, path: str) -> Iterator[tuple[str, str, Schema]]:
    """Yield the message, path and schema of each violation, outermost first."""
    kind = type_name(value)
    if schema.get("type", kind) != kind:
        yield f"Expected type {schema['type']} but found type {kind}", path, schema
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"No enum match for: {value}", path, schema
    if kind == "string":
        yield from _string_violations(value, schema, path)
    elif kind == "integer":
        if value < schema.get("minimum", value):
            yield f"Value {value} is less than minimum {schema['minimum']}", path, schema
        if value > schema.get("maximum", value):
            yield f"Value {value} is greater than maximum {schema['maximum']}", path, schema
    elif kind == "array":
        yield from _array_violations(value, schema, path)
    elif kind == "object":
        yield from _object_violations(value, schema, path)


def _string_violations(value: str, schema: Schema, path: str) -> Iterator[tuple[str, str, Schema]]:
    size = len(value)
    if size > schema.get("maxLength", size):
        yield f"String is too long ({size} chars), maximum {schema['maxLength']}", path, schema
    if size < schema.get("minLength", 0):
        yield f"String is too short ({size} chars), minimum {schema['minLength']}", path, schema
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"String does not match pattern {schema['pattern']}: {value}", path, schema
    if "format" in schema and not re.search(schema["format_pattern"], value):
        yield f"Object didn't pass validation for format {schema['format']}: {value}", path, schema


def _array_violations(value: list[Any], schema: Schema, path: str) -> Iterator[tuple[str, str, Schema]]:
    size = len(value)
    if size > schema.get("maxItems", size):
        yield f"Array is too long ({size}), maximum {schema['maxItems']}", path, schema
    if size < schema.get("minItems", 0):
        yield f"Array is too short ({size}), minimum {schema['minItems']}", path, schema
    for position, item in enumerate(value):
        yield from _violations(item, schema.get("items", {}), f"{path}[{position}]")


def _object_violations(value: dict[str, Any], schema: Schema, path: str) -> Iterator[tuple[str, str, Schema]]:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"Missing required property: {name}", path, schema
    if schema.get("additionalProperties") is False:
        extra = [name for name in value if name not in properties]
        if extra:
            yield f"Additional properties not allowed: {','.join(extra)}", path, schema
    for name, item in value.items():
        if name in properties:
            yield from _violations(item, properties[name], f"{path}.{name}" if path else name)


def check(value: Any, schema: Schema, where: str = "Payload") -> None:
    """Raise a 400 error for the first violation. ``where`` is Payload, Query or Path."""
    for message, path, violated in _violations(value, schema, ""):
        text = f"{where} validation error: '{message}'"
        if path:
            description = violated.get("description")
            text += f" on property {path}" + (f" ({description})" if description else "")
        raise ApiError(400, f"{text}.", _CODES[where], rate_headers=False)


def check_path(name: str, value: str, schema: Schema) -> None:
    """Raise a 400 error for an invalid id or name in the path."""
    check({name: value}, {"properties": {name: schema}}, "Path")
