"""How much the surroundings give away: with the faces blanked, a model should hardly tell people apart."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from facecnn.config import Loaded
from facecnn.errors import PhotoError
from facecnn.jobs.console import Console
from facecnn.jobs.people import read_people
from facecnn.jobs.training.photos import TrainingPhotos
from facecnn.jobs.training.recorders import ShowingRecorder
from facecnn.jobs.training.setup import make_any_trainer
from facecnn.kernels import Device
from facecnn.learning.data import PhotoSet
from facecnn.learning.scores import losses_and_hits
from facecnn.photos.cache import load_photos
from facecnn.photos.folder_faces import from_record
from facecnn.photos.preparation import PhotoSettings
from facecnn.recognition import Recogniser
from facecnn.reports.facts import Background


def judge_background(
    recogniser: Recogniser, settings: PhotoSettings, data: TrainingPhotos, likeliest: npt.NDArray[np.int64]
) -> Background | None:
    """Compare a model's accuracy on its held-out photos with and without faces.

    Args:
        data: the photos of the training run; those of ``data.validation``, which have one face each, are judged.
        likeliest: (photos,) the likeliest person for the model in each photo of ``data.validation``.

    Returns:
        None if no photos of known people are held out, or if faces aren't found, or are hidden anyway.
    """
    people = len(data.dataset.people)
    known = data.validation.labels < people
    if data.dataset.finder is None or settings.hide_face or not known.any():
        return None
    labels = data.validation.labels[known]
    hidden = _blanked(data, known, settings)
    if not len(hidden):
        return None
    of_hidden = recogniser.answers(hidden.pixels, hidden.rows, threshold=None).likeliest
    return Background(
        photos=len(labels),
        largest_class=float(np.bincount(labels).max() / len(labels)),
        plain=float((likeliest[known] == labels).mean()),
        hidden=float((of_hidden == hidden.labels).mean()),
        trained_hidden=None,
    )


def _blanked(data: TrainingPhotos, among: npt.NDArray[np.bool_], settings: PhotoSettings) -> PhotoSet:
    """The photos of ``data.validation`` in the mask ``among`` that can still be read, with the faces blanked."""
    alone = data.held_out_numbers[data.held_out.show_one_face(data.held_out_numbers)]
    files = [Path(data.held_out.files[number]) for number in alone[among].tolist()]
    hidden = load_photos(files, replace(settings, hide_face=True), finder=data.dataset.finder)
    there = hidden.row >= 0
    return PhotoSet(hidden.pixels, hidden.row[there], data.validation.labels[among][there])


def train_on_background(loaded: Loaded, data: TrainingPhotos, device: Device, console: Console) -> float:
    """Train on the same photos with blanked faces, and return the accuracy on blanked held-out photos.

    The last weights are judged, since the photos that judge mustn't choose the epoch. Raises what training raises.
    """
    photos = replace(loaded.settings.photos, hide_face=True)
    settings = replace(
        loaded.settings,
        photos=photos,
        train=replace(loaded.settings.train, stop_after_epochs_without_gain=None),
    )
    dataset = read_people(
        data.dataset.folder,
        photos,
        data.dataset.finder,
        console,
        strict=False,
        for_training=True,
        roster=data.roster,
    )
    training = from_record(data.record(), dataset)
    known = data.validation.labels < len(dataset.people)
    hidden = _blanked(data, known, photos)
    if not len(hidden):
        raise PhotoError("none of the held-out photos can be read any more: put them back")
    trainer = make_any_trainer(replace(loaded, settings=settings), dataset, training, device)
    label = "Faces hidden"
    with console.training(trainer.epochs, trainer.steps, label) as display:
        trainer.run(ShowingRecorder(trainer.epochs, display, console, label))
    blocks = (answers[:, : len(dataset.people)] for answers in trainer.blocks_of_answers(hidden))
    return float(losses_and_hits(blocks, hidden.labels)[1].mean())
