"""The finder as those see it who give it photos: where faces are found, where none, and that answers are the same
however it is run."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from facecnn.errors import CheckpointError
from facecnn.faces import finder as with_numpy
from facecnn.faces.finder import FaceFinder
from facecnn.faces.nets import CELL, STRIDE
from facecnn.faces.pyramid import pack, windows_of
from facecnn.kernels import available_threads
from facecnn.kernels.cpu import candidates
from facecnn.photos.face import Face, size_and_place

from .conftest import Pixels, read

Arrays = Mapping[str, npt.NDArray[np.float32]]
Points = npt.NDArray[np.float64]

EYES, NOSE, MOUTH = slice(0, 2), 2, slice(3, 5)


def eye_distance(face: Face) -> float:
    return float(np.hypot(*np.subtract(face.landmarks[1], face.landmarks[0])))


def upright(face: Face) -> bool:
    """Whether eyes, nose and mouth lie where they do in a face that stands upright, and within its box."""
    points = np.array(face.landmarks)
    left, top, right, bottom = face.box
    ordered = points[EYES, 1].max() < points[NOSE, 1] < points[MOUTH, 1].min()
    sides = points[0, 0] < points[1, 0] and points[3, 0] < points[4, 0]
    inside = ((points > (left, top)) & (points < (right, bottom))).all()
    return bool(ordered and sides and inside)


def off(found: Face, landmarks: Sequence[Sequence[float]] | Points) -> float:
    """Mean distance of a face's landmarks from where they should be, in eye distances."""
    return float(np.hypot(*(np.array(found.landmarks) - np.array(landmarks)).T).mean()) / eye_distance(found)


def on_grey(face: Pixels, width: int, height: int, left: int, top: int) -> Pixels:
    picture = np.full((height, width, 3), 100, np.uint8)
    picture[top : top + face.shape[0], left : left + face.shape[1]] = face
    return picture


@pytest.fixture(scope="session")
def portrait(sample: Path) -> Pixels:
    return read(sample / "s1" / "1.pgm")


@pytest.fixture(scope="session")
def lone(finder: FaceFinder, portrait: Pixels) -> Face:
    """The portrait's face."""
    (face,) = finder.find(portrait)
    return face


@pytest.fixture(params=["portrait", "press photo"])
def photo(request: pytest.FixtureRequest) -> Pixels:
    """A photo with a face in the middle."""
    if request.param == "portrait":
        face: Pixels = request.getfixturevalue("portrait")
        return on_grey(face, 192, 212, 50, 50)
    return read(request.getfixturevalue("press_photos")[0])


def main_face(faces: list[Face]) -> Face:
    """Of a press photo."""
    return max(faces, key=lambda face: size_and_place(face, 150, 150))


def test_the_face_of_a_press_photo_is_in_the_middle(finder: FaceFinder, press_photos: list[Path]) -> None:
    for path in press_photos[::25]:
        face = main_face(finder.find(read(path)))
        assert face.turned == 0
        assert face.score > 0.8
        assert upright(face), path
        left, top, right, bottom = face.box
        assert abs((left + right) / 2 - 75) < 20, path
        assert abs((top + bottom) / 2 - 75) < 20, path
        assert 15 < eye_distance(face) < 40, path


def test_most_sample_faces_are_found_and_upright(finder: FaceFinder, sample: Path) -> None:
    for person in range(1, 41, 4):
        faces = finder.find(read(sample / f"s{person}" / "1.pgm"))
        assert len(faces) == 1, person
        assert upright(faces[0]), person


@pytest.mark.parametrize(("left", "top"), [(0, 0), (20, 120), (201, 77)])
def test_a_face_is_where_it_was_put(finder: FaceFinder, portrait: Pixels, lone: Face, left: int, top: int) -> None:
    (face,) = finder.find(on_grey(portrait, 300, 240, left, top))
    assert face.turned == 0
    assert off(face, np.add(lone.landmarks, (left, top))) < 0.1


@pytest.mark.parametrize("times", [2, 5, 11])
def test_a_larger_photo_has_the_same_face_in_its_own_pixels(
    finder: FaceFinder, portrait: Pixels, lone: Face, times: int
) -> None:
    large = Image.fromarray(portrait).resize((92 * times, 112 * times), Image.Resampling.BICUBIC)
    (face,) = finder.find(np.asarray(large))
    assert off(face, np.array(lone.landmarks) * times) < 0.1
    assert upright(face)


def test_a_twentieth_of_a_large_photo_is_enough(finder: FaceFinder, portrait: Pixels, lone: Face) -> None:
    left, _, right, _ = lone.box
    assert right - left == pytest.approx(1400 / 20, abs=2)
    (face,) = finder.find(on_grey(portrait, 1500, 1400, 700, 500))
    assert off(face, np.add(lone.landmarks, (700, 500))) < 0.1


def test_all_faces_are_found_the_surest_first(finder: FaceFinder, sample: Path) -> None:
    picture = on_grey(read(sample / "s1" / "1.pgm"), 330, 130, 10, 10)
    picture[10:122, 120:212] = read(sample / "s2" / "1.pgm")
    picture[10:122, 230:322] = read(sample / "s5" / "1.pgm")
    faces = finder.find(picture)
    middles = sorted((face.box[0] + face.box[2]) / 2 for face in faces)
    assert len(faces) == 3
    np.testing.assert_allclose(middles, [56, 166, 276], atol=15)
    scores = [face.score for face in faces]
    assert scores == sorted(scores, reverse=True)
    assert all(0.8 < score <= 1 for score in scores)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_photo_lying_on_its_side_or_upside_down(finder: FaceFinder, portrait: Pixels, degrees: int) -> None:
    """``turned`` undoes what was done to it, and landmarks are where they are, named as the face itself stands."""
    photo = on_grey(portrait, 192, 212, 50, 50)
    height, width = photo.shape[:2]
    (face,) = finder.find(photo)
    clockwise = np.rot90(photo, -degrees // 90)
    (turned,) = finder.find(clockwise)
    assert turned.turned == degrees
    points = np.array(face.landmarks)
    for _ in range(degrees // 90):
        points = np.stack([height - points[:, 1], points[:, 0]], axis=1)
        width, height = height, width
    assert off(turned, points) < 0.15
    left, top, right, bottom = turned.box
    assert ((np.array(turned.landmarks) > (left, top)) & (np.array(turned.landmarks) < (right, bottom))).all()


def test_press_photos_lying_on_their_sides_or_upside_down(finder: FaceFinder, press_photos: list[Path]) -> None:
    """The networks take many a face that lies on its side for an upright one, though not as surely."""
    turned = [
        main_face(finder.find(np.rot90(read(path), -quarters))).turned == 90 * quarters
        for path in press_photos[::40]
        for quarters in (1, 2, 3)
    ]
    assert sum(turned) >= len(turned) - 1


def test_a_face_that_fills_the_photo_is_found_in_a_border(finder: FaceFinder, sample: Path) -> None:
    """Three of ORL's 400 photos, in which the networks see nothing without a border."""
    for name in ("3", "5", "10"):
        photo = read(sample / "s31" / f"{name}.pgm")
        (face,) = finder.find(photo)
        assert face.turned == 0
        assert upright(face)
        assert ((np.array(face.landmarks) > 0) & (np.array(face.landmarks) < (92, 112))).all()


def test_there_is_no_face_on_a_temple_and_a_flower(finder: FaceFinder) -> None:
    """scikit-learn's two photos, 640x427."""
    datasets = pytest.importorskip("sklearn.datasets", reason="needs the extra dev")
    for name in ("china.jpg", "flower.jpg"):
        assert finder.find(datasets.load_sample_image(name)) == [], name


def noise(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (150, 150, 3), dtype=np.uint8)


def clouds(seed: int) -> Pixels:
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return np.asarray(small.resize((150, 150), Image.Resampling.BICUBIC))


def gradient() -> Pixels:
    across, down = np.meshgrid(np.linspace(0, 255, 200), np.linspace(0, 255, 120))
    return np.stack([across, down, across], axis=2).astype(np.uint8)


def stripes() -> Pixels:
    return np.where(np.indices((140, 140, 3))[1] // 7 % 2, 230, 20).astype(np.uint8)


@pytest.mark.parametrize(
    "picture",
    [
        *(pytest.param(noise(seed), id=f"noise {seed}") for seed in range(3)),
        *(pytest.param(clouds(seed), id=f"clouds {seed}") for seed in range(3)),
        pytest.param(gradient(), id="a gradient"),
        pytest.param(stripes(), id="stripes"),
        pytest.param(np.full((90, 60, 3), 255, np.uint8), id="white"),
    ],
)
def test_there_is_no_face_where_there_is_none(finder: FaceFinder, picture: Pixels) -> None:
    assert finder.find(picture) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (11, 12), (19, 300), (20, 20), (33, 2000)])
def test_pictures_of_every_size_can_be_searched(finder: FaceFinder, size: tuple[int, int]) -> None:
    assert finder.find(np.full((*size, 3), 60, np.uint8)) == []


def test_a_view_of_another_array_is_as_good_as_a_copy(finder: FaceFinder, photo: Pixels) -> None:
    wide = np.zeros((photo.shape[0], 2 * photo.shape[1], 3), np.uint8)
    wide[:, ::2] = photo
    before = wide.copy()
    assert finder.find(wide[:, ::2]) == finder.find(photo) != []
    np.testing.assert_array_equal(wide, before)


@pytest.mark.skipif(available_threads() < 2, reason="needs two processors")
def test_faces_do_not_depend_on_the_number_of_threads(finder: FaceFinder, arrays: Arrays, photo: Pixels) -> None:
    double = np.concatenate([photo, photo[:, ::-1]], axis=1)  # candidates for more than one batch
    assert FaceFinder(arrays, threads=2).find(double) == finder.find(double) != []


def test_several_threads_may_ask_at_once(finder: FaceFinder, sample: Path) -> None:
    photos = [read(sample / f"s{person}" / "2.pgm") for person in range(1, 9)]
    expected = [finder.find(photo) for photo in photos]
    answers: dict[int, list[list[Face]]] = {}
    start = threading.Barrier(3)

    def ask(number: int) -> None:
        start.wait()
        answers[number] = [finder.find(photo) for photo in photos]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[number] for number in range(3)] == [expected] * 3


def test_a_finder_at_rest_holds_no_thread_and_finds_again(arrays: Arrays, photo: Pixels) -> None:
    own = FaceFinder(arrays, threads=1)
    found = own.find(photo)
    others = set(threading.enumerate())
    own.rest()
    assert [thread.name.split("_")[0] for thread in others - set(threading.enumerate())] == ["face-finder"]
    own.rest()
    assert own.find(photo) == found != []


def test_the_identity_changes_with_any_number_and_with_the_program(
    finder: FaceFinder, arrays: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert FaceFinder(dict(reversed(arrays.items())), threads=1).identity == finder.identity
    changed = {name: array.copy() for name, array in arrays.items()}
    changed["onet.conv4.weight"][0, 0, 0, 0] += 1
    assert FaceFinder(changed, threads=1).identity != finder.identity
    monkeypatch.setattr("facecnn.faces.finder.FINDER_VERSION", -1)
    assert FaceFinder(arrays, threads=1).identity != finder.identity


def test_the_reference_finds_the_same_faces_but_for_rounding(finder: FaceFinder, arrays: Arrays, photo: Pixels) -> None:
    """What one has found must not stand in a cache for the other: where a candidate's crop differs in a byte, a box
    differs by hundredths of a pixel."""
    reference = FaceFinder(arrays, threads=1, device="reference")
    assert reference.identity != finder.identity
    (found,), (expected,) = reference.find(photo), finder.find(photo)
    assert found.box == pytest.approx(expected.box, abs=0.05)
    assert np.ravel(found.landmarks) == pytest.approx(np.ravel(expected.landmarks), abs=0.05)
    assert found.score == pytest.approx(expected.score, abs=1e-3)


def test_its_arrays_make_the_same_finder(finder: FaceFinder, photo: Pixels) -> None:
    again = FaceFinder(finder.arrays, threads=1)
    assert again.identity == finder.identity
    assert again.find(photo) == finder.find(photo)


def test_arrays_of_something_else_are_refused(arrays: Arrays) -> None:
    others: dict[str, Any] = {name: array for name, array in arrays.items() if not name.startswith("rnet")}
    with pytest.raises(CheckpointError, match="rnet"):
        FaceFinder(others, threads=1)


def test_compiled_candidates_are_those_of_numpy_to_the_bit() -> None:
    random = np.random.default_rng(0)
    sizes, scales = [(150, 131), (106, 92), (40, 35)], np.array([0.6, 0.4254, 0.151])
    windows = windows_of(pack(sizes, 112))
    outputs = random.normal(size=(windows[:, 3].max() + 1, 51, 51, 6)).astype(np.float32)
    shifts, probabilities = outputs[..., :4], random.random(outputs.shape[:3]).astype(np.float32)
    probabilities[0, :8] = 0.6  # which isn't above 0.6
    found = []
    for collect in (with_numpy._collect, candidates.collect):
        most = probabilities.size
        boxes, scores, levels = np.zeros((most, 4)), np.zeros(most, np.float32), np.full(most, -1)
        collect(boxes, scores, levels, probabilities, shifts, windows, scales, 0.6, CELL, STRIDE)
        found.append((boxes, scores, levels))
    assert 1000 < np.count_nonzero(found[0][2] >= 0) < most
    assert set(found[0][2].tolist()) == {-1, 0, 1, 2}
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
