"""Run the demonstration and write its terminal output as an SVG: ``python -m scripts.terminal_picture FILE``."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console
from rich.terminal_theme import MONOKAI

from meibo_local.runner import run
from meibo_local.sources import simulated_sources

COLUMNS = 110
USERS, CYBOZU_USERS = 50_000, 1_000
# The template of rich without its fonts, which pictures in a README cannot load.
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
{styles}
.{unique_id}-matrix {{
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: system-ui, sans-serif; }}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


class Transcript(Console):
    """A console that records the lines that remain on the terminal after a run."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print and record the objects, except the progress, which is erased from a terminal at the end."""
        if not options.get("soft_wrap"):
            super().print(*objects, **options)

    def capture(self) -> Any:
        """Print and record the output instead of capturing it, because rich does not record captured output."""
        return contextlib.nullcontext(SimpleNamespace(get=str))


def main(path: Path) -> int:
    """Run the demonstration in a temporary folder and write the picture. Return the exit status of the run."""
    console = Transcript(record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor", emoji=False)
    console.print("$ make run", highlight=False)
    with tempfile.TemporaryDirectory() as folder, simulated_sources(users=USERS, cybozu_users=CYBOZU_USERS) as sources:
        os.chdir(folder)
        status = run(sources, Path("archive-demo"), console, Path(".local/run.log"))
    console.save_svg(str(path), title="make run", theme=MONOKAI, code_format=SVG, unique_id="terminal")
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
