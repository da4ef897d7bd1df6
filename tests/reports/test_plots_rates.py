"""Pictures of learning rates: the course over a training, and a range test."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from facecnn.errors import OutputError
from facecnn.reports.plots import draw_range_test, draw_schedule


def is_png(path: Path) -> bool:
    with Image.open(path) as picture:
        return picture.format == "PNG" and np.asarray(picture.convert("L")).std() > 0


@pytest.mark.parametrize("steps", [1, 2, 7, 5000])
def test_a_course_of_any_length(steps: int, tmp_path: Path, drawn: list[Figure]) -> None:
    rates = np.linspace(0.01, 0.001, steps)
    draw_schedule(tmp_path / "s.png", rates, 3, "2 epochs of 3", "falls when it likes")
    assert is_png(tmp_path / "s.png")
    (panel,) = drawn[0].axes
    assert panel.get_xlabel() == "step (2 epochs of 3)"
    assert panel.lines[0].get_ydata() == pytest.approx(rates)
    assert drawn[0].get_supxlabel() == "falls when it likes"


@pytest.mark.parametrize("count", [1, 40, 100])
def test_a_range_test_of_any_length(count: int, tmp_path: Path, drawn: list[Figure]) -> None:
    rates = np.geomspace(1e-5, 10, 100)
    smooth = np.linspace(1, 0.5, count)
    single = [smooth + 0.1, smooth[: max(1, count // 2)]]
    marks = [(0.02, "suggested: 0.02"), (0.3, "2 / curvature: 0.3"), (30.0, "with momentum: 30")]
    draw_range_test(tmp_path / "r.png", rates, single, smooth, count < 100, marks)
    assert is_png(tmp_path / "r.png")
    (panel,) = drawn[0].axes
    assert panel.get_xscale() == "log"
    labels = panel.get_legend_handles_labels()[1]
    assert [label for label in labels if label in [text for _, text in marks]] == [text for _, text in marks]
    assert ("diverges" in labels) == (count < 100)
    assert panel.get_legend() is None, "it would hide the losses"
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == labels
    lowest, highest = panel.get_xlim()
    assert lowest < 1e-5
    assert highest > 30


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        draw_schedule(tmp_path / "nosuch" / "s.png", np.ones(3), 3, "1 epoch", "")
    with pytest.raises(OutputError, match="does not exist"):
        draw_range_test(tmp_path / "nosuch" / "r.png", np.ones(3), [np.ones(3)], np.ones(3), False, [])
