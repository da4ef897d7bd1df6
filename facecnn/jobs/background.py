"""How much do a photo's surroundings give away? With the face blanked, a model should tell next to nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from facecnn.config import Loaded
from facecnn.errors import PhotoError
from facecnn.jobs.console import Console
from facecnn.jobs.people import photo_set, read_people
from facecnn.jobs.training_photos import TrainingPhotos
from facecnn.jobs.training_setup import ShowingRecorder, make_trainer
from facecnn.kernels import Device
from facecnn.learning.training import PhotoSet
from facecnn.photos.cache import load_photos
from facecnn.photos.preparation import PhotoSettings
from facecnn.recognition import Recogniser

NEARLY_AS_WELL = 0.5
"""From this share on of what the face adds to naming the most frequent person, the surroundings do nearly as well."""


@dataclass(frozen=True)
class Background:
    """Shares of held-out photos of known people that are named right."""

    photos: int
    """That were judged by."""
    largest_class: float
    """What naming the most frequent person always would reach."""
    plain: float
    """With the photos as they are."""
    hidden: float
    """By the same model with the faces blanked."""
    trained_hidden: float | None = None
    """By a model trained on photos with blanked faces, too: all that the surroundings give away."""

    @property
    def do_nearly_as_well(self) -> bool:
        """Whether the surroundings alone tell people apart nearly as well as whole photos do."""
        best = max(self.hidden, self.trained_hidden or 0.0)
        return best > self.largest_class and best - self.largest_class >= NEARLY_AS_WELL * (
            self.plain - self.largest_class
        )

    def warning(self) -> str:
        """What that means, in plain words."""
        best = max(self.hidden, self.trained_hidden or 0.0)
        return (
            f"with the faces blanked {100 * best:.0f} % of {self.photos} held-out photos are still named right "
            f"({100 * self.plain:.0f} % as they are, {100 * self.largest_class:.0f} % by always naming the most "
            "frequent person): this model goes by hair, clothes and walls, too; take photos of everybody in many places"
        )

    def record(self) -> dict[str, float | int | None]:
        """For the run's background.json."""
        return asdict(self)


def judge_background(recogniser: Recogniser, settings: PhotoSettings, data: TrainingPhotos) -> Background | None:
    """Let a model answer for its held-out photos as they are, and with the faces blanked.

    None where there are no held-out photos of known people, or faces aren't found, or are hidden anyway.
    """
    people = len(data.dataset.people)
    known = data.validation.labels < people
    if data.dataset.finder is None or settings.hide_face or not known.any():
        return None
    labels = data.validation.labels[known]
    hidden = load_photos(data.validation_files, replace(settings, hide_face=True), finder=data.dataset.finder)
    # A file may have gone or changed since it was read.
    there = hidden.row[known] >= 0

    def accuracy(pixels: np.ndarray, rows: np.ndarray, truth: np.ndarray) -> float:
        logs = recogniser.log_probabilities(pixels, rows)
        return float((logs[:, :people].argmax(axis=1) == truth).mean())

    if not there.any():
        return None
    return Background(
        photos=len(labels),
        largest_class=float(np.bincount(labels).max() / len(labels)),
        plain=accuracy(data.validation.pixels, data.validation.rows[known], labels),
        hidden=accuracy(hidden.pixels, hidden.row[known][there], labels[there]),
    )


def train_on_background(loaded: Loaded, data: TrainingPhotos, device: Device, console: Console) -> float:
    """Train on the same photos with the faces blanked; the share of held-out photos, blanked too, that are named right.

    The last weights are judged, as nothing may be chosen by the photos that judge. Raises what a training raises.
    """
    photos = replace(loaded.settings.photos, hide_face=True)
    settings = replace(
        loaded.settings,
        photos=photos,
        train=replace(loaded.settings.train, stop_after_epochs_without_gain=None),
    )
    dataset = read_people(data.dataset.folder, photos, data.dataset.finder, console, strict=False, for_training=True)
    number = {path: index for index, path in enumerate(dataset.paths)}
    paths = (data.dataset.paths[index] for index in data.chosen.tolist())
    chosen = np.array([number[path] for path in paths if path in number], np.int64)
    known = np.flatnonzero(data.validation.labels < len(dataset.people))
    files = [data.validation_files[index] for index in known.tolist()]
    hidden = load_photos(files, photos, finder=data.dataset.finder)
    # A file may have gone or changed since it was read.
    there = hidden.row >= 0
    if not there.any():
        raise PhotoError("none of the held-out photos can be read any more: put them back")
    labels = data.validation.labels[known][there]
    nobody = photo_set(dataset, np.zeros(0, np.int64))
    trainer = make_trainer(replace(loaded, settings=settings), dataset, chosen, nobody, device)
    label = "Faces hidden"
    with console.training(trainer.epochs, trainer.steps, label) as display:
        trainer.run(ShowingRecorder(trainer.epochs, display, console, label))
    logs = trainer.answers(PhotoSet(hidden.pixels, hidden.row[there], labels))
    return float((logs[:, : len(dataset.people)].argmax(axis=1) == labels).mean())
