"""The pictures of a sweep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from facecnn.reports.figure import TRAIN_COLOUR
from facecnn.reports.sweep import DrawnTrial, draw_importance, draw_parallel

BEST = "#d9641e"
RANGES = {
    "optimizer.learning_rate": {"low": 0.001, "high": 0.1, "log": True, "step": None},
    "photos.colour": {"choices": ["grey", "rgb"]},
}


def places(path: Path, colour: str) -> tuple[np.ndarray, tuple[int, int]]:
    """(n, 2): rows and columns of a colour's pixels; and the picture's size, rows first."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    return np.argwhere((pixels == ImageColor.getrgb(colour)).all(axis=-1)), pixels.shape[:2]


def test_a_line_for_the_best_trial(tmp_path: Path) -> None:
    """From the middle of the first axis, on a logarithmic scale, up to the second choice, and down to the lowest
    loss."""
    file = tmp_path / "parallel.png"
    trials = [
        DrawnTrial({"optimizer.learning_rate": 0.001, "photos.colour": "grey"}, 0.9),
        DrawnTrial({"optimizer.learning_rate": 0.01, "photos.colour": "rgb"}, 0.1),
        DrawnTrial({"optimizer.learning_rate": 0.1, "photos.colour": "grey"}, 0.5),
    ]
    draw_parallel(file, RANGES, trials)
    found, (height, _) = places(file, BEST)
    rows, columns = found[:, 0], found[:, 1]
    left, middle, right = columns.min(), (columns.min() + columns.max()) // 2, columns.max()
    first, second, last = (rows[abs(columns - column) <= 4].mean() for column in (left, middle, right))
    assert second < first < last
    assert first - second == pytest.approx(last - first, rel=0.15)
    assert last - second > height / 2


def test_trials_of_equal_loss(tmp_path: Path) -> None:
    file = tmp_path / "parallel.png"
    trial = DrawnTrial({"optimizer.learning_rate": 0.01, "photos.colour": "rgb"}, 0.5)
    draw_parallel(file, RANGES, [trial, trial])
    assert len(places(file, BEST)[0])


def test_the_most_important_setting_is_at_the_top(tmp_path: Path) -> None:
    file = tmp_path / "importance.png"
    draw_importance(file, {"small": 0.25, "large": 0.75})
    found, (height, _) = places(file, TRAIN_COLOUR)
    above, below = (found[found[:, 0] < height / 2.3], found[found[:, 0] > height / 2.3])
    lengths = [np.ptp(half[:, 1]) for half in (above, below)]
    assert lengths[0] / lengths[1] == pytest.approx(3, rel=0.05)
