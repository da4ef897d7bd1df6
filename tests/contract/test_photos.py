"""Random numbers, augmentation and preparation, on every backend."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.cases import cases_of, family, photos
from contract.cases.photos import EPOCH, NORMALISATIONS, RANGES, pixels_of
from contract.harness import call, check, check_case, on_each_backend
from facecnn.kernels import cpu, open_device, reference
from facecnn.kernels.cases import Case, Out
from facecnn.kernels.protocol import AUGMENTATION, AUGMENTATION_NONE


@on_each_backend(family(photos))
def test_agrees_with_the_reference(backend: Any, case: Case) -> None:
    check_case(backend, case)


@on_each_backend(cases_of("draw_augmentation"))
def test_augmentation_is_equal_to_the_bit(backend: Any, case: Case) -> None:
    got, expected = (call(each, case.kernel, *case.arguments)[0] for each in (backend, reference))
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


def test_augmentation_keeps_to_its_ranges(backend: Any) -> None:
    photos = np.arange(2000, dtype=np.int32)
    drawn = call(backend, "draw_augmentation", Out((2000, len(AUGMENTATION))), photos, EPOCH, 3, *RANGES)[0]
    columns = dict(zip(AUGMENTATION, drawn.T, strict=True))
    assert 0.45 < columns["mirror"].mean() < 0.55
    spreads = {"shift_y": 0.06, "shift_x": 0.06, "angle": 8, "gamma": 0.5, "brightness": 0.2}
    for name, spread in spreads.items():
        assert np.abs(columns[name]).max() <= spread
        assert np.abs(columns[name]).max() > 0.95 * spread
        assert abs(columns[name].mean()) < 0.1 * spread
    assert 0.9 <= columns["zoom"].min() < columns["zoom"].max() <= 1.1
    assert 0.7 <= columns["contrast"].min() < columns["contrast"].max() <= 1.3
    blurred, erased = columns["blur"] > 0, columns["erase_height"] > 0
    assert 0.17 < blurred.mean() < 0.23
    assert columns["blur"][blurred].min() >= 0.5
    assert columns["blur"].max() < 1.5
    assert 0.27 < erased.mean() < 0.33
    assert (columns["erase_y"] + columns["erase_height"]).max() <= 1
    assert (columns["erase_x"] + columns["erase_width"]).max() <= 1


def _correlations(one: Any, other: Any) -> Any:
    """(columns, columns) of two arrays (photos, columns)."""
    return np.corrcoef(one.T, other.T)[: one.shape[1], one.shape[1] :]


def test_nothing_that_is_drawn_goes_with_anything_else(backend: Any) -> None:
    """Neither in one photo, nor between an epoch and the next, a photo and the next, or two seeds."""

    def drawn(epoch: int = 7, seed: int = 3, first: int = 0) -> tuple[Any, Any]:
        photos = np.arange(first, first + 1000, dtype=np.int32)
        place = Out((1000, len(AUGMENTATION)))
        found = call(backend, "draw_augmentation", place, photos, np.array([epoch], np.int32), seed, *RANGES)[0]
        columns = dict(zip(AUGMENTATION, found.T, strict=True))
        always = [columns[name] for name in AUGMENTATION if name not in ("blur", *boxes)]
        return np.stack([*always, columns["blur"] > 0, columns["erase_height"] > 0], axis=1), columns

    boxes = ("erase_y", "erase_x", "erase_height", "erase_width")
    own, columns = drawn()
    limit = 5 / np.sqrt(1000)
    assert np.abs(_correlations(own, own) - np.eye(own.shape[1])).max() < limit
    for other in (drawn(epoch=8), drawn(seed=4), drawn(first=1)):
        assert np.abs(_correlations(own, other[0])).max() < limit
    erased = columns["erase_height"] > 0
    sides = np.stack([columns["erase_height"], columns["erase_width"]], axis=1)[erased]
    places = np.stack([columns["erase_y"], columns["erase_x"]], axis=1)[erased] / (1 - sides)
    box = np.concatenate([sides, places], axis=1)
    assert np.abs(_correlations(box, box) - np.eye(4)).max() < 5 / np.sqrt(erased.sum())


def test_augmentation_of_a_photo_does_not_depend_on_its_batch(backend: Any) -> None:
    width = len(AUGMENTATION)
    together = call(backend, "draw_augmentation", Out((3, width)), np.array([5, 1, 8], np.int32), EPOCH, 3, *RANGES)[0]
    alone = call(backend, "draw_augmentation", Out((1, width)), np.array([8], np.int32), EPOCH, 3, *RANGES)[0]
    np.testing.assert_array_equal(together[2], alone[0])
    later = call(backend, "draw_augmentation", Out((1, width)), np.array([8], np.int32), EPOCH + 1, 3, *RANGES)[0]
    assert not np.array_equal(alone, later)


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 80), st.integers(1, 4)),
    margin=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    mirror=st.booleans(),
    shift=st.tuples(st.floats(-0.375, 0.375, width=32), st.floats(-0.375, 0.375, width=32)),
    zoom=st.sampled_from([1.0, 1.0, 0.75, 1.3]),
    angle=st.sampled_from([0.0, 0.0, 0.0, -7.5]),
    tone=st.sampled_from([(0.0, 1.0, 0.0), (0.0, 0.75, 0.0), (0.0, 0.75, 0.25), (0.0, 1.5, 0.0), (0.5, 1.0, 0.0)]),
    normalise=st.sampled_from(NORMALISATIONS),
)
@settings(deadline=None, max_examples=200)
def test_any_photo_is_prepared_as_by_the_reference(
    size: Any, margin: Any, mirror: bool, shift: Any, zoom: float, angle: float, tone: Any, normalise: str
) -> None:
    """Straight or turned, within the margin or beyond it, at widths of any number of vectors."""
    height, width, maps = size
    pixels = pixels_of(2, height + 2 * margin[0], width + 2 * margin[1], maps)
    parameters = np.tile(AUGMENTATION_NONE, (2, 1))
    parameters[1, : AUGMENTATION.index("brightness") + 1] = [mirror, *shift, zoom, angle, *tone]
    rows = np.array([1, 0], np.int32)
    open_device("cpu")
    out = Out((2, *size))
    check(cpu, "prepare_photos", out, pixels, rows, parameters, normalise, tolerance=1e-3, least_scale=1)


def test_without_augmentation_the_crop_comes_through_unchanged(backend: Any) -> None:
    pixels = pixels_of(3, 18, 13, 3)
    rows = np.array([2, 0], np.int32)
    parameters = np.tile(AUGMENTATION_NONE, (2, 1))
    (out,) = call(backend, "prepare_photos", Out((2, 12, 9, 3)), pixels, rows, parameters, "none")
    crop = pixels[rows, 3:-3, 2:-2].astype(np.float32)
    # What the tone table makes of each of the 256 values: equal pixels stay equal, and all are within rounding.
    np.testing.assert_allclose(out, crop / 255, atol=1e-6)
    assert all(len(np.unique(out[crop == value])) == 1 for value in np.unique(crop))


@pytest.mark.parametrize(("width", "maps"), [(9, 1), (20, 1), (17, 3)])
def test_a_mirrored_photo_is_the_mirror_image(backend: Any, width: int, maps: int) -> None:
    pixels = pixels_of(1, 18, width + 4, maps)
    parameters = np.tile(AUGMENTATION_NONE, (2, 1))
    parameters[1, AUGMENTATION.index("mirror")] = 1
    rows = np.zeros(2, np.int32)
    (out,) = call(backend, "prepare_photos", Out((2, 12, width, maps)), pixels, rows, parameters, "none")
    np.testing.assert_array_equal(out[1], out[0, :, ::-1])


def test_the_contrast_of_a_single_white_pixel_is_cut_to_4(backend: Any) -> None:
    pixels = np.zeros((1, 40, 40, 1), np.uint8)
    pixels[0, 20, 20] = 255
    out, rows = Out(pixels.shape), np.zeros(1, np.int32)
    (found,) = check(
        backend, "prepare_photos", out, pixels, rows, AUGMENTATION_NONE[None], "local_contrast", tolerance=1e-4
    )
    assert found.max() == found[0, 20, 20, 0] == 4


@pytest.mark.parametrize("normalise", NORMALISATIONS)
@pytest.mark.parametrize("value", [0, 255])
def test_a_photo_of_one_colour_stays_finite(backend: Any, normalise: Any, value: int) -> None:
    pixels = np.full((1, 12, 12, 1), value, np.uint8)
    parameters = AUGMENTATION_NONE[None]
    (out,) = call(backend, "prepare_photos", Out((1, 8, 8, 1)), pixels, np.zeros(1, np.int32), parameters, normalise)
    assert np.isfinite(out).all()
