"""Check the wording of the repository: ``python -m scripts.prose [PATH ...]``, a part of ``make lint``.

The script reads the comments, docstrings and strings of Python files, and the text of Markdown, YAML, Makefile and ASL
files. It reports words that have a plainer or a standard equivalent, and docstrings that begin with a question word.

To allow a place, for example a quotation, add ``prose: REASON`` in a comment: in the same line, in the line above, or
after the end of a multi-line string.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = frozenset({".md", ".py", ".yaml", ".yml"})
NAMES = frozenset({"Makefile", "export.asl.json"})

# These files contain the words.
EXCLUDED = frozenset({"scripts/prose.py", "tests/unit/test_prose.py"})

# Prefixes of paths that are not checked yet. Remove a path when its text has been revised.
UNCHECKED: tuple[str, ...] = ()

# A word to avoid, and what to write instead.
WORDS = {
    r"tells?|telling|told": "say, report or return",
    r"mend(s|ed|ing)?": "fix or repair",
    r"bury|buried|buries": "reject",
    r"(?<!dead )(?<!dead-)letters?(?!,? (and )?digits)(?! case)": "rejected change, or character",
    r"let(s|ting)? go|hand(s|ed|ing)? (\w+ )?back|pass(es|ed)? (\w+ )?over|taken for": "return, release or skip",
    r"(goes|go|going|went) on": "continue or resume",
    r"(is|was|are|were) due": "expected",
    r"whoever|whom|nobody|everybody": "the role that is meant: caller, sender, user",
    r"(this|that|each) one|the one(?= (that|which|of|in|from|with|for)\b|[.,;:)]|$)": "the noun",
    r"sees? to it|belongs? into": "ensure, belong to",
    r"stands? (alone|apart|for what)|comes? to an end": "be separate, end",
    r"(is|are) believed|(says|said) of": "is used, reports about",
    r"whole numbers?": "integer, with its bounds",
    r"a text(?! (editor|file))": "a string",
    r"a try": "an attempt",
    r"one (line|row|file|export|request|secret|call|job|folder|object|message) an? \w+": "one … per …",
}
PATTERNS = {re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE): advice for pattern, advice in WORDS.items()}
_QUESTION = re.compile(r"\s*(What|How|Where|Who|Whom|Whose|Whether|Why|When)\b")
_ALLOWED = re.compile(r"\bprose: \w")


@dataclass(frozen=True)
class Finding:
    """A place to rewrite."""

    line: int
    text: str
    advice: str


@dataclass(frozen=True)
class _Passage:
    """A passage of one or more lines that begins at a line of the file."""

    line: int
    text: str


def check(name: str, text: str) -> list[Finding]:
    """Return the findings in the text of a file. ``name`` determines how the text is parsed."""
    lines = text.splitlines()
    passages = list(_python(text)) if name.endswith(".py") else [_Passage(*entry) for entry in enumerate(lines, 1)]
    findings = [finding for passage in passages for finding in _words(passage, lines)]
    if name.endswith(".py"):
        findings += _docstrings(text, lines)
    return sorted(findings, key=lambda finding: finding.line)


def _python(text: str) -> Iterator[_Passage]:
    literal = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in literal:
            # Python 3.11 does not tokenize f-strings, so the expressions are removed here.
            is_format = token.type == tokenize.STRING and re.match(r"[rb]*f", token.string, re.IGNORECASE)
            yield _Passage(token.start[0], re.sub(r"\{[^{}]*\}", "", token.string) if is_format else token.string)


def _words(passage: _Passage, lines: list[str]) -> Iterator[Finding]:
    parts = passage.text.splitlines()
    for number, part in enumerate(parts, passage.line):
        if _is_allowed(lines, number, passage.line + len(parts) - 1):
            continue
        for pattern, advice in PATTERNS.items():
            for match in pattern.finditer(part):
                yield Finding(number, match.group(), advice)


def _docstrings(text: str, lines: list[str]) -> Iterator[Finding]:
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        docstring = ast.get_docstring(node, clean=False)
        if docstring is None or not (question := _QUESTION.match(docstring)):
            continue
        expression = node.body[0]
        if not _is_allowed(lines, expression.lineno, expression.end_lineno or expression.lineno):
            advice = "begin with a verb or a noun: Return …, The …"
            yield Finding(expression.lineno, question.group().strip(), advice)


def _is_allowed(lines: list[str], number: int, last: int) -> bool:
    return any(_ALLOWED.search(lines[index - 1]) for index in (number - 1, number, last) if index > 0)


def tracked_files(paths: list[str]) -> list[str]:
    """Return the tracked files with prose below the paths, or in the complete repository."""
    command = ["git", "ls-files", "-z", "--", *paths]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [
        name
        for name in names
        if (Path(name).suffix in SUFFIXES or Path(name).name in NAMES)
        and name not in EXCLUDED
        and (ROOT / name).is_file()
    ]


def main(paths: list[str]) -> int:
    """Print the findings and return the exit status. ``paths`` are checked even if they are in ``UNCHECKED``."""
    count = 0
    for name in tracked_files(paths):
        if not paths and name.startswith(UNCHECKED):
            continue
        for finding in check(name, (ROOT / name).read_text(encoding="utf-8")):
            print(f'{name}:{finding.line}: "{finding.text}": write instead: {finding.advice}')
            count += 1
    print(
        f"prose: {count} findings" + (f"; not checked yet: {', '.join(UNCHECKED)}" if UNCHECKED and not paths else "")
    )
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
