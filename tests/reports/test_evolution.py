"""The GIF of the kernels: a frame for each epoch that was kept, in the colours of the weights, and small."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facecnn.reports.evolution import draw_evolution
from facecnn.runs.frames import Frame


def frames_of(count: int, **shapes: tuple[int, ...]) -> list[Frame]:
    random = np.random.default_rng(0)
    return [
        Frame(epoch, {name: random.normal(size=shape).astype(np.float16) for name, shape in shapes.items()})
        for epoch in range(count)
    ]


def shapes_of(frames: list[Frame]) -> dict[str, tuple[int, ...]]:
    return {name: kernels.shape for name, kernels in frames[0].layers.items()}


def pictures(path: Path) -> list[np.ndarray]:
    with Image.open(path) as film:
        assert film.format == "GIF"
        assert film.info["loop"] == 0
        found = []
        for number in range(getattr(film, "n_frames", 1)):
            film.seek(number)
            found.append(np.asarray(film.convert("RGB")).astype(int))
    return found


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(
    "shapes",
    [
        {"conv1": (16, 3, 3, 1), "conv2": (32, 3, 3, 8), "conv3": (32, 3, 3, 8)},
        {"conv1": (8, 5, 5, 3), "conv2": (16, 5, 5, 8)},
        {"conv1": (64, 11, 7, 3), "conv2": (2, 1, 1, 3)},
        {"conv1": (1, 30, 60, 1)},
        {"conv1": (1, 1, 1, 2)},
    ],
    ids=str,
)
def test_frames_of_any_shape(tmp_path: Path, count: int, shapes: dict[str, tuple[int, ...]]) -> None:
    frames = frames_of(count, **shapes)
    draw_evolution(tmp_path / "k.gif", frames, shapes, count)
    drawn = pictures(tmp_path / "k.gif")
    assert len(drawn) == count
    assert len({picture.shape for picture in drawn}) == 1
    assert all(not np.array_equal(one, other) for one, other in pairwise(drawn))
    assert max(drawn[0].shape) < 800


def test_sixty_frames_of_the_default_networks_kernels_stay_small(tmp_path: Path) -> None:
    shapes = {"conv1": (16, 3, 3, 1), "conv2": (32, 3, 3, 8), "conv3": (32, 3, 3, 8)}
    start, end = (frame.layers for frame in frames_of(2, **shapes))
    # Each moves by a tenth of its norm, as kernels do in training.
    frames = [
        Frame(epoch, {name: start[name] + np.float16(epoch / 600) * end[name] for name in shapes})
        for epoch in range(60)
    ]
    draw_evolution(tmp_path / "k.gif", frames, shapes, 59)
    assert (tmp_path / "k.gif").stat().st_size < 500_000


def test_colours_are_the_weights_on_one_scale_over_all_frames(tmp_path: Path) -> None:
    weights = [[1.0, -1.0, 0.0], [0.5, -0.5, 0.0]]
    frames = [
        Frame(epoch, {"conv1": np.array(values, np.float16).reshape(3, 1, 1, 1)})
        for epoch, values in enumerate(weights)
    ]
    draw_evolution(tmp_path / "k.gif", frames, shapes_of(frames), 1)
    # The kernels stand side by side, 84 pixels apart, at the bottom.
    (red, blue, white), (pale_red, pale_blue, still_white) = (
        [picture[-30, 20 + 84 * kernel] for kernel in range(3)] for picture in pictures(tmp_path / "k.gif")
    )
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50
    assert (white > 240).all()
    assert (still_white > 240).all()
    assert pale_red.sum() > red.sum()
    assert pale_blue.sum() > blue.sum()


def test_kernels_of_three_maps_are_drawn_in_their_colours(tmp_path: Path) -> None:
    kernels = np.array([[1, -1, -1], [-1, 1, -1], [0, 0, 0]], np.float16).reshape(3, 1, 1, 3)
    draw_evolution(tmp_path / "k.gif", [Frame(0, {"conv1": kernels})], {"conv1": kernels.shape}, 0)
    (picture,) = pictures(tmp_path / "k.gif")
    colours = [picture[-30, 20 + 84 * kernel].tolist() for kernel in range(3)]
    np.testing.assert_allclose(colours, [[255, 0, 0], [0, 255, 0], [128, 128, 128]], atol=6)


def test_equal_frames_give_equal_bytes(tmp_path: Path) -> None:
    frames = frames_of(3, conv1=(4, 3, 3, 3), conv2=(4, 3, 3, 4))
    for name in ("a", "b"):
        draw_evolution(tmp_path / name, frames, shapes_of(frames), 3)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
