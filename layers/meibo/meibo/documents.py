"""Typed JSON documents: dataclasses that are read from and written to JSON objects.

The fields of a class are the keys of its object. Their types are ``bool``, ``int`` (≥ 0), ``float``, ``str`` (not
empty unless the type is ``Text`` or includes None), ``datetime`` (with a time zone), ``Literal``, ``Mapping``,
``tuple``, dataclasses and unions. A missing field has its default value, or None if its type includes None. Unknown
keys are ignored.

Error messages contain the field, the expected type and the actual type. They contain no value except the version of the
document, because a document may contain user data. docs/decisions.md explains why this module does not use pydantic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from datetime import UTC, datetime
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Final, Literal, Self, Union, get_args, get_origin, get_type_hints

from meibo.errors import ArchiveConflictError, ConfigurationError, MeiboError

# Annotations of the types of fields.
PositiveInt = Annotated[int, "positive"]
Text = Annotated[str, "may be empty"]
# The keys of this object are keys of the document itself. A flattened Mapping contains the keys that are not fields.
FLATTEN: Final = "flatten"
# Invalid entries of this list are skipped.
SKIP_INVALID: Final = "skip invalid"


@dataclass(frozen=True)
class Key:
    """Annotation of a field whose key differs from its name."""

    name: str


_NAMES: Final = {str: "a string", bool: "a boolean", int: "a number", float: "a number", NoneType: "nothing"}
_SCALARS: Final[dict[Any, tuple[tuple[type, ...], str]]] = {
    str: ((str,), "a string"),
    bool: ((bool,), "true or false"),
    int: ((int,), "an integer ≥ 0"),
    PositiveInt: ((int,), "an integer ≥ 1"),
    float: ((int, float), "a number"),
    Mapping: ((dict,), "an object"),
}


class InvalidFieldError(Exception):
    """The field at a path is invalid. ``__post_init__`` of a document raises this error if fields are inconsistent."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


@dataclass(frozen=True)
class Document:
    """Base class of documents.

    ``version_key`` is the key of the document's version, or None. ``derived`` contains the names of the properties that
    are written but not read.
    """

    version_key: ClassVar[str | None] = None
    version: ClassVar[int] = 1
    derived: ClassVar[tuple[str, ...]] = ()
    error_type: ClassVar[type[MeiboError]] = ArchiveConflictError

    @classmethod
    def upgraded(cls, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a document of an earlier version of Meibo in the format of this version."""
        return document

    @classmethod
    def from_json(cls, document: Any, name: str) -> Self:
        """Return the document in a JSON object. ``name`` names the object in messages.

        Raises ``error_type`` if the object is invalid, and ConfigurationError if a later version of Meibo wrote it.
        """
        try:
            if cls.version_key and isinstance(document, Mapping):
                written = _read(PositiveInt, document.get(cls.version_key), cls.version_key)
                if written > cls.version:
                    raise ConfigurationError(
                        f"{name}: expected {cls.version_key} {cls.version}, found {written}; update Meibo to read it"
                    )
            value: Self = _read(cls, document, "")
        except InvalidFieldError as error:
            raise cls.error_type(f"{name}.{error}" if error.path else f"{name}: {error}", detail=str(error)) from None
        return value

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object. Fields that have their default values are omitted."""
        document: dict[str, Any] = _to_json(self)
        return {self.version_key: self.version, **document} if self.version_key else document


@dataclass(frozen=True)
class _Field:
    """A field of a dataclass. ``marks`` are the annotations of its type."""

    name: str
    key: str
    hint: Any
    marks: tuple[Any, ...]
    default: Callable[[], Any] | None


@cache
def _fields(kind: Any) -> tuple[_Field, ...]:
    hints, fields = get_type_hints(kind, include_extras=True), []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        marks = hint.__metadata__ if get_origin(hint) is Annotated else ()
        names = [mark.name for mark in marks if isinstance(mark, Key)]
        default = field.default_factory if field.default is MISSING else _constant(field.default)
        fields.append(
            _Field(
                name=field.name,
                key=names[0] if names else field.name,
                hint=hint.__origin__ if names else hint,
                marks=marks,
                default=None if default is MISSING else default,
            )
        )
    return tuple(fields)


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _to_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    document = {name: getattr(value, name) for name in getattr(value, "derived", ())}
    for field in _fields(value.__class__):
        item = getattr(value, field.name)
        if FLATTEN in field.marks:
            document |= _to_json(item)
        elif field.default is None or item != field.default():
            document[field.key] = _to_json(item)
    return document


def _read(hint: Any, value: Any, path: str) -> Any:
    if hint is type(value) and (hint is not int or value >= 0):
        return value  # most fields
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        value = _read_object(hint, value, path)
    elif origin is Annotated and SKIP_INVALID in arguments:
        value = _read_list(get_args(arguments[0])[0], value, path, skip_invalid=True)
    elif origin is Annotated and hint != PositiveInt:
        value = _read(arguments[0], value, path)
    elif origin is tuple:
        value = _read_list(arguments[0], value, path)
    elif hint is datetime:
        value = parse_moment(value, path)
    elif origin not in (Union, UnionType):
        _check_scalar(hint, value, path)
    elif value is not None or NoneType not in arguments:
        choices = (choice for choice in arguments if (get_origin(choice) is tuple) is isinstance(value, list))
        value = _read(next(choices, arguments[0]), value, path)
    return value


def _check_scalar(hint: Any, value: Any, path: str) -> None:
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        valid, expected = value in choices, " or ".join(f'"{choice}"' for choice in choices)
    else:
        types, expected = _SCALARS[get_origin(hint) if get_origin(hint) is Mapping else hint]
        valid = type(value) in types and (hint is not int or value >= 0) and (hint != PositiveInt or value >= 1)
    if not valid:
        raise _mismatch(path, expected, value)


def _read_object(kind: Any, value: Any, path: str) -> Any:
    if not isinstance(value, Mapping):
        raise _mismatch(path, "an object", value)
    document = kind.upgraded(value) if issubclass(kind, Document) else value
    fields, values = _fields(kind), {}
    for field in fields:
        item = document.get(field.key)
        inner = f"{path}.{field.key}" if path else field.key
        if FLATTEN in field.marks:
            known = {other.key for other in fields if FLATTEN not in other.marks}
            values[field.name] = _read(field.hint, {key: document[key] for key in document if key not in known}, path)
        elif field.key not in document and field.default is not None:
            values[field.name] = field.default()
        elif field.hint is str and (not isinstance(item, str) or not item):
            raise _mismatch(inner, "a string that is not empty", item)
        else:
            values[field.name] = _read(field.hint, item, inner)
    try:
        return kind(**values)
    except InvalidFieldError as error:
        raise InvalidFieldError(".".join(filter(None, (path, error.path))), error.problem) from None


def _read_list(hint: Any, value: Any, path: str, *, skip_invalid: bool = False) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _mismatch(path, "a list", value)
    items = []
    for number, item in enumerate(value):
        try:
            items.append(_read(hint, item, f"{path}[{number}]"))
        except InvalidFieldError:
            if not skip_invalid:
                raise
    return tuple(items)


def parse_moment(value: Any, path: str) -> datetime:
    """Return a time in UTC, raising InvalidFieldError with the path if it is invalid or has no time zone."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise _mismatch(path, "a time such as 2026-11-21T18:00:00Z", value) from None
    if moment.tzinfo is None:
        raise _mismatch(path, "a time with a time zone such as 2026-11-21T18:00:00Z", value)
    return moment.astimezone(UTC)


def _mismatch(path: str, expected: str, value: Any) -> InvalidFieldError:
    name = _NAMES.get(type(value), "a list" if isinstance(value, list) else "an object")
    return InvalidFieldError(path, f"expected {expected}, found {'an empty string' if value == '' else name}")
