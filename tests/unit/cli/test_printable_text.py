"""Text from other systems is printed as is: neither the terminal nor Rich interprets it."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from meibo_cli.terminal import escape_control_characters, json_text, printable, spreadsheet_writer

HOSTILE = [
    "auth0|[/x]",
    "auth0|[red]x[/red]",
    "auth0|x\\",
    "auth0|[bold]\\[/bold]\\",
    "auth0|:cat:",
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31m",
    "line\r\nline\u2028line",
    "\u202egnp.exe",
    "\ud83d",
    "\U000e0041",
]


def _printed(text: str) -> str:
    output = io.StringIO()
    Console(file=output, force_terminal=True, color_system="standard", width=200, emoji=False, highlight=False).print(
        f"[red]{printable(text)}[/]"
    )
    return output.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_printed_but_not_interpreted(text: str) -> None:
    printed = _printed(text)

    assert printed == f"\x1b[31m{escape_control_characters(text)}\x1b[0m\n"
    assert printed.encode()


@pytest.mark.parametrize("text", ["auth0|5f7c8ec7c33c6c004bbafe82", "山田\u3000太郎", "髙橋 🏢 ½", ""])
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert escape_control_characters(text) == text
    assert printable(text) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_json_keeps_its_value(text: str) -> None:
    line = escape_control_characters(json.dumps({"member": text}, ensure_ascii=False))

    assert line.isprintable()
    assert json.loads(line) == {"member": text}


def test_json_on_several_lines_keeps_its_value_and_its_indentation() -> None:
    document = {"members": HOSTILE}

    text = json_text(document, indent=2)

    assert json.loads(text) == document
    assert len(text.splitlines()) == len(HOSTILE) + 4
    assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize(
    ("is_terminal", "expected"), [(False, "'=1\x1b,-1,1.5,,\x9b\n"), (True, "'=1\\u001b,-1,1.5,,\\u009b\n")]
)
def test_csv_contains_no_formula_and_no_terminal_escape(is_terminal: bool, expected: str) -> None:
    output = io.StringIO()

    spreadsheet_writer(output, is_terminal=is_terminal)(["=1\x1b", -1, 1.5, None, "\x9b"])

    assert output.getvalue() == expected
