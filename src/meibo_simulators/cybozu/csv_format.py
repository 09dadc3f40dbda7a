"""Write CSV in the format set by a domain's switches."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from meibo_simulators.cybozu.switches import Switches

BOM = "\ufeff".encode()
ROWS_A_PIECE = 200


def render(rows: Iterable[list[str]], switches: Switches) -> Iterator[bytes]:
    """Yield the file in pieces: UTF-8 without a header row."""
    if switches.csv_bom:
        yield BOM
    out = io.StringIO()
    quote_all = switches.csv_quoting == "all"
    writer = csv.writer(
        out,
        lineterminator=switches.csv_line_end,
        quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL,
    )
    for number, row in enumerate(rows, 1):
        writer.writerow(row)
        if number % ROWS_A_PIECE == 0:
            yield out.getvalue().encode()
            out.seek(0)
            out.truncate()
    yield out.getvalue().encode()
