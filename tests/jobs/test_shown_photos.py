"""The photos that a report shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from facecnn.jobs.shown_photos import show_photos
from facecnn.photos.dataset import load_dataset
from facecnn.photos.preparation import PhotoSettings
from facecnn.reports.facts import Answer
from photos.finders import KnownFaces, face_at


def test_of_several_faces_that_is_shown_which_the_answer_is_about(tmp_path: Path) -> None:
    greys = (40, 120, 200)
    (tmp_path / "ann").mkdir()
    strip = np.repeat(np.array(greys, np.uint8), 60)
    Image.fromarray(np.tile(strip, (60, 1))).save(tmp_path / "ann" / "three.png")
    finder = KnownFaces({(180, 60): [face_at(30 + 60 * number, 25, 16) for number in range(3)]})
    dataset = load_dataset(tmp_path, PhotoSettings(size=16), finder=finder, for_training=False)
    for number, face in enumerate(dataset.faces[0]):
        grey = greys[int(np.mean(face.box[::2]) // 60)]
        answer = Answer("ann/three.png", dataset.sha256[0], "ann", "bob", 0.9, 0.1, faces=3, face=number)
        photo = show_photos(dataset, [answer])[dataset.sha256[0]]
        assert photo.pixels.shape == (192, 192, 3), "sharper than the network sees it, and in colour"
        assert abs(int(np.median(photo.pixels)) - grey) <= 1
        assert photo.file == tmp_path / "ann" / "three.png"
    # Gone since, it is shown as the network saw it.
    (tmp_path / "ann" / "three.png").unlink()
    photo = show_photos(dataset, [answer])[dataset.sha256[0]]
    assert (photo.pixels.shape, photo.file) == ((16, 16, 1), None)
    assert abs(int(np.median(photo.pixels)) - grey) <= 1
