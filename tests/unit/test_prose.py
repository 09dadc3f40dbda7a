"""The check of the wording finds what it should, where it is, and nothing that is allowed."""

from __future__ import annotations

import textwrap

import pytest

from scripts import prose


def _found(name: str, text: str) -> list[tuple[int, str]]:
    return [(finding.line, finding.text) for finding in prose.check(name, textwrap.dedent(text).lstrip("\n"))]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The log tells why.", ["tells"]),
        ("A function that sees to it that nobody waits.", ["nobody", "sees to it"]),
        ("one request a member", ["one request a member"]),
        ("must be a whole number", ["whole number"]),
        ("the one that failed", ["the one"]),
        ("the one place that knows every provider", []),
        ("dead letters, 1 to 64 letters and digits, intelligent", []),
        ("a message is handed back and goes on later", ["handed back", "goes on"]),
    ],
)
def test_words_are_found_in_text(text: str, words: list[str]) -> None:
    assert _found("page.md", text) == [(1, word) for word in words]


def test_comments_and_strings_of_python_are_read_and_names_are_not() -> None:
    source = '''
        told = "x"  # a comment that was told

        def mend(nobody):
            """Return it.

            Whoever calls this waits.
            """
            raise ValueError(f"{nobody} is due: {told} was due")
    '''

    assert _found("module.py", source) == [(1, "told"), (6, "Whoever"), (8, "is due"), (8, "was due")]


@pytest.mark.parametrize("word", ["What", "How", "Where", "Who", "Whether", "Why", "When"])
def test_docstring_that_begins_with_a_question_word_is_found(word: str) -> None:
    source = f'''
        def function():
            """{word} it is."""

        TEXT = """{word} is no docstring here."""
    '''

    assert _found("module.py", source) == [(2, word)]


@pytest.mark.parametrize(
    "source",
    [
        'X = "nobody"  # prose: quoted from S3',
        '# prose: quoted from S3\nX = "nobody"',
        'def f():\n    """Return it.\n\n    Nobody.\n    """  # prose: quoted from S3',
        'def f():\n    """What it is."""  # prose: quoted from S3',
    ],
)
def test_place_is_allowed_with_a_reason(source: str) -> None:
    assert _found("module.py", source) == []


def test_markdown_is_allowed_with_a_reason_and_not_without() -> None:
    assert _found("page.md", "<!-- prose: the provider's own words -->\nNobody.") == []
    assert _found("page.md", "<!-- prose: -->\nNobody.") != []


def test_files_of_the_repository_are_listed_and_the_words_themselves_are_not() -> None:
    names = prose.tracked_files([])

    assert {"README.md", "Makefile", "template.yaml", "statemachines/export.asl.json"} <= set(names)
    assert not prose.EXCLUDED & set(names)


def test_status_says_whether_something_was_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prose, "tracked_files", lambda _paths: ["samconfig.toml"])
    monkeypatch.setattr(prose, "check", lambda _name, _text: [])
    assert prose.main([]) == 0

    monkeypatch.setattr(prose, "check", lambda _name, _text: [prose.Finding(3, "told", "report")])
    assert prose.main([]) == 1
    assert 'samconfig.toml:3: "told": write instead: report' in capsys.readouterr().out
