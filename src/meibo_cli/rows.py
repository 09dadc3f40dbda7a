"""An archived export as a file of rows that DuckDB reads: JSON objects, one a line, or Auth0's CSV as it is."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from meibo.archive.catalog import ArchivedExport
from meibo.archive.reader import ArchiveReader, read_document
from meibo.errors import ConfigurationError, WrongFormatError
from meibo.providers.auth0.fields import DEFAULT_FIELDS, wire_fields
from meibo_cli.download import download
from meibo_cli.encoding import opened, parse_exact_json, readable_copy, readable_json

# Columns of cybozu.com's files, which have no header row.
# https://cybozu.dev/ja/common/docs/user-api/csv/csv-format/
CYBOZU_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "users": (
        *("code", "name", "newCode", "password", "surName", "givenName", "surNameReading", "givenNameReading"),
        *("localName", "localNameLocale", "email", "valid", "locale", "timezone", "phone", "extensionNumber"),
        *("mobilePhone", "url", "employeeNumber", "joinDate", "birthDate", "description", "sortOrder", "callto"),
        "delete",
    ),
    "organizations": ("code", "name", "newCode", "localName", "localNameLocale", "parentCode", "description"),
    "titles": ("code", "name", "newCode", "description", "delete"),
    "groups": ("code", "name", "newCode", "type", "description", "delete"),
    "user_organizations": ("code",),
    "user_groups": ("code",),
    "user_services": ("code",),
}
# What tells one row from another, by provider and dataset; the first name that the file has.
_KEYS: Final[Mapping[tuple[str, str], tuple[tuple[str, ...], ...]]] = {
    ("auth0", "users"): (("user_id",), ("Id",), ("email",)),
    ("auth0", "members"): (("organization_id", "user_id"),),
    # A row is of an organization or of a group, so two of the four are there.
    ("cybozu", "members"): (("organization.id", "group.id", "member.user.id", "member.id"),),
    **{("cybozu", name): (("id",), ("code",)) for name in ("users", "organizations", "groups")},
}


Form = Literal["json", "csv"]


@dataclass(frozen=True)
class RowFile:
    """A file of rows on this machine, gzip or not, and what its rows are known by.

    ``key`` names values, with dots between the levels. ``expected`` is how many rows its manifest counts.
    """

    path: Path
    key: tuple[str, ...]
    columns: tuple[str, ...]
    form: Form = "json"
    expected: int | None = None

    def readable(self) -> RowFile:
        """Return the same rows in a file that DuckDB reads whatever their text is, written beside this one."""
        if self.form == "csv":
            return self.as_json()
        target = self.path.with_suffix(".readable.ndjson")
        readable_copy(self.path, target)
        return replace(self, path=target)

    def as_json(self) -> RowFile:
        """Return the same rows as a file of JSON objects, written beside this one."""
        target = self.path.with_suffix(".rows.ndjson")
        columns = _from_csv(self.path, target, "auth0", "users")
        return replace(self, path=target, columns=columns, form="json")

    def values(self, text: str) -> Mapping[str, Any]:
        """Return one row's values by name; ``text`` is JSON, for a CSV with values named ``c0``, ``c1`` and so on."""
        row: dict[str, Any] = parse_exact_json(text)
        if self.form == "json":
            return row
        return {name: _bare(row[f"c{place}"] or "") for place, name in enumerate(self.columns)}


def fetch_rows(archive: ArchiveReader, export: ArchivedExport, folder: Path, *, key: Sequence[str] = ()) -> RowFile:
    """Bring an export here with its digest checked; cybozu.com's CSV, whose rows differ in length, as JSON objects."""
    address = export.folder.address
    target = folder / f"{export.folder.run_id}.{address.format}"
    download(archive, export, target)
    manifest = read_document(archive, export.manifest_key) or {}
    path = target
    form: Form = "json"
    if address.format == "csv" and address.provider == "auth0":
        form, columns = "csv", _header(target)
    elif address.format == "csv":
        path = folder / f"{export.folder.run_id}.rows.ndjson"
        columns = _from_csv(target, path, address.provider, address.dataset)
        target.unlink()
    else:
        told = manifest.get("content", {}).get("columns")
        columns = tuple(told) if isinstance(told, list) else ()
    absent = [name for name in key if columns and name.partition(".")[0] not in columns]
    if absent:
        raise ConfigurationError(
            f"{export.export_id} has no column {', '.join(absent)}; its columns are {', '.join(columns[:40])}"
        )
    return RowFile(path, tuple(key) or _key(export, manifest, columns), columns, form, export.rows)


def _header(path: Path) -> tuple[str, ...]:
    return next((columns for columns, _ in csv_rows(path, "auth0", "users")), ())


def _key(export: ArchivedExport, manifest: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, ...]:
    address = export.folder.address
    exported = output_names(manifest) if address.provider == "auth0" else {}
    default = (("id",), ("code",), ("user_id",))
    for names in _KEYS.get((address.provider, address.dataset), default):
        found = tuple(exported.get(name, name) for name in names)
        if not columns or any(name.partition(".")[0] in columns for name in found):
            return found
    raise ConfigurationError(
        f"{export.export_id} has no column that tells its rows apart; name one with --key: {', '.join(columns[:40])}"
    )


def output_names(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return what each field of an Auth0 users export is called in its file, by the field's own name."""
    if manifest.get("dataset") != "users":
        return {}
    fields = manifest.get("request", {}).get("fields") or DEFAULT_FIELDS[str(manifest.get("format"))]
    return {field["name"]: field.get("export_as", field["name"]) for field in wire_fields(fields)}


def csv_records(path: Path) -> Iterator[list[str]]:
    """Yield the records of a CSV in UTF-8, gzip or not, of any length; invalid bytes are ``surrogateescape``."""
    csv.field_size_limit(sys.maxsize)
    with io.TextIOWrapper(opened(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            yield from csv.reader(file)
        except csv.Error as error:
            raise WrongFormatError(f"the CSV cannot be read: {error}") from None


def csv_rows(path: Path, provider: str, dataset: str) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Yield the columns and the values of each record; Auth0's values without their leading apostrophe."""
    records = csv_records(path)
    if provider == "auth0":
        columns = tuple(_bare(name) for name in next(records, []))
        for record in records:
            yield columns, [_bare(value) for value in record]
        return
    known = CYBOZU_COLUMNS.get(dataset, ())
    for record in records:
        more = tuple(f"column_{number}" for number in range(len(known) + 1, len(record) + 1))
        yield (*known[: len(record)], *more), record


def _bare(value: str) -> str:
    # Auth0 writes an apostrophe before every string, against spreadsheets that run formulas. Exactly one is its own.
    return value[1:] if value.startswith("'") else value


def _from_csv(source: Path, target: Path, provider: str, dataset: str) -> tuple[str, ...]:
    columns: tuple[str, ...] = ()
    with target.open("xb") as out:
        for names, values in csv_rows(source, provider, dataset):
            columns = names if len(names) > len(columns) else columns
            row = json.dumps(dict(zip(names, values, strict=False)), ensure_ascii=False)
            try:
                out.write(row.encode() + b"\n")
            except UnicodeEncodeError:
                out.write(readable_json(row.encode("utf-8", "surrogateescape")) + b"\n")
    return columns
