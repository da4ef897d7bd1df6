"""Which face of each photo is trained on: chosen once, written down, and followed when a run goes on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.squares import find_squares, finder, write_album
from facecnn.cli.console import StderrConsole
from facecnn.config import Loaded, load
from facecnn.jobs import training_photos
from facecnn.jobs.training_photos import TrainingPhotos
from facecnn.runs.folder import RunFolder

QUIET = StderrConsole(quiet=True, verbose=False)


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people and strangers, several faces in some photos. Not to be written to."""
    return write_album(tmp_path_factory.mktemp("several") / "album", people=3, photos=20, strangers=10, groups=0.5)


@pytest.fixture
def loaded() -> Loaded:
    return load("smoke")


def read(album: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> TrainingPhotos:
    find_squares(monkeypatch)
    return training_photos.read(album, None, loaded, False, QUIET)


def again(data: TrainingPhotos, record: dict[str, Any], loaded: Loaded, folder: Path) -> TrainingPhotos:
    with RunFolder.create(folder, "run", "smoke", False) as run:
        run.write_split(record)
        return training_photos.read_again(run, data.dataset.folder, loaded, finder(), False, QUIET)


def test_what_was_chosen_is_read_again(
    album: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = read(album, loaded, monkeypatch)
    assert (data.training.faces > 0).any()
    resumed = again(data, data.record(), loaded, tmp_path)
    np.testing.assert_array_equal(resumed.train_photos.rows, data.train_photos.rows)
    np.testing.assert_array_equal(resumed.held_out_numbers, data.held_out_numbers)


def test_the_record_is_followed_and_nothing_chosen_anew(
    album: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = read(album, loaded, monkeypatch)
    record = data.record()
    path = next(path for path, face in record["faces"].items() if not path.startswith("unknown"))
    number = data.dataset.paths.index(path)
    face = next(face for face in data.dataset.faces[number] if list(face.box) != record["faces"][path]["box"])
    record["faces"][path]["box"] = list(face.box)
    resumed = again(data, record, loaded, tmp_path)
    index = data.chosen.tolist().index(number)
    row = resumed.train_photos.rows[index]
    assert row == data.dataset.rows[number] + data.dataset.faces[number].index(face)
    assert np.delete(resumed.train_photos.rows, index).tolist() == np.delete(data.train_photos.rows, index).tolist()


def test_a_photo_whose_face_is_gone_takes_its_main_face(
    album: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = read(album, loaded, monkeypatch)
    record = data.record()
    for face in record["faces"].values():
        face["box"] = [0.0, 0.0, 1.0, 1.0]
    assert (again(data, record, loaded, tmp_path).training.faces == 0).all()


def test_photos_with_several_faces_are_in_no_loss(album: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read(album, loaded, monkeypatch)
    alone = [n for n in data.held_out_numbers.tolist() if len(data.dataset.faces[n]) == 1]
    assert data.validation.rows.tolist() == data.dataset.rows[alone].tolist()
    assert set(data.validation_digests) == {data.dataset.paths[n] for n in data.held_out_numbers.tolist()}


def test_hidden_faces_are_chosen_as_they_look(album: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read(album, loaded, monkeypatch)
    photos = replace(loaded.settings.photos, hide_face=True)
    hidden = read(album, replace(loaded, settings=replace(loaded.settings, photos=photos)), monkeypatch)
    assert hidden.record() == data.record()
