"""The check of the wording: findings, their lines, and allowed places."""

from __future__ import annotations

import re
import textwrap

import pytest

from scripts import prose


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prose, "PATTERNS", {re.compile(r"\butili[sz]e\b", re.IGNORECASE): "use"})


def _findings(name: str, text: str) -> list[tuple[int, str]]:
    return [(finding.line, finding.text) for finding in prose.check(name, textwrap.dedent(text).lstrip("\n"))]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("must be a Whole Number", ["Whole Number"]),
        ("one request a member, and it goes on", ["goes on", "one request a member"]),
        ("the one place for dead letters of 1 to 64 letters and digits, intelligent", []),
    ],
)
def test_listed_words_are_found(text: str, words: list[str]) -> None:
    assert _findings("page.md", text) == [(1, word) for word in words]


@pytest.mark.usefixtures("example")
def test_comments_and_strings_of_python_are_checked_but_not_names() -> None:
    source = '''
        utilize = "x"  # utilize it

        def utilise(utilize):
            """Return it.

            Callers utilise this.
            """
            raise ValueError(f"{utilize} is: utilize")
    '''

    assert _findings("module.py", source) == [(1, "utilize"), (6, "utilise"), (8, "utilize")]


@pytest.mark.parametrize("word", ["What", "How", "Where", "Who", "Whether", "Why", "When"])
def test_docstring_that_begins_with_a_question_word_is_found(word: str) -> None:
    source = f'''
        def function():
            """{word} it is."""

        TEXT = """{word} is no docstring here."""
    '''

    assert _findings("module.py", source) == [(2, word)]


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    "source",
    [
        'X = "utilize"  # prose: quoted from S3',
        '# prose: quoted from S3\nX = "utilize"',
        'def f():\n    """Return it.\n\n    Utilize.\n    """  # prose: quoted from S3',
        'def f():\n    """What it is."""  # prose: quoted from S3',
    ],
)
def test_place_with_a_reason_is_allowed(source: str) -> None:
    assert _findings("module.py", source) == []


@pytest.mark.usefixtures("example")
def test_markdown_is_allowed_only_with_a_reason() -> None:
    assert _findings("page.md", "<!-- prose: the provider's own words -->\nUtilize it.") == []
    assert _findings("page.md", "<!-- prose: -->\nUtilize it.") != []


def test_tracked_files_are_listed_without_the_list_of_words() -> None:
    names = prose.tracked_files([])

    assert {"README.md", "Makefile", "template.yaml", "statemachines/export.asl.json"} <= set(names)
    assert not prose.EXCLUDED & set(names)


def test_exit_status_is_1_if_there_are_findings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prose, "tracked_files", lambda _paths: ["samconfig.toml"])
    monkeypatch.setattr(prose, "check", lambda _name, _text: [])
    assert prose.main([]) == 0

    monkeypatch.setattr(prose, "check", lambda _name, _text: [prose.Finding(3, "utilize", "use")])
    assert prose.main([]) == 1
    assert 'samconfig.toml:3: "utilize": write instead: use' in capsys.readouterr().out
