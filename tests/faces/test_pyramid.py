"""The pyramid: which sizes, what a picture looks like in them, and how they are put on tiles."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facecnn.faces.nets import CELL, STRIDE
from facecnn.faces.pyramid import GREY, Pyramid, fill_tiles, level_scales, pack, windows_of
from facecnn.kernels.cpu.crop_squares import crop_squares

STEADY = settings(deadline=None, derandomize=True)

Pixels = npt.NDArray[np.uint8]

SIDE = 24
SIZES = st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), max_size=5)


def noise(rows: int, columns: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


@STEADY
@given(st.integers(1, 5000), st.floats(20, 40))
def test_levels_go_from_the_smallest_face_to_the_whole_picture(shorter: int, smallest: float) -> None:
    scales = level_scales(shorter, smallest)
    if shorter < smallest:
        assert scales == []
        return
    sides = [CELL / scale for scale in scales]  # of the faces that fill a cell
    assert scales[0] * smallest == pytest.approx(CELL)
    assert all(side <= shorter + 1e-6 for side in sides)
    assert sides[-1] / 0.709 > shorter
    np.testing.assert_allclose(np.divide(scales[1:], scales[:-1]), 0.709)


@pytest.mark.slow
@STEADY
@given(SIZES)
def test_every_field_of_every_level_lies_on_exactly_one_piece(sizes: list[tuple[int, int]]) -> None:
    levels = [noise(*size, seed=number) for number, size in enumerate(sizes)]
    pieces = pack(sizes, SIDE)
    tiles = fill_tiles(levels, pieces, SIDE)
    fields = (SIDE - CELL) // STRIDE + 1
    # In the P-Net's place: of each field the pixels that it sees.
    seen = np.lib.stride_tricks.sliding_window_view(tiles, (CELL, CELL), (1, 2))[:, ::STRIDE, ::STRIDE]
    assert seen.shape[1:3] == (fields, fields)
    counts: Counter[tuple[int, int, int]] = Counter()
    for level, top, left, tile, first_row, first_column, rows, columns in windows_of(pieces).tolist():
        outputs = seen[tile, first_row : first_row + rows, first_column : first_column + columns]
        for row, column in np.ndindex(outputs.shape[:2]):
            place = row * STRIDE + top, column * STRIDE + left
            counts[level, *place] += 1
            expected = levels[level][place[0] : place[0] + CELL, place[1] : place[1] + CELL]
            np.testing.assert_array_equal(np.moveaxis(outputs[row, column], 0, 2), expected)
    assert counts == {
        (level, row, column): 1
        for level, (rows, columns) in enumerate(sizes)
        for row in range(0, rows - CELL + 1, STRIDE)
        for column in range(0, columns - CELL + 1, STRIDE)
    }


@STEADY
@given(SIZES)
def test_pieces_lie_on_tiles_beside_one_another(sizes: list[tuple[int, int]]) -> None:
    pieces = pack(sizes, SIDE)
    taken = np.zeros((len(pieces), SIDE, SIDE), int)
    for piece in pieces:
        place = taken[piece.tile, piece.tile_row : piece.tile_row + piece.rows][:, piece.tile_column :]
        assert place[:, : piece.columns].shape == (piece.rows, piece.columns)
        place[:, : piece.columns] += 1
    assert taken.max(initial=0) <= 1
    used = {piece.tile for piece in pieces}
    assert used == set(range(len(used)))


def test_small_levels_share_a_tile() -> None:
    assert {piece.tile for piece in pack([(60, 60), (42, 42), (30, 30), (21, 21), (15, 15)], 112)} == {0}


def test_what_is_left_of_a_tile_is_grey() -> None:
    tiles = fill_tiles([noise(12, 14)], pack([(12, 14)], SIDE), SIDE)
    assert tiles.shape == (1, SIDE, SIDE, 3)
    assert (tiles[0, 12:] == GREY).all()
    assert (tiles[0, :, 14:] == GREY).all()


def shares(pixels: int, wanted: int) -> npt.NDArray[np.float64]:
    """(wanted, pixels): of each pixel wanted, the share that each of the pixels has in it."""
    edges = np.arange(wanted + 1) * pixels / wanted
    starts = np.arange(pixels)
    inside = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return np.maximum(inside, 0) * wanted / pixels


def ramp(side: int) -> Pixels:
    """Red grows by one a pixel to the right, green downwards; the pixel at (x, y) is x, y there."""
    return np.stack([*np.meshgrid(np.arange(side), np.arange(side)), np.zeros((side, side))], axis=2).astype(np.uint8)


def means(pixels: Pixels, width: int, height: int) -> npt.NDArray[np.float64]:
    """The mean of what each pixel of the smaller picture stands for."""
    rows, columns, _ = pixels.shape
    over_rows = np.tensordot(shares(rows, height), pixels, (1, 0))  # (height, columns, 3)
    return np.moveaxis(np.tensordot(shares(columns, width), over_rows, (1, 1)), 0, 1)


SHRUNKEN = st.integers(1, 90).flatmap(lambda side: st.tuples(st.just(side), st.integers(1, side)))


@STEADY
@given(SHRUNKEN, SHRUNKEN)
def test_a_shrunken_picture_has_everything_in_its_place(rows: tuple[int, int], columns: tuple[int, int]) -> None:
    """Pillow counts a pixel at an area's edge as in or out by its centre: that is half a pixel there, or, of a picture
    that was halved before to at least twice the size wanted, a quarter of one of the result's."""
    pixels = ramp(90)[: rows[0], : columns[0]]
    made = Pyramid(Image.fromarray(pixels)).resized(columns[1], rows[1])
    assert made.shape == (rows[1], columns[1], 3)
    largest_step = max(rows[0] / rows[1], columns[0] / columns[1])
    np.testing.assert_allclose(made, means(pixels, columns[1], rows[1]), atol=max(0.5, largest_step / 4) + 2)


@STEADY
@given(st.sampled_from([1, 2, 3, 4, 6, 8, 12]), st.integers(1, 11), st.integers(1, 11))
def test_no_pixel_is_skipped_in_shrinking(times: int, rows: int, columns: int) -> None:
    pixels = noise(rows * times, columns * times)
    made = Pyramid(Image.fromarray(pixels)).resized(columns, rows)
    np.testing.assert_allclose(made, means(pixels, columns, rows), atol=2)  # each of three roundings gives half


@pytest.mark.parametrize(("left", "top", "size"), [(10, 20, 48), (10.25, 20.5, 30), (3, 5, 200), (30, 20, 100.5)])
def test_crops_show_the_square_that_was_asked_for(left: float, top: float, size: float) -> None:
    (crop,) = Pyramid(Image.fromarray(ramp(240))).crops(np.array([[left, top, left + size, top + size]]), 24)
    centres = (np.arange(24) + 0.5) * size / 24 - 0.5  # of the crop's pixels, as numbers of the picture's
    x, y = np.meshgrid(left + centres, top + centres)
    np.testing.assert_allclose(crop[..., 0], x, atol=1.01)
    np.testing.assert_allclose(crop[..., 1], y, atol=1.01)


def test_no_pixel_of_a_large_square_is_skipped_in_its_crop() -> None:
    pixels = noise(240, 240)
    (crop,) = Pyramid(Image.fromarray(pixels)).crops(np.array([[16.0, 32, 208, 224]]), 24)
    np.testing.assert_allclose(crop, means(pixels[32:224, 16:208], 24, 24), atol=2)


def test_beyond_the_picture_crops_are_grey() -> None:
    white = Pyramid(Image.new("RGB", (40, 30), (255, 255, 255)))
    outside, across = white.crops(np.array([[100.0, 100, 124, 124], [-12, 0, 12, 24]]), 24)
    assert (outside == GREY).all()
    assert (across[:, :12] == GREY).all()
    assert (across[:, 12:] == 255).all()


def test_no_boxes_give_no_crops() -> None:
    assert Pyramid(Image.new("RGB", (40, 30))).crops(np.empty((0, 4)), 24).shape == (0, 24, 24, 3)


@pytest.mark.parametrize("side", [24, 48])
def test_compiled_crops_are_those_of_pillow(side: int) -> None:
    """To the bit, also of boxes that lie partly or wholly outside, and of larger ones than the picture."""
    random = np.random.default_rng(side)
    image = Image.fromarray(random.integers(0, 256, (131, 173, 3), dtype=np.uint8))
    middles = random.uniform(-60, 240, (400, 2))
    middles[::5] = np.round(middles[::5])
    halves = random.uniform(1, 250, (400, 1)) / 2
    halves[::4] = side / 2  # pixel for pixel
    boxes = np.concatenate([middles - halves, middles + halves], axis=1)
    compiled = Pyramid(image, crop_squares).crops(boxes, side)
    np.testing.assert_array_equal(compiled, Pyramid(image).crops(boxes, side))
    assert Pyramid(image, crop_squares).crops(boxes[:0], side).shape == (0, side, side, 3)
