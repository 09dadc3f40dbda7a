"""The CSV exports of a domain, in the format set by its switches."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from meibo_simulators.cybozu.directory import Structure, services
from meibo_simulators.cybozu.switches import Switches

BOM = "\ufeff".encode()
ROWS_PER_CHUNK = 200
_USER_COLUMNS = (
    *("surName", "givenName", "surNameReading", "givenNameReading", "localName", "localNameLocale", "email", "valid"),
    *("locale", "timezone", "phone", "extensionNumber", "mobilePhone", "url"),
    *("employeeNumber", "joinDate", "birthDate", "description", "sortOrder", "callto"),
)
FILES = ("user", "organization", "title", "group", "userOrganizations", "userGroups", "userServices")


def csv_file(structure: Structure, switches: Switches, name: str) -> Iterator[bytes]:
    """Yield the chunks of a file in UTF-8 without a header row."""
    if switches.csv_bom:
        yield BOM
    out = io.StringIO()
    writer = csv.writer(
        out,
        lineterminator=switches.csv_line_end,
        quoting=csv.QUOTE_ALL if switches.csv_quoting == "all" else csv.QUOTE_MINIMAL,
    )
    for number, row in enumerate(_rows(structure, switches, name), 1):
        writer.writerow(row)
        if number % ROWS_PER_CHUNK == 0:
            yield out.getvalue().encode()
            out.seek(0)
            out.truncate()
    yield out.getvalue().encode()


def _rows(structure: Structure, switches: Switches, name: str) -> Iterable[list[Any]]:
    directory = structure.directory
    delete = [""] if switches.csv_delete_column else []
    if name == "user":
        return (_user_row(switches.shown(user), switches, delete) for user in directory.users())
    if name == "organization":
        # Organizations have no delete column. An import deletes the organizations that are missing from the file.
        columns = ("localName", "localNameLocale", "parentCode", "description")
        return ([*_start(unit, switches), *(unit[column] for column in columns)] for unit in structure.organizations)
    if name == "title":
        return ([*_start(title, switches), title["description"], *delete] for title in structure.titles)
    if name == "group":
        return (
            [*_start(group, switches), group["type"], group["description"], *delete]
            for group in structure.groups
            if group["type"] != "system"
        )
    return ([directory.user(index)["code"], *_cells(structure, name, index)] for index in directory.numbers())


def _start(entry: dict[str, Any], switches: Switches) -> list[Any]:
    new_code = {"empty": "", "same": entry["code"], "star": "*"}[switches.csv_new_code]
    return [entry["code"], entry["name"], new_code]


def _user_row(user: dict[str, Any], switches: Switches, delete: list[str]) -> list[Any]:
    """Return a row of user.csv: 25 columns, or 24 without the delete column, and a column per custom item."""
    values = {**user, "valid": "1" if user["valid"] else "0"}
    columns = [values[name] for name in _USER_COLUMNS]
    items = [item["value"] for item in user["customItemValues"]]
    return [*_start(user, switches), switches.csv_password, *columns, *delete, *items]


def _cells(structure: Structure, name: str, index: int) -> Iterator[str]:
    """Yield the codes of a user's organizations, groups or services. The rows have different lengths."""
    if name == "userOrganizations":
        for organization, title in structure.places(index):
            yield from (organization["code"], "" if title is None else title["code"])
    elif name == "userGroups":
        yield from (group["code"] for group in structure.groups_of(index) if group["type"] == "static")
    else:
        yield from services(index)
