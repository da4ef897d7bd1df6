"""What the plots share. Figures are drawn without pyplot, and so without a display or global state."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facecnn.reports.lettering import FONT
from facecnn.runs.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

TRAIN_COLOUR = "#1f6fb4"
FAINT = "#8a8a8a"
DPI = 110
"""Pixels per inch of every picture."""
COMPRESSION = 3
"""Compression level of PNG files: half the time of Pillow's own level, and at most a fifth more bytes."""

WITHOUT_PICTURES = "matplotlib can't be loaded, so the pictures are left out: pip install matplotlib"


def can_draw() -> bool:
    """Whether matplotlib can be loaded. If it can't, training draws no pictures."""
    try:
        import matplotlib  # noqa: F401 (it may be installed, but fail to load)
    except ImportError:
        return False
    return True


@contextmanager
def saved_figure(
    path: Path | None, width: float, height: float, families: Sequence[str] = (FONT,), *, laid_out: bool = True
) -> Iterator["Figure"]:
    """A figure that is written to a file at the end, in matplotlib's default style, whatever the user's style is.

    Args:
        path: the PNG file to write; None: it is only drawn.
        width: in inches.
        height: in inches.
        laid_out: let matplotlib lay out the figure, and fit its size to its content. Without, the size is exact and the
            caller places everything, which takes less than half the time.
    """
    import matplotlib
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.style.context("default"), warnings.catch_warnings():
        # It is fine to draw a letter that no font has as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcParams["font.family"] = list(families)  # the context restores it
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained" if laid_out else None)
        canvas = FigureCanvasAgg(figure)
        yield figure
        picture = io.BytesIO()
        size: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.12} if laid_out else {}
        canvas.print_figure(picture, format="png", dpi=DPI, pil_kwargs={"compress_level": COMPRESSION}, **size)
    if path is not None:
        write_atomically(path, picture.getvalue())


def make_plain(panel: "Axes") -> None:
    """Draw a pale grid, and no frame at the top and right."""
    panel.grid(color="#e4e4e4", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def count_on(axis: "Axis", most: int = 10) -> None:
    """Put ticks at integers only, and no more than about ``most``."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(most, integer=True, steps=[1, 2, 5, 10]))


def explain(figure: "Figure", handles: Sequence["Artist"], columns: int, title: str | None = None) -> "Legend | None":
    """Draw a legend above all panels, in fewer columns where it would be too wide for the figure."""
    if not handles:
        return None
    while True:
        legend = figure.legend(
            handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=9, title=title
        )
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return legend
        legend.remove()
        columns -= 1


def place_below(legend: "Legend | None", figure: "Figure", left: float, titles: float, gap: float) -> None:
    """Place the panels below the legend, in a figure that isn't laid out by matplotlib.

    ``left`` and ``titles`` are inches for the scales and titles, ``gap`` is a share of a panel's size.
    """
    above = titles + (0.0 if legend is None else legend.get_window_extent().height / figure.dpi)
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=left / width, right=1 - 0.15 / width, bottom=0.55 / height, top=1 - above / height, hspace=gap, wspace=gap
    )
