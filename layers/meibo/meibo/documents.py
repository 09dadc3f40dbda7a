"""Read JSON objects field by field, with errors that name the field, the expected type and the found type.

Plans, events, manifests and records have one typed definition each, whose ``from_json`` reads its fields here.
Values are not quoted in errors, because a document may contain data of users.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from meibo.errors import ArchiveConflictError, ConfigurationError, MeiboError

_TYPE_NAMES: Final = {str: "a string", bool: "a boolean", int: "a number", float: "a number", type(None): "nothing"}


class Fields:
    """The fields of a JSON object.

    ``name`` is its name in errors, ``path`` its path in its document, ``error`` the class that is raised. The
    ``detail`` of an error begins with the path of the field.
    """

    def __init__(
        self, document: Any, name: str, error: type[MeiboError] = ArchiveConflictError, *, path: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self._path = path
        self._error = error
        if not isinstance(document, Mapping):
            raise self._exception((), f"expected an object, found {_type_name(document)}")
        self.document: Mapping[str, Any] = document

    def string(self, key: str) -> str:
        """Return a string that is not empty."""
        value = self.document.get(key)
        if not isinstance(value, str) or not value:
            self._fail(key, "a string that is not empty")
        return value

    def optional_string(self, key: str) -> str | None:
        """Return a string, or None if the field is missing or null."""
        value = self.document.get(key)
        if value is not None and not isinstance(value, str):
            self._fail(key, "a string")
        return value

    def integer(self, key: str, *, minimum: int = 0, default: int | None = None) -> int:
        """Return an integer that is at least ``minimum``; ``default`` replaces a missing field."""
        value = self.document.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            self._fail(key, f"an integer ≥ {minimum}")
        return value

    def optional_integer(self, key: str) -> int | None:
        """Return an integer ≥ 0, or None if the field is missing or null."""
        return None if self.document.get(key) is None else self.integer(key)

    def number(self, key: str, *, default: float | None = None) -> float:
        """Return a number; ``default`` replaces a missing field."""
        value = self.document.get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            self._fail(key, "a number")
        return value

    def boolean(self, key: str, *, default: bool | None = None) -> bool:
        """Return a boolean; ``default`` replaces a missing field."""
        value = self.document.get(key, default)
        if not isinstance(value, bool):
            self._fail(key, "true or false")
        return value

    def choice(self, key: str, choices: Mapping[str, Any]) -> Any:
        """Return the value of ``choices`` that the field names."""
        value = self.document.get(key)
        if not isinstance(value, str) or value not in choices:
            self._fail(key, " or ".join(f'"{choice}"' for choice in choices))
        return choices[value]

    def object(self, key: str) -> Fields:
        """Return the fields of an object."""
        return Fields(self.document.get(key), f"{self.name}.{key}", self._error, path=(*self._path, key))

    def optional_object(self, key: str) -> Fields | None:
        """Return the fields of an object, or None if the field is missing or null."""
        return None if self.document.get(key) is None else self.object(key)

    def mapping(self, key: str) -> dict[str, Any]:
        """Return an object as it is, or an empty object if the field is missing."""
        return dict(self.object(key).document) if key in self.document else {}

    def items(self, key: str) -> list[Any]:
        """Return the items of a list."""
        value = self.document.get(key)
        if not isinstance(value, list):
            self._fail(key, "a list")
        return value

    def moment(self, key: str, example: str = "2026-11-21T18:00:00Z") -> datetime:
        """Return a time with its time zone, in UTC."""
        value = self.document.get(key)
        try:
            moment = datetime.fromisoformat(value)  # type: ignore[arg-type]  # TypeError is handled
        except (TypeError, ValueError):
            self._fail(key, f"a time such as {example}")
        if moment.tzinfo is None:
            self._fail(key, f"a time with a time zone such as {example}")
        return moment.astimezone(UTC)

    def objects(self, key: str) -> list[Fields]:
        """Return the fields of each object in a list."""
        items = enumerate(self.items(key))
        return [Fields(item, f"{self.name}.{key}[{number}]", self._error) for number, item in items]

    def check_version(self, key: str, version: int) -> None:
        """Raise ConfigurationError if a later version of Meibo wrote the document."""
        written = self.integer(key, minimum=1)
        if written > version:
            raise ConfigurationError(f"{self.name}: expected {key} {version}, found {written}; update Meibo to read it")

    def check_keys(self, known: set[str]) -> None:
        """Raise the error if there are other keys than the known ones."""
        unknown = len(set(self.document) - known)
        if unknown:
            raise self._exception((), f"expected only {', '.join(sorted(known))}; found {unknown} other key(s)")

    def _fail(self, key: str, expected: str) -> NoReturn:
        raise self._exception((key,), f"expected {expected}, found {_type_name(self.document.get(key))}")

    def _exception(self, keys: tuple[str, ...], problem: str) -> MeiboError:
        path = ".".join((*self._path, *keys))
        name = ".".join((self.name, *keys))
        return self._error(f"{name}: {problem}", detail=f"{path}: {problem}" if path else problem)


def _type_name(value: Any) -> str:
    if value == "":
        return "an empty string"
    return _TYPE_NAMES.get(type(value), "a list" if isinstance(value, list) else "an object")
