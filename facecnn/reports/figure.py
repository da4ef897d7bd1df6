"""What the plots share. Figures are drawn without pyplot, so no display and no global state is touched."""

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
"""Pixels an inch of every picture."""

WITHOUT_PICTURES = "matplotlib can't be loaded, so the pictures are left out: pip install matplotlib"


def can_draw() -> bool:
    """Whether matplotlib is there. A training does without its pictures where it isn't."""
    try:
        import matplotlib  # noqa: F401 (whether it is there doesn't say whether it can be loaded)
    except ImportError:
        return False
    return True


@contextmanager
def saved_figure(
    path: Path,
    width: float,
    height: float,
    families: Sequence[str] = (FONT,),
    *,
    laid_out: bool = True,
    transparent: bool = False,
) -> Iterator["Figure"]:
    """A figure of that many inches, written to `path` at the end, in matplotlib's own style whatever the user's is.

    `families`: the fonts, see `Lettering`. One that is not `laid_out` is of just that size, and whoever draws it places
    all that is in it, which takes less than half the time; else it becomes as large as what is in it. Without a
    `transparent` ground it has a white one, and the report turns it over on a dark page.
    """
    import matplotlib
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.style.context("default"), warnings.catch_warnings():
        # A letter that no font has is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcParams["font.family"] = list(families)  # the context restores it
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained" if laid_out else None)
        canvas = FigureCanvasAgg(figure)
        yield figure
        picture = io.BytesIO()
        size: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.12} if laid_out else {}
        canvas.print_figure(picture, format="png", dpi=DPI, facecolor="none" if transparent else "auto", **size)
    write_atomically(path, picture.getvalue())


def make_plain(panel: "Axes") -> None:
    """A pale grid behind what is drawn, and no frame above and at the right."""
    panel.grid(color="#e4e4e4", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def count_on(axis: "Axis", most: int = 10) -> None:
    """Marks at whole numbers only, so many at most or about."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(most, integer=True, steps=[1, 2, 5, 10]))


def explain(figure: "Figure", handles: Sequence["Artist"], columns: int, title: str | None = None) -> "Legend | None":
    """A legend above all panels, where it hides no data; in fewer columns where it is too wide for the figure."""
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
    """Place the panels of a figure that isn't laid out: below the legend, with ``left`` inches for the scales and
    ``titles`` inches above them, and ``gap`` of a panel's height and width between them."""
    above = titles + (0.0 if legend is None else legend.get_window_extent().height / figure.dpi)
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=left / width, right=1 - 0.15 / width, bottom=0.55 / height, top=1 - above / height, hspace=gap, wspace=gap
    )
