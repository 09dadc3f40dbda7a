"""Where people belong: organizations, titles, groups and services of a cybozu.com domain, by number."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from meibo_simulators.cybozu import user_records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meibo_simulators.cybozu.directory import Directory
    from meibo_simulators.cybozu.switches import Switches

TITLES = ("部長", "課長", "主任", "Manager", '"Chief" of, staff')
SERVICES = (("kintone", "ki"), ("garoon", "gr"), ("office", "of"), ("mailwise", "mw"), ("secure_access", "sa"))
EVERYONE_ID = 7532782697181632512
DYNAMIC_GROUPS = 2
ADMINISTRATORS_EVERY = 100
_UNITS = ("営業部", "開発部", "人事部", "総務, 法務", 'R&D "Lab"', "支社\n東北", "Ünit")

Entry = dict[str, Any]


def services(index: int) -> list[tuple[str, str]]:
    """Return the services that somebody may use, as (name in JSON, code in CSV); everyone in seven uses none."""
    if index % 7 == 6:
        return []
    return [service for number, service in enumerate(SERVICES) if number == 0 or index % (number + 2) == 0]


class Structure:
    """The organizations, titles and groups of a domain, and who is in them."""

    def __init__(self, directory: Directory, switches: Switches, *, organizations: int, groups: int) -> None:
        self._directory = directory
        self._switches = switches
        self._count = organizations
        self._groups = groups

    # -- organizations and titles

    @cached_property
    def organizations(self) -> list[Entry]:
        """Every organization; a parent comes before its children, and the first is the only root."""
        return [
            {
                "id": str(number + 1),
                "code": f"org-{number:04d}",
                "name": f"{_UNITS[number % len(_UNITS)]} {number}",
                "localName": f"Unit {number}" if number % 3 == 0 else None,
                "localNameLocale": "en" if number % 3 == 0 else None,
                "parentCode": None if number == 0 else f"org-{(number - 1) // 4:04d}",
                "description": "=メモ" if number % 5 == 0 else None,
            }
            for number in range(self._count)
        ]

    @cached_property
    def titles(self) -> list[Entry]:
        """Every title."""
        return [
            {"id": str(number + 1), "code": f"title-{number}", "name": name, "description": None}
            for number, name in enumerate(TITLES)
        ]

    def places(self, index: int) -> list[tuple[Entry, Entry | None]]:
        """Return somebody's organizations with the title there, the preferred one first."""
        return [
            (self.organizations[number], None if title is None else self.titles[title])
            for number, title in user_records.places(index, self._count)
        ]

    def in_organization(self, code: str) -> Iterator[tuple[int, Entry | None]]:
        """Yield the numbers of an organization's users, and their titles in it."""
        for index in self._directory.numbers():
            for organization, title in self.places(index):
                if organization["code"] == code:
                    yield index, title

    # -- groups

    @cached_property
    def groups(self) -> list[Entry]:
        """Every group with its type, which JSON does not show."""
        made = [
            {
                "id": str(number + 1),
                "code": f"group-{number:03d}",
                "name": f"グループ {number}",
                "description": "" if number % 2 else "@memo\r\nline",
                "type": "static",
            }
            for number in range(self._groups)
        ]
        dynamic = [
            {
                "id": str(self._groups + number + 1),
                "code": f"dynamic-{number}",
                "name": f"動的 {number}",
                "description": None,
                "type": "dynamic",
            }
            for number in range(DYNAMIC_GROUPS if self._groups else 0)
        ]
        system = [
            {"id": str(EVERYONE_ID), "code": "everyone", "name": "Everyone", "description": None, "type": "system"},
            {
                "id": str(EVERYONE_ID + 1),
                "code": "Administrators",
                "name": "Administrators",
                "description": None,
                "type": "system",
            },
        ]
        return [*made, *dynamic, *system]

    def groups_of(self, index: int) -> list[Entry]:
        """Return the groups that somebody is in."""
        return [group for group in self.groups if self._is_in(index, group)]

    def _is_in(self, index: int, group: Entry) -> bool:
        if group["code"] == "everyone":
            return True
        if group["code"] == "Administrators":
            return index % ADMINISTRATORS_EVERY == 1
        return index % (int(group["id"]) + 1) == 0

    def in_group(self, group: Entry) -> Iterator[int]:
        """Yield the numbers of a group's users."""
        return (index for index in self._directory.numbers() if self._is_in(index, group))

    # -- files

    def rows(self, name: str) -> Iterator[list[str]]:
        """Yield the rows of a CSV export other than ``user``."""
        rows: Iterator[list[str]] = getattr(self, f"_rows_{name}")()
        return rows

    def _tail(self) -> list[str]:
        return [""] if self._switches.csv_delete_column else []

    def _new_code(self, code: str) -> str:
        return {"empty": "", "same": code, "star": "*"}[self._switches.csv_new_code]

    # Organizations have no delete column; a file that leaves one out deletes it.
    def _rows_organization(self) -> Iterator[list[str]]:
        for one in self.organizations:
            texts = [one[name] or "" for name in ("localName", "localNameLocale", "parentCode", "description")]
            yield [one["code"], one["name"], self._new_code(one["code"]), *texts]

    def _rows_title(self) -> Iterator[list[str]]:
        for one in self.titles:
            yield [one["code"], one["name"], self._new_code(one["code"]), one["description"] or "", *self._tail()]

    def _rows_group(self) -> Iterator[list[str]]:
        for one in self.groups:
            if one["type"] != "system":
                memo = one["description"] or ""
                yield [one["code"], one["name"], self._new_code(one["code"]), one["type"], memo, *self._tail()]

    def _rows_userOrganizations(self) -> Iterator[list[str]]:  # noqa: N802 - named after the file
        for index in self._directory.numbers():
            row = [self._directory.user(index)["code"]]
            for organization, title in self.places(index):
                row += [organization["code"], "" if title is None else title["code"]]
            yield row

    def _rows_userGroups(self) -> Iterator[list[str]]:  # noqa: N802 - named after the file
        for index in self._directory.numbers():
            codes = [group["code"] for group in self.groups_of(index) if group["type"] == "static"]
            yield [self._directory.user(index)["code"], *codes]

    def _rows_userServices(self) -> Iterator[list[str]]:  # noqa: N802 - named after the file
        for index in self._directory.numbers():
            yield [self._directory.user(index)["code"], *(code for _, code in services(index))]


FILES = ("organization", "title", "group", "userOrganizations", "userGroups", "userServices")
