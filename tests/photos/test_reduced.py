"""Large JPEGs, whose faces are found and cut out at a fraction of their size."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facecnn.photos.cache import load_photos
from facecnn.photos.decode import decode
from facecnn.photos.face import Face
from facecnn.photos.preparation import PhotoSettings, aligned_crop
from facecnn.photos.reduced import cut_faces, decode_to_find

from .finders import KnownFaces, draw_faces, face_at
from .pictures import encoded

SETTINGS = PhotoSettings(size=24)  # 11 pixels between the eyes
LARGEST = 50_000_000
SIZE = (2400, 1600)


def photo(faces: Sequence[Face]) -> tuple[Image.Image, bytes]:
    """Dots on noise, so that there is detail everywhere."""
    image = np.asarray(draw_faces(*SIZE, faces)) + np.random.default_rng(0).normal(0, 20, (*SIZE[::-1], 1))
    whole = Image.fromarray(image.clip(0, 255).astype(np.uint8))
    return whole, encoded(whole, "JPEG", quality=95)


@pytest.mark.parametrize(
    ("size", "reduction"), [((1200, 799), 1), ((1200, 800), 2), ((800, 1200), 2), ((1700, 1600), 4), ((3300, 3200), 8)]
)
def test_the_smallest_faces_that_count_keep_20_pixels(size: tuple[int, int], reduction: int) -> None:
    decoded = decode_to_find(encoded(Image.new("RGB", size, "red"), "JPEG"), "x", LARGEST)
    assert decoded.reduction == reduction
    assert min(decoded.image.size) / 20 >= 20 or reduction == 1


@pytest.mark.parametrize(("eye_distance", "reduction"), [(15, 1), (30, 1), (40, 2), (60, 2), (80, 4), (300, 4)])
@pytest.mark.parametrize("align", ["arcface", "dlib"])
def test_a_crop_is_that_of_the_whole_photo(
    eye_distance: float, reduction: int, align: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made of a picture that has at least one and a half pixels a side for each of its own.

    dlib's crops of noise are noise: they don't average all that they cover.
    """
    settings = replace(SETTINGS, align=align)
    faces = [face_at(900, 700, eye_distance, 10), face_at(1900, 500, 300)]
    whole, data = photo(faces)
    found = decode_to_find(data, "x", LARGEST)
    assert found.reduction == 4
    read = [found.reduction]

    def reading(*arguments: object, **named: object) -> object:
        decoded = decode(*arguments, **named)  # type: ignore[arg-type]
        read.append(decoded.reduction)
        return decoded

    monkeypatch.setattr("facecnn.photos.reduced.decode", reading)
    crops = cut_faces(data, "x", found, [face.scaled(1 / 4) for face in faces], settings)
    if align == "arcface":
        assert read[-1] == reduction
    assert len(read) <= 2
    for crop, face in zip(crops, faces, strict=True):
        expected = aligned_crop(whole, face, settings).astype(int)
        assert np.abs(crop - expected).mean() < 4
        assert align == "dlib" or np.abs(crop - expected).max() < 40


def test_faces_and_their_order_do_not_depend_on_the_crops(tmp_path: Path) -> None:
    """Larger crops are cut out of a larger picture, but those are the same faces."""
    faces = [face_at(400, 700, 50), face_at(1200, 800, 110), face_at(1900, 500, 100)]
    path = tmp_path / "1.jpg"
    path.write_bytes(photo(faces)[1])
    finder = KnownFaces({(600, 400): [face.scaled(1 / 4) for face in faces]})
    loaded = [load_photos([path], replace(SETTINGS, size=size), finder=finder) for size in (8, 24, 96)]
    assert finder.searched == [(600, 400)]
    assert {one.faces for one in loaded} == {loaded[0].faces}
    assert len(loaded[0].faces[0]) == 3
    assert {int(one.hashes[0]) for one in loaded} == {int(loaded[0].hashes[0])}
    assert [one.notes for one in loaded] == [((0, "3 faces, the most prominent is the main one"),)] * 3


def test_other_formats_are_searched_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "1.png"
    Image.new("RGB", (900, 800), "red").save(path)
    finder = KnownFaces({(900, 800): [face_at(450, 400, 100)]})
    assert len(load_photos([path], SETTINGS, finder=finder).faces[0]) == 1
