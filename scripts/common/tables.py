"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    """Format a Markdown table with aligned columns; a column of numbers only is aligned to the right.

    Floats get four significant digits; format a cell yourself for anything else.
    """
    cells = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    right = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(headers))]
    widths = [max(3, *(len(line[column]) for line in [list(headers), *cells])) for column in range(len(headers))]
    rule = ["-" * (width - 1) + (":" if is_right else "-") for width, is_right in zip(widths, right, strict=True)]
    lines = [
        [
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(line, widths, right, strict=True)
        ]
        for line in [list(headers), rule, *cells]
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(share: float) -> str:
    """A share of 1 in percent, with one digit after the point."""
    return f"{100 * share:.1f} %"
