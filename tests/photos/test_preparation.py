from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from facecnn.photos.preparation import AugmentSettings, PhotoSettings, crop_with_margin, without_margin

from .pictures import picture


def window(stored: np.ndarray, chosen: PhotoSettings) -> np.ndarray:
    rows, columns = chosen.margin
    return stored[rows:-rows, columns:-columns]


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": True},
        {"crop": "0.5"},
        {"crop": 0},
        {"crop": 1.01},
        {"crop": float("nan")},
        {"size": 3},
        {"size": 1025},
        {"size": 48.0},
        {"size": True},
        {"size": "48"},
        {"size": [48]},
        {"size": [48, 48, 48]},
        {"size": [48, True]},
        {"colour": "gray"},
        {"faces": "maybe"},
        {"validation": 1.0},
        {"validation": -0.1},
        {"folder": 3},
        {"sizes": 48},
    ],
)
def test_settings_refuse_what_they_do_not_mean(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PhotoSettings(**wrong)


@pytest.mark.parametrize("wrong", [{"mirror": 1}, {"rotate": 46}, {"shear": 1}])
def test_augmentation_refuses_what_it_does_not_mean(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AugmentSettings(**wrong)


def test_dlib_s_crops_are_square() -> None:
    with pytest.raises(ValidationError, match=r"must be square"):
        PhotoSettings(align="dlib", size=(64, 48))
    assert PhotoSettings(align="dlib", size=(48, 48)).shape == (48, 48, 1)


def test_only_what_nobody_augments_and_dlib_aligns_is_stored_without_margin() -> None:
    assert PhotoSettings(size=(64, 48), augment=None).margin == (16, 12)
    assert PhotoSettings(align="dlib", size=150).margin == (38, 38)
    bare = PhotoSettings(align="dlib", size=150, colour="rgb", augment=None)
    assert bare.margin_shape == (150, 150, 3)
    stored = np.arange(150 * 150 * 3, dtype=np.uint8).reshape(1, 150, 150, 3)
    np.testing.assert_array_equal(without_margin(stored, bare), stored)


def test_photos_whose_faces_are_not_looked_for_are_cropped_to_the_same_middle_with_either_alignment() -> None:
    image = picture(3, 90, 70)
    expected = window(crop_with_margin(image, PhotoSettings()), PhotoSettings())
    for chosen in (PhotoSettings(align="dlib"), PhotoSettings(align="dlib", augment=None)):
        np.testing.assert_array_equal(without_margin(crop_with_margin(image, chosen), chosen), expected)


def test_what_decides_on_a_crop_is_what_did_before_there_was_a_choice_of_alignment() -> None:
    """So photos that were stored then are found again."""
    chosen = PhotoSettings(size=(64, 48))
    common = {"largest_picture": 50, "height": 64, "width": 48, "colour": "grey", "margin": (16, 12)}
    smallest = {"smallest_face": {"share": 0.0, "pixels": 0}}
    assert chosen.cropping(aligned=True) == {**common, **smallest, "eye_distance": 0.44, "hide_face": False}
    assert chosen.cropping(aligned=False) == {**common, "crop": 0.6}


def test_the_eye_distance_plays_no_part_in_dlib_s_crops() -> None:
    one, other = (PhotoSettings(align="dlib", eye_distance=distance) for distance in (0.4, 0.5))
    assert one.cropping(aligned=True) == other.cropping(aligned=True)
    assert one.cropping(aligned=True) != replace(one, align="arcface").cropping(aligned=True)


def test_dlib_s_crops_are_made_anew_when_they_are_made_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = [PhotoSettings(align="dlib"), PhotoSettings(align="arcface")]
    before = [chosen.cropping(aligned=True) for chosen in ways]
    monkeypatch.setattr("facecnn.photos.preparation.CHIP_VERSION", "another")
    after = [chosen.cropping(aligned=True) for chosen in ways]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_settings_take_what_yaml_gives() -> None:
    given: dict[str, Any] = {"size": [64, 48], "crop": 1, "colour": "rgb", "augment": AugmentSettings(rotate=5)}
    chosen = PhotoSettings(**given)
    assert (chosen.height, chosen.width, chosen.channels) == (64, 48, 3)
    assert chosen.margin_shape == (64 + 32, 48 + 24, 3)
    assert chosen.augment == AugmentSettings(rotate=5)
    assert PhotoSettings(augment=None).augment is None


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(30, 220),
    height=st.integers(30, 220),
    crop=st.floats(0.05, 0.66),
    size=st.one_of(st.integers(4, 60), st.tuples(st.integers(4, 60), st.integers(4, 60))),
    colour=st.sampled_from(["grey", "rgb"]),
)
def test_the_window_is_the_plainly_resampled_centre(
    width: int, height: int, crop: float, size: int | tuple[int, int], colour: Literal["grey", "rgb"]
) -> None:
    chosen = PhotoSettings(crop=crop, size=size, colour=colour)
    image = picture(width, width, height).convert("L" if colour == "grey" else "RGB")
    scale = crop * min(width, height) / max(chosen.height, chosen.width)
    half = chosen.width * scale / 2, chosen.height * scale / 2
    assume(max(half) + 3 * max(scale, 1) < min(width, height) / 2)  # the filter sees nothing beyond the picture
    box = (width / 2 - half[0], height / 2 - half[1], width / 2 + half[0], height / 2 + half[1])
    plain = np.asarray(image.resize((chosen.width, chosen.height), Image.Resampling.LANCZOS, box=box))
    stored = crop_with_margin(image, chosen)
    assert stored.shape == chosen.margin_shape
    assert stored.dtype == np.uint8
    difference = window(stored, chosen).astype(int) - plain.reshape(chosen.height, chosen.width, -1)
    assert np.abs(difference).max() <= 2  # Pillow rounds twice, after the rows and after the columns


def test_the_margin_shows_the_photo_where_there_is_some() -> None:
    chosen = PhotoSettings(crop=0.5, size=40)
    image = picture(1, 80, 80).convert("L")
    # With the margin, 0.75 of the 80 pixels are stored, at the scale of 1: neither filter nor border plays a part.
    np.testing.assert_array_equal(crop_with_margin(image, chosen)[..., 0], np.asarray(image)[10:70, 10:70])


def test_the_border_is_repeated_beyond_the_photo() -> None:
    halves = np.zeros((40, 40), np.uint8)
    halves[:, 20:] = 200
    stored = crop_with_margin(halves, PhotoSettings(crop=1.0, size=40))[..., 0]
    np.testing.assert_array_equal(stored, np.broadcast_to(stored[0], stored.shape))  # above and below as within
    assert (stored[:, :20] == 0).all()
    assert (stored[:, 40:] == 200).all()


@pytest.mark.parametrize("shape", [(8, 3000), (3000, 8), (8, 8)])
def test_extreme_shapes_are_prepared(shape: tuple[int, int]) -> None:
    chosen = PhotoSettings(crop=0.6, size=48, colour="rgb")
    assert crop_with_margin(np.full((*shape, 3), 77, np.uint8), chosen).min() == 77


def test_a_mirrored_photo_gives_the_mirrored_crop() -> None:
    chosen = PhotoSettings(size=(40, 30), colour="rgb")
    image = picture(3, 91, 120)
    mirrored = crop_with_margin(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), chosen)
    difference = crop_with_margin(image, chosen)[:, ::-1].astype(int) - mirrored
    assert np.abs(difference).max() <= 1


def test_a_window_that_is_not_square_is_the_largest_of_its_aspect_in_the_square() -> None:
    """A disc that touches the centre square's edges touches the window's top and bottom, and leaves its sides."""
    y, x = np.mgrid[:200, :300]
    disc = np.where((x - 149.5) ** 2 + (y - 99.5) ** 2 <= 50**2, 255, 0).astype(np.uint8)
    seen = window(crop_with_margin(disc, PhotoSettings(crop=0.5, size=(50, 25))), PhotoSettings(size=(50, 25)))[..., 0]
    assert seen[0, 12] > 100
    assert seen[-1, 12] > 100
    assert (seen[25] == 255).all()


def test_colours_and_arrays() -> None:
    red = np.zeros((60, 60, 3), np.uint8)
    red[..., 0] = 255
    assert (crop_with_margin(red, PhotoSettings()) == 76).all()  # 0.299 · 255
    assert (crop_with_margin(red, PhotoSettings(colour="rgb")) == [255, 0, 0]).all()
    grey = np.full((60, 60, 1), 9, np.uint8)
    assert (crop_with_margin(grey, PhotoSettings(colour="rgb")) == 9).all()


@pytest.mark.parametrize(
    ("size", "box"), [(40, (40, 20, 80, 60)), ((40, 20), (50, 20, 70, 60)), ((20, 40), (40, 30, 80, 50))]
)
def test_the_network_sees_a_share_of_the_shorter_side(
    size: int | tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    assert PhotoSettings(crop=0.5, size=size).window(120, 80) == box


def test_the_margin_is_taken_off_on_all_four_edges() -> None:
    stored = np.random.default_rng(0).integers(0, 256, (2, 60, 30, 1), np.uint8)  # a quarter more on each edge
    np.testing.assert_array_equal(without_margin(stored, PhotoSettings(size=(40, 20))), stored[:, 10:50, 5:25])
