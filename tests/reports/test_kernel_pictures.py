"""Pictures of kernels: any shape, colours that mean what they should, what changed, and what excites them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facecnn.errors import OutputError
from facecnn.reports.kernel_pictures import DrawnKernels, ExcitingPatches, draw_kernels, draw_patches


def pixels(path: Path) -> np.ndarray:
    """(rows, columns, 4)"""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.mode == "RGBA"
        return np.asarray(picture)


def kernels(shape: tuple[int, ...], seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "title"),
    [
        ((16, 3, 3, 1), "conv1: 16 kernels of 3×3"),
        ((1, 1, 1, 1), "conv1: 1 kernel of 1×1"),
        ((8, 5, 5, 3), "conv1: 8 kernels of 5×5×3"),
        ((100, 5, 5, 3), "conv1: 100 kernels of 5×5×3 (the first 64 shown)"),
        ((32, 3, 3, 8), "conv1: 32 kernels of 3×3×8"),
        ((64, 3, 3, 32), "conv1: 64 kernels of 3×3×32 (32 of the kernels and 8 of the maps shown)"),
        ((2, 30, 60, 1), "conv1: 2 kernels of 30×60"),
        ((64, 30, 60, 2), "conv1: 64 kernels of 30×60×2 (32 of the kernels shown)"),
    ],
)
def test_kernels_of_any_shape(tmp_path: Path, written: list[str], shape: tuple[int, ...], title: str) -> None:
    weight = kernels(shape)
    layers = [DrawnKernels("conv1", weight, weight / 2), DrawnKernels("$zero$", np.zeros((2, 3, 3, 1), np.float32))]
    draw_kernels(tmp_path / "k.png", layers)
    assert max(pixels(tmp_path / "k.png").shape) < 2500
    assert title in written
    assert "conv1: what training changed" in written
    assert "$zero$: what training changed" not in written, "nobody knows what they were"
    assert {"kernels", "weight"} <= set(written), "the axes and the scale are told"


def test_red_is_above_zero_and_blue_below(tmp_path: Path) -> None:
    weight = np.zeros((1, 2, 2, 1), np.float32)
    weight[0, :, :, 0] = [[0.5, -0.5], [0.0, 0.25]]
    draw_kernels(tmp_path / "k.png", [DrawnKernels("grey", weight)])
    picture = pixels(tmp_path / "k.png")
    top, left = np.argwhere((picture[..., 0] > 90) & (picture[..., 1] < 20) & (picture[..., 3] == 255))[0]
    red, blue = picture[top + 5, left + 5].astype(int), picture[top + 5, left + 45].astype(int)
    white, pale = picture[top + 45, left + 5].astype(int), picture[top + 45, left + 45].astype(int)
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50
    assert white[:3].min() > 240
    assert red[1] < pale[1] < white[1]


def test_a_coloured_kernel_has_its_own_colours_and_nothing_stands_between(tmp_path: Path) -> None:
    weight = np.zeros((2, 1, 1, 3), np.float32)
    weight[0, 0, 0] = [1, -1, 0]
    draw_kernels(tmp_path / "k.png", [DrawnKernels("colour", weight)])
    picture = pixels(tmp_path / "k.png")
    assert (picture == [255, 0, 128, 255]).all(axis=2).sum() == 78 * 78
    assert (picture == [128, 128, 128, 255]).all(axis=2).sum() >= 78 * 78
    row = np.argwhere((picture == [255, 0, 128, 255]).all(axis=2))[0]
    assert (picture[row[0], row[1] + 78 : row[1] + 81, 3] == 0).all(), "a gap shows the page"


def test_the_change_is_now_less_before_and_has_a_scale_of_its_own(tmp_path: Path, written: list[str]) -> None:
    now = kernels((4, 3, 3, 2))
    start = now.copy()[:, :, :, :1]
    start[1, 0, 0, 0] -= 0.125
    draw_kernels(tmp_path / "k.png", [DrawnKernels("conv", now, start)])
    assert f"{np.abs(now).max():.2g}" in written
    assert "0.12" in written
    assert "-0.12" in written


def test_a_weight_that_was_raised_is_red_among_the_changes(tmp_path: Path) -> None:
    now, start = np.full((1, 1, 1, 1), -0.5, np.float32), np.full((1, 1, 1, 1), -0.75, np.float32)
    draw_kernels(tmp_path / "k.png", [DrawnKernels("conv", now, start)])
    picture = pixels(tmp_path / "k.png")
    blue, red = [5, 48, 97, 255], [103, 0, 31, 255]  # the ends of matplotlib's RdBu_r
    for colour in (blue, red):
        assert (picture == colour).all(axis=2).sum() >= 78 * 78


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_stand_beside_their_kernel(tmp_path: Path, written: list[str], channels: int) -> None:
    weight = kernels((3, 3, 3, channels))
    patch = np.full((4, 4, channels), 255.0, np.float32)
    patch[0, 0], patch[:, 3] = 0, np.nan  # reaching beyond the photo's right edge
    patches = [[patch] * 2 for _ in range(3)]
    draw_patches(tmp_path / "p.png", [ExcitingPatches(DrawnKernels("conv1", weight), patches)])
    picture = pixels(tmp_path / "p.png")
    assert (picture == [255, 255, 255, 255]).all(axis=2).sum() >= 6 * 11 * 11 * 11
    assert "conv1: each kernel, and the 2 patches of 4×4 pixels that excite it most" in written
    assert {"0", "1", "2"} <= set(written)


def test_patches_of_deep_layers_and_of_a_part(tmp_path: Path, written: list[str]) -> None:
    layer = DrawnKernels("conv3", kernels((64, 3, 3, 16)))
    patches = [[np.full((22, 22, 1), np.nan, np.float32), np.zeros((22, 22, 1), np.float32)]] * 32
    draw_patches(tmp_path / "p.png", [ExcitingPatches(layer, patches)])
    assert "conv3: the 2 patches of 22×22 pixels that excite each kernel most (the first 32 kernels)" in written


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        draw_kernels(tmp_path / "nosuch" / "k.png", [DrawnKernels("conv1", kernels((1, 3, 3, 1)))])
