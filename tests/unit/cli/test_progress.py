"""The progress of a run: a table on a terminal, lines in a pipe."""

from __future__ import annotations

import io
import time

from rich.console import Console

from meibo_cli.progress import ProgressDisplay


def display(*, terminal: bool, height: int = 24) -> tuple[ProgressDisplay, Console, io.StringIO]:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=80, height=height, emoji=False, no_color=True)
    return ProgressDisplay(console), console, screen


def test_pipe_receives_a_line_per_change_of_state_that_is_not_wrapped() -> None:
    progress, _, screen = display(terminal=False)
    export_id = f"acme/users/ndjson/{'x' * 100}"

    with progress:
        progress.expect(export_id, "archive/a/")
        progress.change(export_id, "copying")
        progress.change(export_id, "copying")
        progress.change(export_id, "archived", rows=1234, bytes=5, ended=time.monotonic())

    first, second = screen.getvalue().splitlines()
    assert first.endswith(f" s  {export_id}  copying")
    assert second.endswith(f" s  {export_id}  archived  1,234 rows")


def test_received_bytes_belong_to_the_export_of_the_folder() -> None:
    progress, console, screen = display(terminal=True)
    progress.expect("acme/users/csv/all", "archive/a/")
    progress.change("acme/users/csv/all", "copying")

    progress.received("archive/a/users.csv", 2_000_000)
    progress.received("archive/a/_manifest.json", 500_000)
    progress.received("archive/b/users.csv", 500_000)
    console.print(progress.table())

    assert "2.0 MB" in screen.getvalue()
    assert "0 of 1 exports ended" in screen.getvalue()


def test_bytes_of_a_broken_copy_are_not_counted_twice() -> None:
    progress, console, screen = display(terminal=True)
    progress.expect("acme/users/csv/all", "archive/a/")
    for state in ("copying", "CopyBrokenError, retrying", "copying"):
        progress.change("acme/users/csv/all", state)
        progress.received("archive/a/users.csv", 1_000_000)
    console.print(progress.table())

    assert "1.0 MB" in screen.getvalue()


def test_small_terminal_shows_the_exports_in_progress() -> None:
    progress, console, screen = display(terminal=True, height=10)
    for number in range(50):
        progress.expect(f"acme/users/csv/{number}", f"archive/{number}/")
    progress.change("acme/users/csv/7", "copying")
    progress.change("acme/users/csv/8", "archived", ended=time.monotonic())

    console.print(progress.table())

    names = [word for word in screen.getvalue().split() if word.startswith("acme/")]
    assert names == ["acme/users/csv/7"]
    assert "1 of 50 exports ended" in screen.getvalue()
