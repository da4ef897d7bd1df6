"""What the experiments of this folder share: arguments, a table on stdout, a picture in one style."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.command import errors_told
from facecnn.errors import shown
from facecnn.runs.atomic import check_output, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#1f6fb4", "#d9641e", "#2c8a4b", "#b8233a", "#7a4fa3", "#8a8a8a"

_STYLE: Any = {
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "legend.framealpha": 0.9,
    "lines.linewidth": 1.6,
}


def parser(description: str | None, picture: str) -> argparse.ArgumentParser:
    """A parser with ``--output``, the PNG file to write: ``picture`` in the working directory unless said."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--output", type=new_file, default=picture, help=f"the picture, PNG (default: {picture})")
    return made


def new_file(text: str) -> Path:
    """For ``type=`` of an argument: a file to write, which is refused before the work begins if that can't be."""
    with errors_told():
        check_output(Path(text))
    return Path(text)


def at_least(least: int) -> Callable[[str], int]:
    """For ``type=`` of an argument: a whole number from ``least`` on."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return value

    return number


def table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    """A Markdown table, its columns aligned; those that hold numbers in all rows to the right.

    A float is written with four significant digits; give text for anything else.
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


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches. Must be made before anything is drawn: it sets the style."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcdefaults()  # whatever the user's own style is
    matplotlib.rcParams.update(_STYLE)
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and say so on stderr; ends the script with the error's exit code where that fails."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    drawn, picture = io.BytesIO(), io.BytesIO()
    FigureCanvasAgg(figure).print_figure(drawn, format="png", dpi=100)
    # 256 well-chosen colours are enough, and make the file a third of the size.
    image = Image.open(drawn).convert("RGB").quantize(256, kmeans=3, dither=Image.Dither.NONE)
    image.save(picture, format="png", optimize=True)
    with errors_told():
        write_atomically(path, picture.getvalue())
    print(f"Picture: {shown(path)}", file=sys.stderr)
