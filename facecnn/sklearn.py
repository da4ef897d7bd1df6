"""A classifier of faces for scikit-learn: cross-validation, grid search and pipelines with facecnn's training.

It needs the extra ``sklearn``. scikit-learn's own checks of estimators fit matrices of random numbers, which aren't
photos: ``check_estimator`` skips this one, as its tags say so. All checks pass if each row of a matrix is first drawn
as a photo (tests/library/test_sklearn.py).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facecnn.arrays import Array, Float64Array, Int64Array
from facecnn.errors import PhotoError, UsageError
from facecnn.jobs.training.options import TrainOptions
from facecnn.library.model import without_run
from facecnn.library.photos import Photo, given
from facecnn.library.training import read_settings, run_training
from facecnn.photos.cache_folder import photos_cached_in
from facecnn.photos.decode import Picture, upright

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, column_or_1d
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "facecnn.sklearn needs scikit-learn: pip install 'facecnn[sklearn]'", name=error.name
    ) from error

Photos = Array | Sequence[Photo]
"""uint8 of (photos, height, width) or (photos, height, width, 3), or a list of paths, PIL images and such arrays."""


class InputError(UsageError, ValueError):
    """Photos or labels that can't be used; a ValueError, as scikit-learn has it."""


class FaceClassifier(ClassifierMixin, BaseEstimator):
    """Tells people apart in photos, with a network that is trained by ``fit``.

    It never refuses a photo as a stranger's; for that, use ``facecnn.train``. If several faces are found in a photo,
    the main one counts; if none is, the answer is how frequent each class was in training. ``fit`` works in a temporary
    folder and leaves nothing behind. A fitted classifier can be pickled; the pickle holds no code, but the bytes of a
    model file.

    Attributes:
        classes_: (n,) the labels, sorted.
        class_prior_: (n,) share of each in ``y``.
        model_: the ``facecnn.Model``; its people are the numbers of the classes.
    """

    def __init__(
        self,
        config: str | os.PathLike[str] = "default",
        *,
        settings: Mapping[str, object] | None = None,
        epochs: int | None = None,
        device: str = "auto",
        threads: int | None = None,
        random_state: Any = None,
    ) -> None:
        """
        Args:
            config: a settings file, or the name of a shipped one.
            settings: changes to it, as for ``facecnn.train``: ``{"photos": {"size": 32}}``.
            epochs: passes over the photos, as for ``facecnn.train``.
            device: as for ``facecnn.train``.
            threads: of the processor; None: all.
            random_state: the seed, or a NumPy RandomState to draw one from; None: the config's. So two fits with None
                give the same.
        """
        self.config = config
        self.settings = settings
        self.epochs = epochs
        self.device = device
        self.threads = threads
        self.random_state = random_state

    def fit(self, X: Photos, y: Any) -> FaceClassifier:
        """Train.

        Args:
            X: photos. Of each class, the config's share ``photos.validation`` is held out for calibration.
            y: (photos,) the label of each.

        Raises:
            InputError: photos or labels can't be used; it is a ValueError, too.
            FacecnnError: as from ``facecnn.train``.
        """
        photos = _photos(X)
        labels = _labels(y, len(photos))
        classes, owners = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise InputError(f"y has only one class ({classes[0]!r}): there must be two to tell apart")
        loaded = read_settings(self.config, self.settings or {}, epochs=self.epochs, seed=self._seed())
        temporary = tempfile.TemporaryDirectory(prefix="facecnn-", ignore_cleanup_errors=True)
        with temporary as folder, photos_cached_in(Path(folder, "cache")):
            _write(photos, owners, Path(folder, "photos"))
            options = TrainOptions(
                photos=Path(folder, "photos"),
                out=Path(folder, "runs"),
                name="run",
                device=self.device,
                threads=self.threads,
                documents=False,
            )
            model = run_training(loaded, options)
        if len(model.people) < len(classes):
            gone = [repr(name) for number, name in enumerate(classes.tolist()) if _folder(number) not in model.people]
            raise InputError(f"no photo of class {', '.join(gone)} can be used: see the warnings of the logger facecnn")
        self.classes_ = classes
        self.class_prior_ = np.bincount(owners, minlength=len(classes)) / len(owners)
        # On the compiled kernels, the answer to a photo doesn't depend on those beside it, to the last bit.
        trained_on = (model.figures or {}).get("device")
        self.model_ = without_run(model, "cpu" if (self.device, trained_on) == ("auto", "cpu") else self.device)
        return self

    def _seed(self) -> int | None:
        if self.random_state is None or isinstance(self.random_state, (int, np.integer)):
            return None if self.random_state is None else int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def predict(self, X: Photos) -> Array:
        """The likeliest class of each photo, (photos,). Raises what ``predict_proba`` raises."""
        probabilities = self.predict_proba(X)
        return np.asarray(self.classes_[probabilities.argmax(axis=1)])

    def predict_proba(self, X: Photos) -> Float64Array:
        """The probability of each class, (photos, classes).

        Raises:
            NotFittedError: it isn't fitted.
            InputError: ``X`` has no photos.
            PhotoError: photos can't be read.
        """
        check_is_fitted(self)
        found = self.model_.predict(_photos(X), threshold="off", everybody=True)
        rows = [list(faces[0].scores.values()) if faces else self.class_prior_ for faces in found]
        return np.array(rows, np.float64).reshape(-1, len(self.classes_))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags


def _photos(given_photos: Any) -> list[Any]:
    """The photos as a list. Raises InputError."""
    photos = given_photos
    if isinstance(photos, np.ndarray):
        if photos.dtype.kind in "OUT" and photos.ndim == 1:
            photos = photos.tolist()
        elif photos.dtype != np.uint8 or photos.ndim not in (3, 4):
            raise InputError(
                f"X is an array of {photos.dtype}, shape {photos.shape}: must be uint8 of (photos, height, width) or "
                "(photos, height, width, 3), or a list of photos"
            )
    if isinstance(photos, (str, bytes, os.PathLike)) or not hasattr(photos, "__iter__"):
        raise InputError(f"X is {type(photos).__name__}: must be several photos, in an array or a list")
    photos = list(photos)
    if not photos:
        raise InputError("X has no photos")
    try:
        given(photos)
    except UsageError as error:
        raise InputError(f"X: {error}") from error
    return photos


def _labels(y: Any, photos: int) -> Array:
    """The labels, (photos,). Raises InputError."""
    if y is None:
        raise InputError("FaceClassifier requires y to be passed, but the target y is None")
    try:
        labels = np.asarray(column_or_1d(y, warn=True))
        check_classification_targets(labels)
    except (ValueError, TypeError) as error:
        raise InputError(f"y: {error}") from error
    if len(labels) != photos:
        raise InputError(f"X has {photos} photos and y {len(labels)} labels: there must be one for each photo")
    return labels


def _folder(number: int) -> str:
    """The name of a class's folder; in the order of the names, classes keep their order."""
    return f"{number:06}"


def _write(photos: Sequence[Any], owners: Int64Array, folder: Path) -> None:
    """Write photos into a folder for each class. Raises InputError if one in memory can't be used."""
    for number in sorted(set(owners.tolist())):
        (folder / _folder(number)).mkdir(parents=True)
    for number, (photo, owner) in enumerate(zip(given(photos).photos, owners.tolist(), strict=True)):
        name = folder / _folder(owner) / f"{number:06}"
        if isinstance(photo, Picture):
            try:
                image = upright(photo.image, photo.name).image
            except PhotoError as error:
                raise InputError(f"X: {error}") from error
            image.save(name.with_suffix(".png"), compress_level=1)
        else:
            _link(photo, name.with_suffix(photo.suffix))


def _link(file: Path, to: Path) -> None:
    """A link to a file, or a copy where the file system has none. Raises PhotoError if it can't be read."""
    try:
        to.hardlink_to(file.resolve(strict=True))
    except OSError:
        try:
            shutil.copyfile(file, to)
        except OSError as error:
            raise PhotoError(f"{file}: can't be read ({error.strerror}): check its name") from error
