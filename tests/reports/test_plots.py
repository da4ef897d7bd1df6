"""Pictures of a run: drawn for any history and any names, showing what they should, without touching anything else."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from facecnn.errors import OutputError
from facecnn.reports.plots import draw_confusion, draw_curves
from facecnn.reports.watching import draw_watching


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def explained(figure: Figure) -> list[str]:
    """What the legend above the panels tells; there is none elsewhere."""
    assert all(axes.get_legend() is None for axes in figure.axes)
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def history(epochs: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    return [
        {
            "epoch": epoch,
            "learning_rate": 0.002,
            "train_loss": float(np.exp(-6 * epoch / epochs + 0.1 * random.normal())),
            "train_accuracy": 0.9,
            "validation_loss": 0.3 if epoch % 2 else None,
            "validation_accuracy": 0.8 if epoch % 2 else None,
        }
        for epoch in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("epochs", [0, 1, 2, 60, 5000])
def test_curves_of_any_length(tmp_path: Path, drawn: list[Figure], epochs: int) -> None:
    draw_curves(tmp_path / "c.png", history(epochs), 1 if epochs else None)
    assert pixels(tmp_path / "c.png").std() > 0
    loss, accuracy, rate = drawn[0].axes
    labels = ["loss", "likeliest answer is right", "learning rate"]
    assert [axes.get_ylabel() for axes in (loss, accuracy, rate)] == labels
    told = explained(drawn[0])
    assert ("best: epoch 1, loss 0.3, 80.0% right" in told) == (epochs > 0)
    assert ("thin: each epoch" in told) == (epochs > 300)
    assert ("thick: mean of the 101 epochs around" in told) == (epochs > 300)
    if epochs:
        assert told[:2] == ["photos trained on", "held-out photos"]
        assert accuracy.get_ylim()[1] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("lowest", "scale"), [(0.5, "linear"), (0.001, "log"), (0.0, "linear")])
def test_loss_scale_follows_the_decades(tmp_path: Path, drawn: list[Figure], lowest: float, scale: str) -> None:
    metrics = [{"epoch": 1, "train_loss": 1.0}, {"epoch": 2, "train_loss": lowest}]
    draw_curves(tmp_path / "c.png", metrics, None)
    assert drawn[0].axes[0].get_yscale() == scale


def test_curves_without_validation_show_none(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_curves(tmp_path / "c.png", [{"epoch": 1, "train_loss": 1.0}, {"epoch": 2, "train_loss": 0.0}], None)
    assert explained(drawn[0]) == ["photos trained on"]


@pytest.mark.parametrize("epochs", [60, 800])
def test_curves_go_on_between_epochs_without_validation(tmp_path: Path, drawn: list[Figure], epochs: int) -> None:
    draw_curves(tmp_path / "c.png", history(epochs), None)
    [line] = [line for line in drawn[0].axes[0].get_lines() if line.get_label() == "held-out photos"]
    np.testing.assert_array_equal(line.get_xdata(), np.arange(1, epochs + 1, 2))
    np.testing.assert_allclose(np.asarray(line.get_ydata()), 0.3)


@pytest.mark.parametrize("count", [2, 7, 20, 40])
def test_confusion_of_any_size_shows_its_counts(tmp_path: Path, drawn: list[Figure], count: int) -> None:
    matrix = np.zeros((count, count), np.int64)
    matrix[np.arange(count), np.arange(count)] = np.arange(count)
    matrix[0, 1] = 123
    names = [f"person {number}" for number in range(count)]
    draw_confusion(tmp_path / "m.png", matrix, names, names, "photos")
    panel = drawn[0].axes[0]
    shown = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in panel.texts}
    assert shown[0, 1].split("\n")[0] == "123"
    assert all(shown[number, number].split("\n")[0] == str(number) for number in range(1, count))
    assert [label.get_text() for label in panel.get_yticklabels()][:2] == ["person 0 (123)", "person 1 (1)"]
    height, width, _ = pixels(tmp_path / "m.png").shape
    assert max(height, width) < 3000


def test_odd_names_and_titles_are_drawn_as_text(tmp_path: Path, drawn: list[Figure]) -> None:
    names = ["$x^{", "a\nb\x1b\udcff", "李😀", "x" * 200 + "1", "x" * 200 + "2", ""]
    draw_confusion(tmp_path / "m.png", np.eye(6, dtype=int), names, names, "$\\frac{ 100 %")
    labels = [label.get_text() for label in drawn[0].axes[0].get_xticklabels()]
    assert labels[0] == "$x^{"
    assert all(label.isprintable() or "\N{REPLACEMENT CHARACTER}" in label for label in labels)
    assert "\n" not in "".join(labels)
    assert max(map(len, labels)) <= 20
    assert len(set(labels)) == 6


def test_a_confusion_has_answers_that_are_no_people(tmp_path: Path, drawn: list[Figure]) -> None:
    matrix = np.array([[8, 0, 2], [1, 9, 0]])
    draw_confusion(tmp_path / "m.png", matrix, ["Ann", "Bob"], ["Ann", "Bob", "refused"], "photos")
    panel = drawn[0].axes[0]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["Ann", "Bob", "refused"]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["Ann (10)", "Bob (10)"]
    assert "2\n20%" in [text.get_text() for text in panel.texts]


def test_a_failed_drawing_keeps_the_old_picture(tmp_path: Path) -> None:
    draw_curves(tmp_path / "c.png", history(3), None)
    before = (tmp_path / "c.png").read_bytes()
    with pytest.raises(TypeError):
        draw_curves(tmp_path / "c.png", [{"epoch": 1, "train_loss": {}}], None)
    assert (tmp_path / "c.png").read_bytes() == before
    with pytest.raises(OutputError, match="its folder does not exist"):
        draw_curves(tmp_path / "gone" / "c.png", history(3), None)


def test_matplotlib_is_loaded_for_drawing_only_and_pyplot_never() -> None:
    script = """
import sys, tempfile
from pathlib import Path
import numpy as np
import facecnn.runs.folder, facecnn.runs.metrics
from facecnn.reports import plots
assert "matplotlib" not in sys.modules
with tempfile.TemporaryDirectory() as folder:
    plots.draw_confusion(Path(folder) / "m.png", np.eye(2), ["a", "b"], ["a", "b"], "title")
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_confusion_of_very_many_stays_small(tmp_path: Path) -> None:
    for count in (41, 300):
        names = [f"person {number:03}" for number in range(count)]
        draw_confusion(tmp_path / "many.png", np.eye(count, dtype=np.int64), names, names, "very many")
        with Image.open(tmp_path / "many.png") as picture:
            assert max(picture.size) < 2000


def looks(epochs: int, kernels: dict[str, int], **late: list[str]) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    figures = ("gradient_norm", "update_ratio", "active", "distance")
    return [
        {
            "epoch": epoch,
            "dead_kernels": late.get("dead", []),
            "asleep_kernels": late.get("asleep", []),
            "kernels": {name: {key: random.random(n).tolist() for key in figures} for name, n in kernels.items()},
        }
        for epoch in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("epochs", [1, 2, 80])
@pytest.mark.parametrize("kernels", [{"conv1": 1}, {"conv1": 8}, {"conv1": 16, "conv2": 32, "conv3": 64}], ids=str)
def test_what_was_watched_has_a_column_for_each_layer(
    tmp_path: Path, drawn: list[Figure], epochs: int, kernels: dict[str, int]
) -> None:
    draw_watching(tmp_path / "w.png", looks(epochs, kernels))
    assert pixels(tmp_path / "w.png").std() > 0
    panels = drawn[0].axes
    assert len(panels) == 4 * len(kernels)
    titles = [panel.get_title("left") for panel in panels if panel.get_title("left")]
    assert titles == [f"{name}: {count} kernel{'s' * (count > 1)}" for name, count in kernels.items()]
    assert [panel.get_ylabel() for panel in panels if panel.get_ylabel()] == [
        "gradient norm", "update / weight", "active outputs", "distance from start"
    ]  # fmt: skip


def test_all_of_what_was_watched_is_in_view(tmp_path: Path, drawn: list[Figure]) -> None:
    metrics = looks(5, {"conv1": 8, "conv2": 8})
    metrics[-1]["kernels"]["conv2"]["distance"][3] = 77.0
    draw_watching(tmp_path / "w.png", metrics)
    assert all(panel.get_ylim()[1] > 77 for panel in drawn[0].axes[6:])


@pytest.mark.parametrize("count", [8, 64])
def test_dead_and_sleeping_kernels_are_red(tmp_path: Path, drawn: list[Figure], count: int) -> None:
    metrics = looks(5, {"conv1": count}, dead=["conv1[2]"], asleep=["conv1[5]"])
    for record in metrics:
        record["kernels"]["conv1"]["gradient_norm"][2] = 0.0
    draw_watching(tmp_path / "w.png", metrics)
    for panel in drawn[0].axes:
        red = [line.get_label() for line in panel.get_lines() if line.get_color() == "#c62828"]
        assert red == ["2", "5"]
    lowest = next(line.get_ydata() for line in drawn[0].axes[0].get_lines() if line.get_label() == "2")
    assert np.all(np.asarray(lowest) == drawn[0].axes[0].get_ylim()[0]), "a gradient of 0 is drawn along the bottom"


def test_every_line_that_is_watched_is_explained(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_watching(tmp_path / "w.png", looks(5, {"conv1": 3}))
    assert explained(drawn[0]) == ["kernel 0", "kernel 1", "kernel 2"]
    draw_watching(tmp_path / "w.png", looks(5, {"conv1": 3, "conv2": 64}, asleep=["conv2[5]"], dead=["conv1[2]"]))
    kernels = ["a kernel", "median of the layer's kernels", "kernel 0", "kernel 1", "kernel 2"]
    assert explained(drawn[1]) == [*kernels, "dead or asleep: conv1[2], conv2[5]"]


@pytest.mark.parametrize("draw", [lambda path: draw_curves(path, history(400), 200), lambda path: draw_watching(
    path, looks(5, {"conv1": 8, "conv2": 64}, asleep=["conv1[5]"]))], ids=["curves", "watching"])  # fmt: skip
def test_what_explains_hides_no_data(draw: Callable[[Path], None], tmp_path: Path, drawn: list[Figure]) -> None:
    draw(tmp_path / "p.png")
    figure = drawn[0]
    figure.canvas.draw()
    (legend,) = figure.legends
    assert all(not legend.get_window_extent().overlaps(axes.get_window_extent()) for axes in figure.axes)


def test_records_without_figures_of_kernels_are_left_out(tmp_path: Path, drawn: list[Figure]) -> None:
    old = [{"epoch": 0, "dead_kernels": [], "kernel_change": {"conv1": 0.1}}]
    draw_watching(tmp_path / "w.png", old + looks(3, {"conv1": 2}))
    (line, *_) = drawn[0].axes[0].get_lines()
    assert np.asarray(line.get_xdata()).tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="no figures of kernels"):
        draw_watching(tmp_path / "w.png", old)


def test_a_layer_without_an_activation_has_no_active_outputs(tmp_path: Path, drawn: list[Figure]) -> None:
    metrics = looks(3, {"conv1": 2, "conv2": 2})
    for record in metrics:
        del record["kernels"]["conv2"]["active"]
    draw_watching(tmp_path / "w.png", metrics)
    assert [len(panel.get_lines()) for panel in drawn[0].axes[4:6]] == [2, 0]
