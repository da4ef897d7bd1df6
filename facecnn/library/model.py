"""A trained model that answers."""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from facecnn.arrays import Float32Array
from facecnn.config import to_dict
from facecnn.errors import UsageError, shown
from facecnn.jobs import models
from facecnn.jobs.choosing import checked_threshold, find_model
from facecnn.jobs.devices import open_and_show, quickest_for
from facecnn.jobs.evaluate import EvaluateOptions, Split, evaluate_model
from facecnn.jobs.predict import answer
from facecnn.library.answers import Evaluation, Face, face_of
from facecnn.library.computing import computing
from facecnn.library.console import LogConsole, console
from facecnn.library.photos import Given, Photo, as_path, given, refuse_unreadable
from facecnn.network.layers import Body
from facecnn.photos.cache import LoadedPhotos, crops_of, load_photos
from facecnn.photos.folder import UNKNOWN
from facecnn.runs.checkpoint import checkpoint_bytes
from facecnn.runs.folder import RunFolder, looks_like_run, read_json

Threshold = float | Literal["auto", "off"]
Errors = Literal["raise", "ignore"]

_T = TypeVar("_T")


class Model:
    """A trained model. ``facecnn.train`` and ``facecnn.load`` make it.

    It may be pickled and copied, and called from any thread; several threads wait for each other. Photos are paths, PIL
    images or arrays: see ``facecnn.library.photos.Photo``. Of those in memory nothing is kept on disk.
    """

    def __init__(
        self,
        file: models.ModelFile,
        *,
        device: str = "auto",
        threads: int | None = None,
        figures: dict[str, Any] | None = None,
    ) -> None:
        """For ``facecnn.load`` and ``facecnn.train``: see there."""
        self._file = file
        self._device, self._threads = device, threads
        self._figures = figures
        self._opened: dict[str, models.Model] = {}
        self._lock = threading.RLock()

    @property
    def path(self) -> Path:
        """The model file."""
        return self._file.path

    @property
    def run(self) -> Path | None:
        """The folder of the run that it belongs to; None if it stands alone, or the run is gone."""
        folder = self.path.parent
        return folder if self.path.is_file() and looks_like_run(folder) else None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the network's outputs: the people, and ``unknown`` last if it has learned strangers."""
        return tuple(self._file.checkpoint.classes)

    @property
    def people(self) -> tuple[str, ...]:
        """The people that it can name."""
        return tuple(name for name in self.classes if name != UNKNOWN)

    @property
    def finished(self) -> bool:
        """Whether its training has ended; otherwise confidence is not calibrated."""
        return self._file.calibration is not None

    @property
    def threshold(self) -> float | None:
        """Its own unknown-score above which a face is a stranger's; None if everybody is named."""
        return None if self._file.calibration is None else self._file.calibration.threshold

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that it was trained with, as a config has them."""
        return to_dict(self._file.settings)

    @property
    def figures(self) -> dict[str, Any] | None:
        """The figures of its training, as ``facecnn train --format json`` prints them; None if they aren't known.

        ``seconds`` is only there after ``facecnn.train``. Raises CheckpointError where the run's file is damaged.
        """
        if self._figures is None and self.run is not None:
            written = read_json(RunFolder(self.run).figures_path) or {}
            if isinstance(written.get("training"), dict):
                self._figures = {"run": str(self.run), **written["training"]}
        return self._figures

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, photos: Photo, *, threshold: Threshold = "auto", errors: Errors = "raise", everybody: bool = False
    ) -> list[Face]: ...

    @overload
    def predict(
        self,
        photos: Sequence[Photo],
        *,
        threshold: Threshold = "auto",
        errors: Errors = "raise",
        everybody: bool = False,
    ) -> list[list[Face]]: ...

    def predict(
        self,
        photos: Photo | Sequence[Photo],
        *,
        threshold: Threshold = "auto",
        errors: Errors = "raise",
        everybody: bool = False,
    ) -> list[Face] | list[list[Face]]:
        """Say who is in a photo, or in each photo of a list.

        Args:
            photos: a path, a PIL image or an array; or a list of these.
            threshold: the unknown-score above which a face is ``unknown``: "auto" is the model's own, "off" none, or a
                number from 0 to 1.
            errors: what to do about a photo that can't be read: "raise" PhotoError, or "ignore" it, as if it showed
                nobody.
            everybody: whether a face has a score for every person even where there are more than 1,000.

        Returns:
            The faces of the photo, the main one first, then in order of prominence; for a list of photos a list of
            them. It is empty where no face is found. A model that doesn't look for faces gives one for each photo, for
            the part of it that the network sees. In a photo, a name is given at most once.

        Raises:
            UsageError: what is given is no photo, or ``threshold`` or the device's name is wrong.
            PhotoError: photos can't be read; the message names all of them.
            DeviceError: the device can't be used.
        """
        limit = checked_threshold(threshold, "threshold")

        def answers(model: models.Model, loaded: LoadedPhotos, keep: bool) -> list[list[Face]]:
            limit_of_model, listed = model.recogniser.threshold(limit), len(self.people) if everybody else None
            results = answer(model, loaded, limit_of_model, keep=keep, listed=listed)
            return [[face_of(face) for face in result["faces"]] for result in results]

        return self._of_photos(given(photos), errors, answers)

    def evaluate(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        split: Split | None = None,
        hide_face: bool = False,
        others_as_unknown: bool = False,
        progress: bool = False,
    ) -> Evaluation:
        """Judge the model by photos whose people are known.

        Args:
            folder: with one folder of photos for each person; None: the run's own photos, those held out.
            split: "validation", "train" or "all"; None: those that it wasn't trained on.
            hide_face: blank the faces first, to see what the surroundings give away.
            others_as_unknown: judge people whom the model doesn't know as strangers.
            progress: show progress and messages on stderr.

        Raises:
            PhotoError: there is nothing to judge by, or the model doesn't know a name.
            CheckpointError: ``folder`` is None, and the model isn't in a run, or not all of the run is there.
            UsageError: ``hide_face`` is set, but the model doesn't look for faces.
        """
        options = EvaluateOptions(
            model=self.path,
            photos=None if folder is None else as_path(folder, "the folder of photos"),
            split=split,
            hide_face=hide_face,
            others_as_unknown=others_as_unknown,
        )
        with console(progress) as told, computing(), self._lock:
            done = evaluate_model(self._ready(None), options, told)
        return Evaluation(done.figures, done.predictions)

    @overload
    def embed(self, photos: Photo, *, errors: Errors = "raise") -> Float32Array: ...  # type: ignore[overload-overlap]

    @overload
    def embed(self, photos: Sequence[Photo], *, errors: Errors = "raise") -> list[Float32Array]: ...

    def embed(self, photos: Photo | Sequence[Photo], *, errors: Errors = "raise") -> Float32Array | list[Float32Array]:
        """The embeddings of the faces in a photo, or in each photo of a list, by a model that begins with a body, as
        those of the configs ``pretrained`` and ``finetune`` do.

        Embeddings of one person's faces point in about the same direction: divide them by their lengths and compare
        them by scalar products.

        Args:
            photos: as for ``predict``.
            errors: as for ``predict``.

        Returns:
            (faces, 128), in the order in which ``predict`` gives the faces; for a list of photos a list of them.

        Raises:
            UsageError: the model has no embeddings; otherwise as ``predict``.
            PhotoError, DeviceError: as ``predict``.
        """
        if not isinstance(self._file.settings.network[0], Body):
            raise UsageError(
                f"{shown(self.path)}: this model has no embeddings: train one with the config pretrained, which brings "
                "a network that makes them"
            )

        def embeddings(model: models.Model, loaded: LoadedPhotos, keep: bool) -> list[Float32Array]:
            crops = crops_of(loaded.row, loaded.faces)
            usable = loaded.row[crops.photo] >= 0
            made = model.recogniser.embed(loaded.pixels, crops.rows[usable], keep=keep)
            return [made[crops.photo[usable] == number] for number in range(len(loaded.row))]

        return self._of_photos(given(photos), errors, embeddings)

    def _of_photos(
        self, photos: Given, errors: str, work: Callable[[models.Model, LoadedPhotos, bool], list[_T]]
    ) -> _T | list[_T]:
        """Read photos, and return what ``work`` makes of each."""
        if errors not in ("raise", "ignore"):
            raise UsageError(f"errors {errors!r}: raise or ignore")
        with computing(), self._lock:
            model = self._ready(len(photos.photos))
            loaded = load_photos(photos.photos, model.settings.photos, finder=model.finder)
            if errors == "raise":
                refuse_unreadable(loaded)
            made = work(model, loaded, photos.on_disk)
        return made[0] if photos.is_one else made

    def _ready(self, photos: int | None) -> models.Model:
        """The model, on a device that suits the number of ``photos``; None: many."""
        name = self._device
        if name == "auto" and photos is not None:
            name = quickest_for(name, self._file.work(), photos)
        device = open_and_show(name, self._threads, LogConsole())  # also sets the number of this thread's threads
        if device.name not in self._opened:
            self._opened[device.name] = self._file.model_on(device, self._device, self._threads)
        return self._opened[device.name]

    def __repr__(self) -> str:
        names = ", ".join(map(shown, self.people[:6]))
        more = len(self.people) - 6
        return f"<facecnn.Model {shown(self.path)}: {names}{f' and {more} more' if more > 0 else ''}>"

    def __reduce__(self) -> tuple[Any, ...]:
        data = checkpoint_bytes(self._file.checkpoint, self.path)
        return _from_bytes, (data, str(self.path), self._device, self._threads, self.figures)


def _from_bytes(data: bytes, path: str, device: str, threads: int | None, figures: dict[str, Any] | None) -> Model:
    return Model(models.model_of_bytes(data, Path(path)), device=device, threads=threads, figures=figures)


def without_run(model: Model, device: str) -> Model:
    """The same model for another device, after its run's folder is deleted."""
    figures = {key: value for key, value in (model.figures or {}).items() if key != "run"}
    return Model(replace(model._file, path=Path("<memory>")), device=device, threads=model._threads, figures=figures)


def load(
    run_or_file: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] = "runs",
    device: str = "auto",
    threads: int | None = None,
) -> Model:
    """Load a trained model.

    Args:
        run_or_file: a run's folder or a .safetensors file; None: the pinned run, else the newest finished one.
        out: the folder of runs.
        device: "auto" uses a graphics card if there is one. Otherwise it answers for a photo or two in plain NumPy,
            which starts sooner, as the command line does. "cpu" always uses the compiled kernels, which is better for
            a program that keeps asking about single photos. Or "cuda", "cuda:N" or "reference" (NumPy). Devices round
            a little differently.
        threads: of the processor; None: all.

    Raises:
        CheckpointError: there is no such model, or it is damaged.
    """
    named = None if run_or_file is None else as_path(run_or_file, "the model")
    path = find_model(named, as_path(out, "the folder of runs"), LogConsole())
    return Model(models.read_model(path.absolute()), device=device, threads=threads)
