"""The cache where faces are found: searched for once, a row for each, apart from photos cropped otherwise."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facecnn.photos.cache import load_photos
from facecnn.photos.dataset import load_dataset
from facecnn.photos.decode import Picture
from facecnn.photos.face import NO_FACE, TOO_SMALL
from facecnn.photos.preparation import PhotoSettings, SmallestFaceSettings, aligned_crop, crop_with_margin

from .finders import KnownFaces, draw_faces, face_at
from .pictures import encoded

SETTINGS = PhotoSettings(size=16)
FACES = {
    (90, 80): [face_at(45, 40, 12)],
    (120, 80): [face_at(25, 40, 9), face_at(65, 42, 14, 20), face_at(104, 20, 5)],
    (70, 70): [],
}


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """With one face, three, none, and a copy of the second."""
    paths = []
    for number, (size, faces) in enumerate([*FACES.items(), ((120, 80), FACES[120, 80])]):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encoded(draw_faces(*size, faces)))
        paths.append(path)
    return paths


def assert_right(photos: list[Path], finder: KnownFaces, chosen: PhotoSettings = SETTINGS) -> None:
    rests = finder.rests
    loaded = load_photos(photos, chosen, finder=finder)
    assert loaded.reasons == (None, None, NO_FACE, None)
    assert finder.rests == rests + 1, "its threads would slow down what comes after"
    assert loaded.row[2] == -1
    assert loaded.row[1] == loaded.row[3]
    middle_first = [FACES[120, 80][index] for index in (1, 0, 2)]
    assert loaded.faces == ((FACES[90, 80][0],), tuple(middle_first), (), tuple(middle_first))
    assert loaded.notes == tuple((index, "3 faces, the most prominent is the main one") for index in (1, 3))
    for index, size in ((0, (90, 80)), (1, (120, 80))):
        image = draw_faces(*size, FACES[size])
        for number, face in enumerate(loaded.faces[index]):
            np.testing.assert_array_equal(loaded.pixels[loaded.row[index] + number], aligned_crop(image, face, chosen))


def test_faces_in_pictures_in_memory_are_those_of_files_and_not_kept(photos: list[Path]) -> None:
    finder = KnownFaces(FACES)
    pictures = [Picture(Image.open(path), path.name) for path in photos]
    loaded = [load_photos(pictures, SETTINGS, finder=finder) for _ in range(2)]
    assert sorted(finder.searched) == sorted(2 * list(FACES)), "once in each call"
    finder.searched.clear()
    for _ in range(2):
        load_photos([photos[0], *pictures[1:]], SETTINGS, finder=finder)
    assert len(finder.searched) == 2 * len(FACES) - 1, "the file once"
    expected = load_photos(photos, SETTINGS, finder=finder)
    for one in loaded:
        assert one.faces == expected.faces
        assert one.reasons == expected.reasons
        for number in (0, 1, 3):
            for face in range(len(one.faces[number])):
                own, other = one.pixels[one.row[number] + face], expected.pixels[expected.row[number] + face]
                np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize(
    ("least", "there"),
    [
        ({"pixels": 24}, [1, 0, 2]),  # the box is as wide as that
        ({"pixels": 25}, [1]),
        ({"share": 0.3}, [1, 0, 2]),
        ({"share": 0.31}, [1]),
        ({"pixels": 49}, []),
    ],
)
def test_faces_that_are_too_small_are_none(tmp_path: Path, least: dict[str, float], there: list[int]) -> None:
    faces = [face_at(20, 40, 10), face_at(60, 40, 20), face_at(105, 40, 10)]
    path = tmp_path / "three.png"
    path.write_bytes(encoded(draw_faces(120, 80, faces)))
    chosen = replace(SETTINGS, smallest_face=SmallestFaceSettings(**least))
    finder = KnownFaces({(120, 80): faces})
    assert len(load_photos([path], SETTINGS, finder=finder).faces[0]) == 3
    loaded = load_photos([path], chosen, finder=finder)
    assert sorted(map(faces.index, loaded.faces[0])) == sorted(there)
    assert loaded.reasons == (None if there else TOO_SMALL,)


def test_every_face_has_its_row_and_is_searched_for_once(photos: list[Path]) -> None:
    finder = KnownFaces(FACES)
    assert_right(photos, finder)
    assert sorted(finder.searched) == [(70, 70), (90, 80), (120, 80)]
    assert_right(photos, finder)
    assert_right(photos, finder, replace(SETTINGS, size=20))
    assert_right(photos, finder, replace(SETTINGS, hide_face=True))
    assert_right(photos, finder, replace(SETTINGS, eye_distance=0.6))
    assert len(finder.searched) == 3


def test_both_alignments_are_kept_side_by_side(
    photos: list[Path], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finder = KnownFaces(FACES)
    ways = [SETTINGS, *(replace(SETTINGS, align="dlib", augment=augment) for augment in (SETTINGS.augment, None))]
    for chosen in ways:
        assert_right(photos, finder, chosen)
    assert len(finder.searched) == 3
    stores = {path: path.read_bytes() for path in cache_dir.rglob("pixels.bin")}
    sizes = sorted(len(pixels) for pixels in stores.values())
    assert sizes == [4 * 16**2, 4 * 24**2, 4 * 24**2], "four faces; without a margin where nothing is augmented"
    monkeypatch.setattr("facecnn.photos.cache.decode", lambda *_: pytest.fail("prepared again"))
    for chosen in ways:
        assert_right(photos, finder, chosen)
    assert {path: path.read_bytes() for path in cache_dir.rglob("pixels.bin")} == stores


def test_another_finder_searches_anew(photos: list[Path]) -> None:
    load_photos(photos, SETTINGS, finder=KnownFaces({}, identity="blind"))
    finder = KnownFaces(FACES)
    assert_right(photos, finder)
    assert len(finder.searched) == 3


def test_with_and_without_finder_are_kept_apart(photos: list[Path]) -> None:
    assert_right(photos, KnownFaces(FACES))
    plain = load_photos(photos, SETTINGS)
    assert plain.faces == ((), (), (), ())
    for index, size in enumerate([*FACES, (120, 80)]):
        expected = crop_with_margin(draw_faces(*size, FACES[size]), SETTINGS)
        np.testing.assert_array_equal(plain.pixels[plain.row[index]], expected)
    assert_right(photos, KnownFaces(FACES))


def test_damaged_crops_and_lost_indices_are_made_again(photos: list[Path], cache_dir: Path) -> None:
    finder = KnownFaces(FACES)
    load_photos(photos, SETTINGS, finder=finder)
    (store,) = (cache_dir / "photos").iterdir()
    data = bytearray((store / "pixels.bin").read_bytes())
    data[-1] ^= 255  # the last of three faces
    (store / "pixels.bin").write_bytes(data)
    assert_right(photos, finder)
    (memory,) = (cache_dir / "faces").iterdir()
    memory.write_bytes(b"no database")
    for file in store.iterdir():
        file.unlink()
    assert_right(photos, finder)
    assert len(finder.searched) == 6
    assert_right(photos, finder, replace(SETTINGS, size=20))
    assert len(finder.searched) == 6  # and kept again


def test_works_without_a_cache(photos: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FACECNN_CACHE_DIR", str(tmp_path / "file"))
    assert_right(photos, KnownFaces(FACES))


def test_found_faces_that_make_no_sense_are_found_again(photos: list[Path], cache_dir: Path) -> None:
    load_photos(photos, SETTINGS, finder=KnownFaces(FACES))
    (memory,) = (cache_dir / "faces").iterdir()
    with sqlite3.connect(memory) as index:
        index.execute("update faces set faces = '[[1, 2]]'")
    assert_right(photos, KnownFaces(FACES), replace(SETTINGS, size=20))


def test_faces_of_a_photo_read_at_a_fraction_are_told_in_pixels_of_the_whole(tmp_path: Path) -> None:
    """They are the same with any limit and any size of the crops, and searched once."""
    path = tmp_path / "huge.jpg"
    faces = [face_at(1500, 640, 300), face_at(500, 640, 200)]
    image = draw_faces(2000, 1300, faces)
    image.save(path, quality=95)
    finder = KnownFaces(
        {(2000, 1300): faces, (1000, 650): [face.scaled(1 / 2) for face in faces]},
    )
    reduced, whole = replace(SETTINGS, largest_picture=1), replace(SETTINGS, largest_picture=3)
    large = replace(reduced, smallest_face=SmallestFaceSettings(pixels=480))  # the smaller one's side
    for _ in range(2):
        for chosen in (reduced, whole, replace(reduced, size=20), large):
            loaded = load_photos([path], chosen, finder=finder)
            assert loaded.sizes.tolist() == [[2000, 1300]]
            for found, face in zip(loaded.faces[0], faces, strict=True):
                np.testing.assert_allclose(found.box, face.box)
                np.testing.assert_allclose(found.landmarks, face.landmarks)
            crop = aligned_crop(image, faces[0], chosen)
            assert np.abs(loaded.pixels[loaded.row[0]].astype(int) - crop).mean() < 2
            assert any("3 megapixels, read at 1/2" in note for _, note in loaded.notes) is (chosen is not whole)
    assert finder.searched == [(1000, 650)]


def test_a_photo_read_at_another_fraction_is_searched_anew(tmp_path: Path) -> None:
    """Its faces are told in pixels of what was searched."""
    path = tmp_path / "wide.jpg"
    face = face_at(2600, 400, 300)
    draw_faces(5000, 900, [face]).save(path)
    finder = KnownFaces({(2500, 450): [face.scaled(1 / 2)], (1250, 225): [face.scaled(1 / 4)]})
    for limit in (2, 1, 2, 1):
        loaded = load_photos([path], replace(SETTINGS, largest_picture=limit), finder=finder)
        np.testing.assert_allclose(loaded.faces[0][0].box, face.box)
    assert finder.searched == [(2500, 450), (1250, 225)]


@pytest.mark.parametrize(
    ("count", "size", "together"),
    [
        (1, (90, 80), []),
        (40, (90, 80), [2] * 20),
        (400, (90, 80), [8] * 50),
        (130, (1100, 1000), [1] * 130),
        (130, (740, 740), [2, 2, 2, 2] * 16 + [2]),
    ],
)
def test_photos_are_searched_together_as_long_as_no_thread_has_too_many_and_the_memory_bears_it(
    count: int, size: tuple[int, int], together: list[int]
) -> None:
    grey = Image.new("L", size)
    pictures = []
    for number in range(count):
        image = grey.copy()
        image.putpixel((0, 0), number % 256)
        image.putpixel((1, 0), number // 256)
        pictures.append(Picture(image, f"{number}"))
    finder = KnownFaces({})
    load_photos(pictures, SETTINGS, finder=finder, workers=2)
    assert finder.together == together
    assert len(finder.searched) == count


def test_copies_that_are_prepared_together_are_searched_once(tmp_path: Path) -> None:
    content = encoded(draw_faces(90, 80, FACES[90, 80]))
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for path in paths:
        path.write_bytes(content)
    finder = KnownFaces(FACES)
    loaded = load_photos(paths, SETTINGS, finder=finder, workers=1)
    assert finder.searched == [(90, 80)]
    assert loaded.row.tolist() == [0] * 20
    assert set(loaded.faces) == {(FACES[90, 80][0],)}


def test_photos_without_a_face_are_left_out_and_named(tmp_path: Path) -> None:
    finder = KnownFaces(FACES)
    for person, shade in (("ann", 0), ("bob", 3)):
        (tmp_path / person).mkdir()
        for number, size in enumerate(FACES):
            image = draw_faces(*size, FACES[size], dot=0.1 + 0.02 * shade)
            (tmp_path / person / f"{number}.png").write_bytes(encoded(image))
    dataset = load_dataset(tmp_path, SETTINGS, finder=finder)
    assert dataset.paths == ("ann/0.png", "ann/1.png", "bob/0.png", "bob/1.png")
    assert [Path(file).name for file in dataset.files] == ["0.png", "1.png"] * 2
    assert [(photo.path, photo.reason) for photo in dataset.skipped] == [
        ("ann/2.png", NO_FACE),
        ("bob/2.png", NO_FACE),
    ]
    assert len([note for note in dataset.notes if "3 faces" in note.text]) == 2
    assert dataset.finder is finder
