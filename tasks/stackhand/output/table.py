"""Draws tables of results as plain text."""

from __future__ import annotations

import io
from collections.abc import Sequence

from stackhand.output.console import Console
from stackhand.output.visible import visible

_WIDTH = 120


def width(console: Console) -> int:
    """Return the number of characters that a line of results may have."""
    import rich.console

    return rich.console.Console(file=console.stdout).width if console.is_terminal(console.stdout) else _WIDTH


def table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of text cells: as wide as the terminal, or as wide as its cells need in a pipe."""
    import rich.box
    import rich.console
    import rich.table
    import rich.text

    stream = console.stdout
    # Before the widths are measured.
    rows = [[visible(cell) for cell in row] for row in rows]
    drawn = rich.table.Table(box=rich.box.SIMPLE if console.is_terminal(stream) else None, pad_edge=False)
    for index, column in enumerate(columns):
        widest = max(len(row[index]) for row in [columns, *rows])
        # Only the last column shrinks.
        floor = None if index == len(columns) - 1 else widest
        drawn.add_column(column, overflow="ellipsis", no_wrap=True, min_width=floor)
    for row in rows:
        drawn.add_row(*(rich.text.Text(cell) for cell in row))
    target = io.StringIO()
    space = width(console) if console.is_terminal(stream) else _width(columns, rows)
    printer = rich.console.Console(file=target, width=space, no_color=True, highlight=False)
    printer.print(drawn)
    return "\n".join(line.rstrip() for line in target.getvalue().rstrip().splitlines())


def _width(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    widths = [max(len(row[index]) for row in [columns, *rows]) + 3 for index in range(len(columns))]
    return max(_WIDTH, sum(widths))
