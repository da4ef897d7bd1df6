"""Faces come to lie alike, however they lay in the photo."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.photos.face import Face
from facecnn.photos.preparation import PhotoSettings, aligned_crop

from .finders import DOT, GREY, UPRIGHT, draw_faces, face_at


def dots(crop: npt.NDArray[np.uint8], chosen: PhotoSettings, radius: int) -> npt.NDArray[np.float64]:
    """Where the centres of brightness are, near each place where a landmark should be, from the window's corner."""
    rows, columns = chosen.margin
    places = expected(chosen)
    light = np.maximum(crop.mean(axis=2) - GREY - 20, 0)
    found = []
    for x, y in places:
        row, column = round(y + rows), round(x + columns)
        part = light[row - radius : row + radius + 1, column - radius : column + radius + 1]
        assert part.sum() > 0
        row_centres, column_centres = np.indices(part.shape) + 0.5
        centre = ((part * column_centres).sum(), (part * row_centres).sum()) / part.sum()
        found.append(np.add(centre, (column - radius - columns, row - radius - rows)))
    return np.array(found)


def expected(chosen: PhotoSettings) -> npt.NDArray[np.float64]:
    side = min(chosen.height, chosen.width)
    return np.array(UPRIGHT * 0.44 * side + (chosen.width / 2, 0.36 * chosen.height))


@given(
    st.floats(15, 150), st.floats(-180, 180), st.floats(-5, 5), st.floats(-5, 5), st.sampled_from([32, 48, (64, 48)])
)
@settings(max_examples=30, deadline=None)
def test_landmarks_come_to_lie_where_they_should(
    eye_distance: float, degrees: float, x: float, y: float, size: int | tuple[int, int]
) -> None:
    chosen = PhotoSettings(size=size)
    side = int(6 * eye_distance)
    face = face_at(side / 2 + x, side / 2 + y, eye_distance, degrees)
    crop = aligned_crop(draw_faces(side, side, [face]), face, chosen)
    assert crop.shape == chosen.margin_shape
    np.testing.assert_allclose(dots(crop, chosen, 4), expected(chosen), atol=0.35)


def test_landmarks_that_fit_no_similarity_are_met_by_least_squares() -> None:
    chosen = PhotoSettings(size=48)
    face = face_at(100, 100, 30)
    moved = np.array(face.landmarks)
    moved[2, 1] += 6  # a long nose
    other = replace(face, landmarks=tuple(map(tuple, moved.tolist())))
    crop = aligned_crop(draw_faces(200, 200, [other]), other, chosen)
    difference = dots(crop, chosen, 7) - expected(chosen)
    assert difference[2, 1] > 2  # the nose is where it is
    np.testing.assert_allclose(difference.sum(axis=0), 0, atol=0.5)


def test_a_large_photo_is_not_aliased() -> None:
    """Stripes finer than a stored pixel come out grey."""
    stripes = np.where(np.arange(1200) % 4 < 2, 0, 255).astype(np.uint8)
    picture = np.broadcast_to(stripes, (1200, 1200)).copy()
    for eye_distance in (200, 211, 333):
        crop = aligned_crop(picture, face_at(600, 500, eye_distance, 7), PhotoSettings(size=48))
        rows, columns = PhotoSettings(size=48).margin
        window = crop[rows:-rows, columns:-columns].astype(float)
        assert abs(window - 127.5).max() < 25


def test_what_lies_beyond_the_photo_repeats_its_border() -> None:
    picture = np.full((60, 60, 3), 50, np.uint8)
    picture[:, -1] = 200
    crop = aligned_crop(picture, face_at(50, 30, 20), PhotoSettings(size=48, colour="rgb"))
    rows, columns = PhotoSettings(size=48).margin
    assert crop[rows, columns].tolist() == [50, 50, 50]
    assert (crop[:, -columns:] == 200).all()
    wholly = aligned_crop(picture, face_at(5000, 30, 20), PhotoSettings(size=48))
    assert (wholly == 200).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_hidden_face_leaves_no_trace(mode: str) -> None:
    face = face_at(100, 100, 30, 10)
    plain, hidden = PhotoSettings(size=48), PhotoSettings(size=48, hide_face=True)
    image = draw_faces(200, 200, [face], mode)
    before = np.asarray(image).copy()
    assert aligned_crop(image, face, plain).max() > DOT - 30
    other = aligned_crop(draw_faces(200, 200, [], mode), face, hidden)
    np.testing.assert_array_equal(aligned_crop(image, face, hidden), other)
    np.testing.assert_array_equal(np.asarray(image), before)


def test_a_tall_face_is_hidden_by_a_square_as_wide_as_it_is_high() -> None:
    """The box alone would give away how wide the face is."""
    face = replace(face_at(100, 100, 30), box=(90.0, 60.0, 110.0, 160.0))
    white = np.full((200, 200), 255, np.uint8)
    hidden = PhotoSettings(size=100, eye_distance=0.3, hide_face=True)  # a stored pixel is one of the photo
    crop = aligned_crop(white, face, hidden)[..., 0]
    rows, columns = hidden.margin
    # The photo's column 100 and row 100, between the eyes, lie in the window's column 50 and row 36.
    dark = np.add(np.argwhere(crop < 192), (100 - 36 - rows, 100 - 50 - columns))
    np.testing.assert_allclose(dark.min(axis=0), (60, 50), atol=1)
    np.testing.assert_allclose(dark.max(axis=0), (159, 149), atol=1)


def test_grey_is_the_photos_luma() -> None:
    red = np.zeros((80, 80, 3), np.uint8)
    red[..., 0] = 255
    face: Face = face_at(40, 40, 12)
    assert (aligned_crop(red, face, PhotoSettings(size=24)) == 76).all()
    assert (aligned_crop(red, face, PhotoSettings(size=24, colour="rgb")) == [255, 0, 0]).all()
