"""Photos are removed from the caches: their entries, and their pixels."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facecnn.photos.cache import load_photos
from facecnn.photos.cache_folder import CACHE_VARIABLE
from facecnn.photos.forgetting import find_cached, forget_cached
from facecnn.photos.preparation import PhotoSettings

from .finders import KnownFaces, face_at

SIZES = (16, 24)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three photos, in a cache of their own with two preparations."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(np.random.default_rng(number).integers(1, 256, (40, 40), np.uint8)).save(files[-1])
    for size in SIZES:
        load_photos(files, PhotoSettings(size=size))
    return files


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_nothing_of_a_forgotten_photo_is_left(photos: list[Path], tmp_path: Path) -> None:
    loaded = [load_photos(photos, PhotoSettings(size=size)) for size in SIZES]
    crops = [one.pixels[one.row[1]].tobytes() for one in loaded]
    others = [one.pixels[one.row[0]].tobytes() for one in loaded]
    found = find_cached(frozenset({digest(photos[1])}))
    assert found.crops == 2
    assert sorted(crop.tobytes() for crop in found.pixels()) == sorted(crops)
    forget_cached(found)
    content = b"".join(file.read_bytes() for file in (tmp_path / "cache").rglob("*") if file.is_file())
    assert not any(crop in content for crop in crops)
    assert digest(photos[1]).encode() not in content
    assert all(crop in content for crop in others)
    assert find_cached(frozenset({digest(photos[1])})).crops == 0


def test_the_others_are_still_cached(photos: list[Path]) -> None:
    forget_cached(find_cached(frozenset({digest(photos[1])})))
    found = find_cached(frozenset(map(digest, photos)))
    assert found.crops == 4
    loaded = load_photos(photos, PhotoSettings(size=16))  # the forgotten one is read anew
    assert loaded.warnings == ()
    assert loaded.reasons == (None, None, None)


def test_found_faces_are_forgotten_too(photos: list[Path]) -> None:
    finder = KnownFaces({(40, 40): [face_at(20, 20, 10)]})
    load_photos(photos, PhotoSettings(size=16), finder=finder)
    wanted = frozenset({digest(photos[1])})
    assert find_cached(wanted).searched == 1
    forget_cached(find_cached(wanted))
    assert find_cached(wanted).searched == 0
    assert find_cached(frozenset(map(digest, photos))).searched == 2
