"""moto's interpreter of the workflow, which reads a definition once instead of once for each execution."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from functools import cache
from typing import Any
from unittest.mock import patch

from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser

# Reading the definition takes longer than most executions of it.
_parse = cache(AmazonStateLanguageParser.parse)


def _parse_once(definition: str) -> Any:
    program, tree = _parse(definition)
    # An execution may keep what it works with in the program.
    return copy.deepcopy(program), tree


def definitions_read_once() -> AbstractContextManager[object]:
    """Let each definition be parsed once in the life of the process, while it is entered."""
    return patch.object(AmazonStateLanguageParser, "parse", staticmethod(_parse_once))
