"""Which face of each photo is trained on: chosen once, written down, and followed when a run goes on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.squares import find_squares, finder, write_album
from facecnn.config import Loaded, load
from facecnn.jobs.judgement import labels_in
from facecnn.jobs.stderr import StderrConsole
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.photos import TrainingPhotos, read_photos, read_photos_again
from facecnn.jobs.training.setup import make_trainer
from facecnn.kernels import open_device
from facecnn.runs.folder import RunFolder, write_json

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
    return read_photos(loaded, TrainOptions(photos=album), QUIET)


def again(data: TrainingPhotos, record: dict[str, Any], loaded: Loaded, folder: Path) -> TrainingPhotos:
    with RunFolder.create(folder, "run", "smoke", False) as run:
        write_json(run.split_path, record)
        return read_photos_again(run.read_split(), run.path, data.dataset.folder, loaded, finder(), False, QUIET)


def test_what_was_chosen_is_read_again(
    album: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = read(album, loaded, monkeypatch)
    assert (data.training.faces > 0).any()
    resumed = again(data, data.record(), loaded, tmp_path)
    np.testing.assert_array_equal(resumed.train_photos.rows, data.train_photos.rows)
    np.testing.assert_array_equal(resumed.held_out_numbers, data.held_out_numbers)
    assert len(data.training.spectators)
    np.testing.assert_array_equal(resumed.training.spectators, data.training.spectators)


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
    index = data.train_indices.tolist().index(number)
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


def test_faces_beside_the_people_are_trained_on_as_strangers(
    album: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read(album, loaded, monkeypatch)
    dataset, training = data.dataset, data.training
    chosen = dict(zip(data.train_indices.tolist(), training.faces.tolist(), strict=True))
    for number, face in training.spectators.tolist():
        assert number in chosen, "no photo that is held out, or left out, is looked at"
        assert face != chosen[number]
        assert dataset.classes[dataset.labels[number]] != "unknown"
    trainer = make_trainer(loaded, dataset, training, open_device("cpu"), validation=data.validation)
    rows, labels = trainer.data.train_rows, trainer.data.train_labels
    photos = len(data.train_indices)
    assert rows[:photos].tolist() == data.train_photos.rows.tolist()
    assert labels[:photos].tolist() == data.train_photos.labels.tolist()
    assert rows[photos:].tolist() == [dataset.rows[number] + face for number, face in training.spectators.tolist()]
    assert {dataset.classes[label] for label in labels[photos:].tolist()} == {"unknown"}


def test_people_beside_each_other_are_no_strangers(
    tmp_path: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_album(tmp_path / "album", people=3, photos=30, strangers=30, noise=20)

    def put_beside(person: str, number: int, other: Path) -> str:
        path = folder / person / f"{number:02}.png"
        Image.fromarray(np.hstack([np.asarray(Image.open(photo)) for photo in (path, other)])).save(path)
        return f"{person}/{path.name}"

    people = {put_beside("person0", number, folder / "person1" / f"{number:02}.png") for number in range(10)}
    strangers = {put_beside("person2", number, folder / "unknown" / f"{number:02}.png") for number in range(10)}
    data = read(folder, loaded, monkeypatch)
    taken = {data.dataset.paths[number] for number in data.training.spectators[:, 0].tolist()}
    trained_on = {data.dataset.paths[number] for number in data.train_indices.tolist()}
    assert taken.isdisjoint(people & trained_on)
    assert len(taken & strangers) > len(strangers & trained_on) / 2


def test_nobody_is_a_stranger_where_there_is_no_output_for_them(
    tmp_path: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_album(tmp_path / "album", people=3, photos=20, strangers=0, groups=0.5)
    assert not len(read(folder, loaded, monkeypatch).training.spectators)


def test_a_spectator_who_is_gone_is_trained_on_no_more(
    album: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = read(album, loaded, monkeypatch)
    record = data.record()
    path, boxes = next(iter(record["spectators"].items()))
    boxes[0] = [0.0, 0.0, 1.0, 1.0]
    resumed = again(data, record, loaded, tmp_path)
    assert len(resumed.training.spectators) == len(data.training.spectators) - 1
    number = data.dataset.paths.index(path)
    assert (resumed.training.spectators[:, 0] == number).sum() == len(boxes) - 1


def test_photos_with_several_faces_are_in_no_loss(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    groups = write_album(tmp_path / "groups", people=2, photos=10, strangers=0, groups=0.9)
    data = read(groups, loaded, monkeypatch)
    alone = [n for n in data.held_out_numbers.tolist() if len(data.dataset.faces[n]) == 1]
    assert len(alone) < len(data.held_out_numbers)
    assert data.validation.rows.tolist() == data.dataset.rows[alone].tolist()
    assert set(data.validation_digests) == {data.dataset.paths[n] for n in data.held_out_numbers.tolist()}


def test_a_second_folder_may_lack_people(people: Path, write_people: Callable[..., Path], loaded: Loaded) -> None:
    data = read_photos(loaded, TrainOptions(photos=people, validation=write_people({"bob": 3}, start=50)), QUIET)
    assert data.classes == ["ann", "bob"]
    labels = labels_in(data.held_out, data.held_out_numbers, data.classes)
    assert labels.tolist() == data.validation.labels.tolist() == [1, 1, 1]


def test_hidden_faces_are_chosen_as_they_look(album: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read(album, loaded, monkeypatch)
    photos = replace(loaded.settings.photos, hide_face=True)
    hidden = read(album, replace(loaded, settings=replace(loaded.settings, photos=photos)), monkeypatch)
    assert hidden.record() == data.record()
