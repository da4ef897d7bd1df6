"""``Model.predict``: the answers of ``facecnn predict``, for photos on the disk and in memory."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import facecnn
from cli.running import call
from facecnn.photos.cache_folder import CACHE_VARIABLE


def as_json(faces: list[facecnn.Face]) -> list[dict[str, Any]]:
    """Faces as the ``predict`` JSON has them."""
    keys = {"name": "label", "scores": "probabilities"}
    rows = [{keys.get(key, key): value for key, value in vars(face).items()} for face in faces]
    plain: list[dict[str, Any]] = json.loads(json.dumps(rows))
    return plain


@pytest.mark.parametrize("threshold", ["auto", "off", 0.3])
def test_the_answers_are_those_of_the_command_line(runs: Path, people: Path, threshold: Any) -> None:
    photos = [people / "ann" / "00.png", people / "bob" / "03.png"]
    options = ["-m", runs / "two", "--threshold", str(threshold), "--format", "json"]
    model = facecnn.load(runs / "two")
    together = call("predict", *photos, *options).json()
    assert [as_json(faces) for faces in model.predict(photos, threshold=threshold)] == [
        answer["faces"] for answer in together
    ]
    for photo in photos:
        (answer,) = call("predict", photo, *options).json()
        assert as_json(model.predict(photo, threshold=threshold)) == answer["faces"]


def test_many_photos_are_answered_by_the_compiled_kernels_as_on_the_command_line(
    model: facecnn.Model, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facecnn.library.model.quickest_for", lambda name, work, photos: "cpu" if photos > 1 else name)
    monkeypatch.setattr("facecnn.jobs.models.quickest_for", lambda name, work, photos: "cpu" if photos > 1 else name)
    answers = call("predict", people / "ann", "-m", model.path, "--format", "json").json()
    photos = sorted((people / "ann").iterdir())
    assert [as_json(faces) for faces in model.predict(photos)] == [answer["faces"] for answer in answers]
    assert [*model._opened] == ["cpu"]


def test_a_single_photo_is_answered_by_numpy_unless_the_cpu_is_asked_for(runs: Path, people: Path) -> None:
    for device, opened in (("auto", "reference"), ("cpu", "cpu"), ("reference", "reference")):
        model = facecnn.load(runs / "two", device=device)
        model.predict(people / "ann" / "00.png")
        assert [*model._opened] == [opened]


def test_a_photo_may_be_a_path_an_image_or_an_array(model: facecnn.Model, people: Path) -> None:
    path = people / "ann" / "00.png"
    image = Image.open(path)
    expected = model.predict(path)
    assert model.predict(str(path)) == expected
    assert model.predict(image) == expected
    assert model.predict(np.asarray(image)) == expected
    assert model.predict(np.asarray(image)[..., None]) == expected
    assert model.predict(np.asarray(image)[:, ::-1][:, ::-1]) == expected  # not contiguous
    compiled = facecnn.load(model.path, device="cpu")  # where an answer doesn't depend on the photos beside it
    assert compiled.predict((path, image, np.asarray(image))) == [compiled.predict(path)] * 3
    assert model.predict(iter([path])) == [expected]  # type: ignore[call-overload]
    assert model.predict([]) == []


def test_colours_are_in_the_order_red_green_blue(model: facecnn.Model, people: Path) -> None:
    grey = np.asarray(Image.open(people / "ann" / "00.png"))
    red = np.stack([grey, np.zeros_like(grey), np.zeros_like(grey)], axis=-1)
    assert model.predict(red) == model.predict(Image.fromarray(red, "RGB").convert("L"))
    assert model.predict(red) != model.predict(red[..., ::-1])


def test_an_image_in_memory_is_turned_as_its_file_is(model: facecnn.Model, people: Path, tmp_path: Path) -> None:
    turned = Image.open(people / "ann" / "00.png").transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    assert model.predict(Image.open(tmp_path / "turned.png")) == model.predict(tmp_path / "turned.png")
    assert model.predict(Image.open(tmp_path / "turned.png")) == model.predict(people / "ann" / "00.png")
    assert model.predict(turned) != model.predict(people / "ann" / "00.png")


def test_what_is_given_is_not_changed(model: facecnn.Model, people: Path) -> None:
    image = Image.open(people / "ann" / "00.png").convert("RGBA")
    array = np.asarray(image.convert("RGB")).copy()
    before = image.copy(), array.copy()
    model.predict([image, array])
    assert image == before[0]
    assert (array == before[1]).all()


def test_of_photos_in_memory_nothing_is_kept(
    model: facecnn.Model, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    model.predict([np.asarray(Image.open(people / "ann" / "00.png"))])
    assert [*tmp_path.rglob("*")] == []
    model.predict(people / "ann" / "00.png")
    assert [*tmp_path.rglob("pixels.bin")] != []


@pytest.mark.parametrize(
    ("photo", "said"),
    [
        (np.zeros((3, 20, 20), np.uint8), r"shape \(3, 20, 20\).*transpose\(1, 2, 0\)"),
        (np.zeros((20, 20, 4), np.uint8), r"shape \(20, 20, 4\).*leaves transparency out"),
        (np.zeros((2, 20, 20, 3), np.uint8), "several photos are given as a list"),
        (np.zeros((20, 20, 3)), r"array of float64.*astype\(numpy.uint8\)"),
        (np.zeros((20, 20), np.int64), "array of int64"),
        (np.zeros(20, np.uint8), r"shape \(20,\)"),
        (np.zeros((0, 20), np.uint8), "no pixels"),
        (3, "int is no photo"),
        (None, "NoneType is no photo"),
        (b"photo.jpg", "bytes is no photo"),
        ({"photo.jpg": 1}, "dict is no photo"),
        ("", "'' is no path"),
        (["photo.jpg", 3], "photo 2: int is no photo"),
        ([["photo.jpg"]], "photo 1: list is no photo"),
    ],
)
def test_what_is_no_photo_is_refused(model: facecnn.Model, photo: Any, said: str) -> None:
    with pytest.raises(facecnn.UsageError, match=said):
        model.predict(photo)


def test_photos_that_cannot_be_read_are_named(model: facecnn.Model, people: Path, tmp_path: Path) -> None:
    empty, good = tmp_path / "empty.png", people / "ann" / "00.png"
    empty.touch()
    with pytest.raises(facecnn.PhotoError, match=r"^[^\n]*empty.png: empty file") as caught:
        model.predict(empty)
    assert isinstance(caught.value, facecnn.FacecnnError)
    with pytest.raises(facecnn.PhotoError, match=r"2 of 3 photos can't be read:\n.*empty.png.*\n.*none.png: no such"):
        model.predict([empty, good, tmp_path / "none.png"])
    with pytest.raises(facecnn.PhotoError, match=r"not a regular file \(a folder\)"):
        model.predict(tmp_path)
    with pytest.raises(facecnn.PhotoError, match="the photo: 4x9 pixels, too small"):
        model.predict(np.zeros((9, 4), np.uint8))
    closed = Image.open(good)
    closed.close()
    with pytest.raises(facecnn.PhotoError, match="photo 2: the picture is damaged"):
        model.predict([good, closed])
    assert model.predict([empty, good], errors="ignore") == [[], model.predict(good)]


@pytest.mark.parametrize("threshold", ["sometimes", -0.1, 1.5, float("nan"), True, None])
def test_a_threshold_that_is_none_is_refused(model: facecnn.Model, people: Path, threshold: Any) -> None:
    with pytest.raises(facecnn.UsageError, match=r"^threshold .*: auto, off, or a number from 0 to 1"):
        model.predict(people / "ann" / "00.png", threshold=threshold)


def test_another_word_for_errors_is_refused(model: facecnn.Model, people: Path) -> None:
    with pytest.raises(facecnn.UsageError, match="errors 'skip': raise or ignore"):
        model.predict(people / "ann" / "00.png", errors="skip")  # type: ignore[call-overload]


def test_strangers_are_unknown(model: facecnn.Model, people: Path) -> None:
    (face,) = model.predict(people / "ann" / "00.png", threshold=0)
    assert face.name == "unknown"
    assert face.is_unknown
    assert face.confidence == face.unknown_score
    (named,) = model.predict(people / "ann" / "00.png", threshold="off")
    assert not named.is_unknown
    assert sum(named.scores.values()) == pytest.approx(1)
    assert named.landmarks is None
