"""Pictures in one style."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.command import say
from facecnn.errors import shown
from facecnn.runs.atomic import write_atomically

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


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure of that many inches. It sets the style, so make it before anything is drawn."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcdefaults()  # whatever the user's own style is
    matplotlib.rcParams.update(_STYLE)
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, and say so on stderr. Raises OutputError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    drawn, picture = io.BytesIO(), io.BytesIO()
    FigureCanvasAgg(figure).print_figure(drawn, format="png", dpi=100)
    # 256 well-chosen colours are enough, and make the file a third of the size.
    image = Image.open(drawn).convert("RGB").quantize(256, kmeans=3, dither=Image.Dither.NONE)
    image.save(picture, format="png", optimize=True)
    write_atomically(path, picture.getvalue())
    say(f"Picture: {shown(path)}")
