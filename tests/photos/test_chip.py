"""Crops of faces as dlib makes them."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facecnn.photos.chip import face_chip, halve
from facecnn.photos.face import Face
from facecnn.photos.preparation import PhotoSettings, aligned_crop, without_margin

from .finders import draw_faces, face_at

Pixels = npt.NDArray[np.uint8]

PLACES = np.array([[46.73, 45.17], [101.36, 45.08], [73.89, 77.56], [50.21, 105.18], [98.08, 105.38]])
"""Where dlib's crops of 150 pixels have eyes, nose and mouth; a pixel's centre is a whole number."""

WEIGHTS = (3, 3, 1, 0.5, 0.5)


def noise(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def placed(x: float, y: float, scale: float, degrees: float, bend: float = 0.0) -> Face:
    """A face whose chip of 150 pixels would be ``scale`` times as large in the photo, with its middle at (x, y)."""
    turn = scale * np.exp(1j * np.radians(degrees))
    points = ((PLACES - 75) @ (1, 1j)) * turn + complex(x, y)
    points[2] += bend * scale
    return replace(face_at(x, y, 50), landmarks=tuple((float(p.real) + 0.5, float(p.imag) + 0.5) for p in points))


def fitted(face: Face, side: int) -> tuple[complex, complex]:
    """Factor and shift of the weighted similarity, from the chip to the photo, by NumPy's general least squares."""
    rows, values = [], []
    for (x, y), (to_x, to_y), weight in zip(PLACES * side / 150, face.landmarks, WEIGHTS, strict=True):
        rows += [np.sqrt(weight) * np.array(row) for row in ((x, -y, 1, 0), (y, x, 0, 1))]
        values += [np.sqrt(weight) * (to_x - 0.5), np.sqrt(weight) * (to_y - 0.5)]
    a, b, c, d = np.linalg.lstsq(np.array(rows), np.array(values))[0]
    return complex(a, b), complex(c, d)


def halved(picture: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    filter_of_pairs = np.outer((1, 4, 6, 4, 1), (1, 4, 6, 4, 1))
    rows, columns = ((length - 3) // 2 for length in picture.shape[:2])
    half = np.zeros((rows, columns, picture.shape[2]), np.int64)
    for row, column in np.ndindex(rows, columns):
        part = picture[2 * row : 2 * row + 5, 2 * column : 2 * column + 5]
        half[row, column] = (filter_of_pairs[..., None] * part).sum(axis=(0, 1)) // 256
    return half


def described_chip(image: Image.Image, face: Face, side: int) -> Pixels:
    """The chip, pixel by pixel, as dlib's source describes it (``extract_image_chips``, ``pyramid_down<2>``)."""
    factor, shift = fitted(face, side)
    middle, scale, turn = factor * complex(side, side) / 2 + shift, abs(factor), factor / abs(factor)
    low, high = (middle + sign * (side * scale - 1) / 2 * (1 + 1j) for sign in (-1, 1))
    levels, reach, extent = 0, 2, (high - low).real / 2
    while (extent + 1) ** 2 > side * side:
        levels, reach, extent = levels + 1, 2 * reach + 2, extent / 2
    corners = [(complex(x, y) - middle) * turn + middle for x in (low.real, high.real) for y in (low.imag, high.imag)]
    left, top = (max(min(p) - reach, 0) for p in ([c.real for c in corners], [c.imag for c in corners]))
    right = min(max(c.real for c in corners) + reach, image.width - 1)
    bottom = min(max(c.imag for c in corners) + reach, image.height - 1)
    first, last = (int(left + 0.5), int(top + 0.5)), (int(np.floor(right + 0.5)), int(np.floor(bottom + 0.5)))
    chip = np.zeros((side, side, len(image.getbands())), np.uint8)
    if last[0] < first[0] or last[1] < first[1]:
        return chip
    pixels = np.asarray(image).reshape(image.height, image.width, -1).astype(np.int64)
    part = pixels[first[1] : last[1] + 1, first[0] : last[0] + 1]
    low, high = low - complex(*first), high - complex(*first)
    for _ in range(levels):
        if min(part.shape[:2]) <= 8:
            return chip
        part, low, high = halved(part), low / 2 - complex(1.25, 0.75), high / 2 - complex(1.25, 0.75)
    for row, column in np.ndindex(side, side):
        upright = low + complex(column, row) * (high - low).real / (side - 1)
        at = (upright - (low + high) / 2) * turn + (low + high) / 2
        x, y = int(np.floor(at.real)), int(np.floor(at.imag))
        if 0 <= x < part.shape[1] - 1 and 0 <= y < part.shape[0] - 1:
            along, down = at.real - x, at.imag - y
            upper = (1 - along) * part[y, x] + along * part[y, x + 1]
            lower = (1 - along) * part[y + 1, x] + along * part[y + 1, x + 1]
            chip[row, column] = ((1 - down) * upper + down * lower).astype(np.uint8)
    return chip


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    ("x", "y", "scale", "degrees", "side"),
    [
        (60, 50, 0.5, 0, 150),
        (60.3, 50.8, 0.7, 12, 60),
        (61, 52, 0.9, -170, 16),
        (70, 60, 1.9, 33, 64),
        (60.6, 49.1, 0.8, 75, 24),
        (5, 8, 0.6, 20, 32),
        (118, 99, 0.7, -20, 32),
        (60, 50, 9.0, 5, 32),
        (-140, 50, 1.0, 0, 24),
    ],
    ids=lambda value: str(value),
)
def test_a_chip_is_dlibs(x: float, y: float, scale: float, degrees: float, side: int, mode: str) -> None:
    """Smaller and larger than in the photo, halved once and more often, turned, cut by the photo's edge, beyond it."""
    image = noise(120, 100, mode=mode)
    face = placed(x, y, scale, degrees, bend=4)
    expected = described_chip(image, face, side)
    np.testing.assert_array_equal(face_chip(image, face, side, 0, "L" if mode == "L" else "RGB"), expected)


def test_at_the_photos_own_scale_a_pixel_is_the_middle_of_four_cut_off() -> None:
    """dlib takes half of a chip's side for its middle, though its pixels count from the first one's centre."""
    columns = np.tile(np.arange(150, dtype=np.uint8), (150, 1))
    chip = face_chip(Image.fromarray(columns), placed(75, 75, 1, 0), 150, 0, "L")[..., 0]
    expected = np.tile(np.arange(150, dtype=np.uint8), (150, 1))  # 0.5 is cut off
    expected[-1] = expected[:, -1] = 0  # black, as a neighbour is missing
    np.testing.assert_array_equal(chip, expected)


def test_halving_keeps_white_white_and_spreads_a_point_binomially() -> None:
    """255 is the largest sum that the integers in between have to hold."""
    assert (halve(np.full((3, 90, 11), 255, np.uint8)) == 255).all()
    point = np.zeros((1, 11, 11), np.uint8)
    point[0, 4, 5] = 255
    expected = np.zeros((4, 4))
    for row, weight in ((0, 1), (1, 6), (2, 1)):
        expected[row, 1:3] = weight * 4 * 255 // 256
    np.testing.assert_array_equal(halve(point)[0], expected)


@given(
    st.floats(-20, 140), st.floats(-20, 120), st.floats(0.2, 12), st.floats(-180, 180), st.integers(4, 70), st.data()
)
@settings(max_examples=60, deadline=None)
def test_a_margin_leaves_the_chip_as_it_is(
    x: float, y: float, scale: float, degrees: float, side: int, data: st.DataObject
) -> None:
    margin = data.draw(st.integers(1, side))
    image, face = noise(120, 100), placed(x, y, scale, degrees)
    wide = face_chip(image, face, side, margin, "RGB")
    assert wide.shape == (side + 2 * margin, side + 2 * margin, 3)
    chip = face_chip(image, face, side, 0, "RGB")
    np.testing.assert_array_equal(wide[margin:-margin, margin:-margin], chip)


def test_a_margin_shows_the_photo_around_the_chip() -> None:
    """At half the photo's scale; what is brighter to the right and below goes on so in the margin."""
    slope = np.add.outer(np.arange(200), np.arange(200)) // 2
    face = placed(100, 100, 1, 0)
    wide = face_chip(Image.fromarray(slope.astype(np.uint8)), face, 75, 10, "L")[..., 0].astype(int)
    assert wide.min() > 0
    steps = np.add.outer(np.arange(95), np.arange(95))
    assert abs(wide - wide[0, 0] - steps).max() <= 3


def test_there_is_black_beyond_the_photo() -> None:
    white = Image.new("RGB", (200, 200), (255, 255, 255))
    chip = face_chip(white, placed(0, 100, 0.5, 0), 100, 0, "RGB")
    assert (chip[:, :49] == 0).all()
    assert (chip[:, 51:] == 255).all()
    assert (face_chip(white, placed(5000, 100, 0.5, 0), 100, 25, "RGB") == 0).all()


@pytest.mark.parametrize(("height", "black"), [(92, True), (100, False)])
def test_what_is_8_pixels_high_is_not_halved_again(height: int, black: bool) -> None:
    """100 rows are halved to 48, 22, 9 and 3; of 92, which give 44, 20 and 8, dlib makes nothing."""
    white = Image.new("L", (200, height), 255)
    chip = face_chip(white, placed(100, height / 2, 5, 0), 32, 8, "L")
    assert (chip[8:-8, 8:-8] == 0).all() == black
    assert not black or (chip == 0).all()


def test_a_chip_is_grey_by_its_luma_before_anything_else() -> None:
    image, face = noise(400, 300), placed(200, 150, 1.4, 10)
    expected = face_chip(image.convert("L"), face, 60, 15, "L")
    np.testing.assert_array_equal(face_chip(image, face, 60, 15, "L"), expected)
    grey = image.convert("L")
    np.testing.assert_array_equal(face_chip(grey, face, 60, 15, "RGB"), np.repeat(expected, 3, axis=2))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("colour", ["grey", "rgb"])
def test_it_is_the_crop_of_a_face_with_align_dlib(colour: str, mode: str) -> None:
    image, face = noise(120, 100, mode=mode), placed(60, 50, 0.5, 20)
    augmented = PhotoSettings(align="dlib", size=40, colour=colour)  # type: ignore[arg-type]
    for chosen in (augmented, replace(augmented, augment=None)):
        crop = aligned_crop(image, face, chosen)
        assert crop.shape == chosen.margin_shape
        expected = described_chip(image.convert("L" if colour == "grey" else "RGB"), face, 40)
        np.testing.assert_array_equal(without_margin(crop, chosen), expected)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_hidden_face_leaves_no_trace_in_a_chip(mode: str) -> None:
    face = face_at(100, 100, 30, 10)
    plain = PhotoSettings(align="dlib", size=64)
    hidden = replace(plain, hide_face=True)
    image = draw_faces(200, 200, [face], mode)
    before = np.asarray(image).copy()
    blanked = image.copy()
    blanked.paste((128,) * len(mode), (64, 73, 136, 145))  # 2.4 eye distances wide, from 0.9 above the eyes
    without = aligned_crop(blanked, face, plain)
    assert (aligned_crop(image, face, plain) != without).any()
    np.testing.assert_array_equal(aligned_crop(image, face, hidden), without)
    np.testing.assert_array_equal(np.asarray(image), before)
