"""Read a checkpoint into a model that answers, and make a training run's checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facecnn.arrays import Array
from facecnn.config import Settings, from_dict
from facecnn.errors import CheckpointError, UsageError, shown
from facecnn.jobs.console import Console
from facecnn.jobs.devices import Work, open_and_show, quickest_for
from facecnn.jobs.faces import PREFIX as FACE_FINDER
from facecnn.jobs.faces import finder_of_checkpoint, finds_faces
from facecnn.kernels import Device
from facecnn.kernels.backend import Backend
from facecnn.learning.calibration import LEAST_PHOTOS, Calibration, calibrate, drawn_photos
from facecnn.learning.class_means import EMBEDDINGS, OWNERS, calibration_by_distance
from facecnn.learning.data import PhotoSet
from facecnn.learning.optimizers import ClassMeans
from facecnn.learning.update import INITIAL_PREFIX
from facecnn.network.inference import answer_multiply_adds
from facecnn.network.layers import Body, with_outputs
from facecnn.network.stages import plan
from facecnn.network.weights import misfits
from facecnn.photos.face import Finder
from facecnn.photos.folder import UNKNOWN, is_folder
from facecnn.recognition import SHIFT, Recogniser
from facecnn.reports.findings import counted, highest_confidence
from facecnn.runs.checkpoint import Checkpoint, checkpoint_of_bytes, load_checkpoint

TRAINED_ON = "trained_on"
"""Name of a checkpoint's array (n, 32) uint8: the SHA-256 of each photo that the model was trained on."""

UNFINISHED = (
    "This model's training hasn't ended (facecnn train --resume continues it): its confidence is not calibrated."
)

NO_STRANGERS = (
    "Trained without strangers (a folder unknown/ beside the people's), so it can't spot them: expect most to be named "
    "as one of the people."
)


def about_calibration(recogniser: Recogniser) -> str:
    """What a calibrated model's threshold and confidence rest on, in words."""
    calibration = recogniser.calibration
    if recogniser.answers_by_embeddings:
        return (
            f"Threshold for strangers: by how far apart the body puts the faces of different people, so that about "
            f"{100 * (calibration.false_accept_rate or 0):g} % of strangers are named."
        )
    if not recogniser.knows_strangers:
        sentences = [NO_STRANGERS, *highest_confidence(calibration.highest_confidence, calibration.photos)]
        if calibration.threshold is None:
            sentences.append(f"With fewer than {LEAST_PHOTOS} held out, no threshold is set.")
        return " ".join(sentences)
    if calibration.false_accept_rate is None:
        return (
            f"Threshold for strangers: {calibration.threshold:g}, an even chance: with "
            f"{counted(calibration.strangers, 'held-out photo')} of strangers, fewer than {LEAST_PHOTOS}, it can't be "
            "measured."
        )
    return (
        f"Threshold for strangers: {calibration.threshold:.3f}, by {calibration.strangers} held-out photos of them, so "
        f"that about {100 * calibration.false_accept_rate:g} % of strangers are named."
    )


@dataclass(frozen=True)
class Model:
    """A checkpoint, ready to answer."""

    path: Path
    settings: Settings
    recogniser: Recogniser
    finder: Finder | None
    """The finder that its photos were prepared with; None if they were cropped to the middle."""
    best_epoch: int
    calibrated: bool
    """False until the training has ended."""
    trained_on: frozenset[str]
    """SHA-256, hexadecimal, of the photos that it was trained on."""


@dataclass(frozen=True)
class ModelFile:
    """A checkpoint that was read and checked."""

    path: Path
    checkpoint: Checkpoint
    settings: Settings
    calibration: Calibration | None
    best_epoch: int
    trained_on: frozenset[str]

    def work(self) -> Work:
        """What an answer takes."""
        stages = plan(with_outputs(self.settings.network, len(self.checkpoint.classes)), self.settings.photos.shape)
        views = {"mirror": True, "shift": 0.0} if self.by_embeddings else view_options(self.settings)
        return Work(
            finds_faces=finds_faces(self.checkpoint.arrays),
            multiply_adds=answer_multiply_adds(stages, **views),
            by_embeddings=self.by_embeddings,
        )

    def model_on(self, device: Device, asked_for: str, threads: int | None = None) -> Model:
        """Build it on a device; where NumPy stands in for the device ``asked_for``, it also finds the faces."""
        stands_in = device.name == "reference" != asked_for
        return self.model(device.backend, threads, "reference" if stands_in else "cpu")

    @property
    def by_embeddings(self) -> bool:
        """Whether the model was made from class means."""
        return isinstance(self.settings.optimizer, ClassMeans)

    def model(self, backend: Backend, threads: int | None = None, finder_device: str = "cpu") -> Model:
        """Build the network, and the face finder on ``threads`` threads of the CPU, or on ``finder_device`` reference.

        Raises CheckpointError.
        """
        calibration = self.calibration or Calibration()
        return Model(
            path=self.path,
            settings=self.settings,
            recogniser=make_recogniser(
                self.settings, self.checkpoint.classes, self.checkpoint.arrays, calibration, backend
            ),
            finder=finder_of_checkpoint(self.checkpoint.arrays, threads, finder_device),
            best_epoch=self.best_epoch,
            calibrated=self.calibration is not None,
            trained_on=self.trained_on,
        )


def read_model(path: Path) -> ModelFile:
    """Read and check a checkpoint: a file, or that of a run's folder. Raises CheckpointError."""
    return _model_file(path, load_checkpoint(path))


def model_of_bytes(data: bytes, path: Path) -> ModelFile:
    """Read and check a checkpoint in memory, which ``path`` names in messages. Raises CheckpointError."""
    return _model_file(path, checkpoint_of_bytes(data, path))


def _model_file(path: Path, checkpoint: Checkpoint) -> ModelFile:
    try:
        settings = from_dict(checkpoint.settings)
        state = checkpoint.state
        calibration = None if state["calibration"] is None else Calibration(**state["calibration"])
        best_epoch = int(state["progress"]["best_epoch"])
        trained_on = frozenset(row.tobytes().hex() for row in checkpoint.arrays[TRAINED_ON])
    except (UsageError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{shown(path)}: its contents don't fit this version of facecnn ({error}): train it anew"
        ) from error
    check_arrays(path, checkpoint, settings)
    return ModelFile(path, checkpoint, settings, calibration, best_epoch, trained_on)


def check_arrays(path: Path, checkpoint: Checkpoint, settings: Settings) -> None:
    """Check that a checkpoint's arrays are those of the network in its settings.

    This comes before the network is built: edited settings may describe one that is too large for any memory.

    Raises CheckpointError, with each array that is missing, unexpected, or of another dtype or shape.
    """
    try:
        stages = plan(with_outputs(settings.network, len(checkpoint.classes)), settings.photos.shape)
    except UsageError as error:
        raise CheckpointError(f"{shown(path)}: its network can't be built ({error}): train it anew") from error
    arrays = dict(checkpoint.arrays)
    trained_on = arrays.pop(TRAINED_ON, None)
    found = []
    if trained_on is not None and (trained_on.dtype != np.uint8 or trained_on.shape[1:] != (32,)):
        found.append(f"{TRAINED_ON} isn't U8 of shape (photos, 32)")
    for prefix in ("model.", "training.", *(f"{state}." for state in settings.optimizer.state_names)):
        own = {name.removeprefix(prefix): arrays.pop(name) for name in list(arrays) if name.startswith(prefix)}
        found += [f"{prefix}{text}" for text in misfits(stages, own, whole=prefix == "model.")]
    if isinstance(settings.optimizer, ClassMeans):
        found += _misfits_of_embeddings(arrays.pop(EMBEDDINGS, None), arrays.pop(OWNERS, None), checkpoint.classes)
    found += [f"{shown(name)} is not expected" for name in arrays if not name.startswith((INITIAL_PREFIX, FACE_FINDER))]
    if found:
        raise CheckpointError(
            f"{shown(path)}: its arrays aren't those of its network:\n  " + "\n  ".join(found) + "\nTrain it anew."
        )


def _misfits_of_embeddings(embeddings: Array | None, owners: Array | None, classes: Sequence[str]) -> list[str]:
    """What is wrong with the embeddings of a model of class means, which has none until it is made."""
    if embeddings is None and owners is None:
        return []
    if embeddings is None or owners is None:
        return [f"{EMBEDDINGS if embeddings is None else OWNERS} is missing"]
    found = []
    if embeddings.dtype != np.float32 or embeddings.shape != (len(owners), Body.EMBEDDING):
        found.append(f"{EMBEDDINGS} isn't F32 of shape ({len(owners)}, {Body.EMBEDDING})")
    people = [name for name in classes if name != UNKNOWN]
    if owners.dtype != np.int32 or sorted(set(owners.tolist())) != list(range(len(people))):
        found.append(f"{OWNERS} doesn't name each of the people")
    return found


def open_model(path: Path, backend: Backend, threads: int | None = None) -> Model:
    """Read a checkpoint file, and build its network and its face finder, on ``threads`` threads of the CPU.

    Raises CheckpointError.
    """
    return read_model(path).model(backend, threads)


def soonest_device(file: ModelFile, photos: Sequence[Path], device_name: str) -> str:
    """The device, for ``device_name``, that soonest has the answers for ``photos``, files or folders."""
    return device_name if any(map(is_folder, photos)) else quickest_for(device_name, file.work(), len(photos))


def open_for_answers(
    file: ModelFile, photos: Sequence[Path], device_name: str, threads: int | None, console: Console
) -> Model:
    """Build a model on the ``soonest_device``.

    Raises CheckpointError if the arrays don't fit the network, and DeviceError if the device can't be used.
    """
    device = open_and_show(soonest_device(file, photos, device_name), threads, console)
    return file.model_on(device, device_name, threads)


def view_options(settings: Settings) -> dict[str, Any]:
    """The arguments of ``views_at_test_time``: photos are mirrored and shifted as in training."""
    augment = settings.photos.augment
    return {
        "mirror": augment is not None and augment.mirror,
        "shift": 0.0 if augment is None else min(SHIFT, augment.shift),
    }


def calibrate_for(
    settings: Settings, arrays: Mapping[str, Array], logs: Array, labels: Array, people: int
) -> Calibration:
    """The calibration of a model by its answers ``logs`` (n, outputs) to held-out photos of ``labels`` (n,). That of a
    model of class means follows from its ``arrays`` alone, as its outputs are calibrated by other people's faces."""
    if isinstance(settings.optimizer, ClassMeans):
        return calibration_by_distance(arrays, labels, people, settings.calibration)
    return calibrate(logs, labels, people, settings.calibration)


def calibrate_by_some(
    settings: Settings, arrays: Mapping[str, Array], recogniser: Recogniser, photos: PhotoSet
) -> Calibration:
    """The calibration of a model by held-out photos, or by some of them, drawn at random, if they are many; see
    ``drawn_photos``."""
    people, outputs = len(recogniser.people), len(recogniser.classes)
    if isinstance(settings.optimizer, ClassMeans):
        return calibrate_for(settings, arrays, np.zeros((0, outputs)), photos.labels, people)
    drawn = drawn_photos(photos.labels, people, outputs, settings.train.seed)
    logs = recogniser.log_probabilities(photos.pixels, photos.rows[drawn])
    return calibrate_for(settings, arrays, logs, photos.labels[drawn], people)


def make_recogniser(
    settings: Settings,
    classes: list[str],
    arrays: Mapping[str, Array],
    calibration: Calibration,
    backend: Backend,
) -> Recogniser:
    """The network of ``settings`` with a checkpoint's arrays."""
    return Recogniser(
        layers=with_outputs(settings.network, len(classes)),
        input_shape=settings.photos.shape,
        normalise=settings.photos.normalise,
        classes=classes,
        arrays={name: array for name, array in arrays.items() if name.startswith("model.")},
        calibration=calibration,
        backend=backend,
        by_embeddings=isinstance(settings.optimizer, ClassMeans),
        **view_options(settings),
    )
