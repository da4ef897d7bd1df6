"""With few photos, a body that has seen many faces may be better: say so, and by how much if that can be judged."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from facecnn.arrays import Array, BoolArray, Float32Array
from facecnn.body.embedder import CHIP_SETTINGS, Embedder
from facecnn.body.weights import body_arrays
from facecnn.errors import CheckpointError
from facecnn.jobs.console import Console
from facecnn.jobs.training.run import TrainingRun
from facecnn.learning.class_means import head_of
from facecnn.network.layers import Body
from facecnn.photos.cache import load_photos
from facecnn.photos.dataset import Dataset
from facecnn.reports.findings import percent

FEW = 20
"""With this many photos per person or more, nothing is said."""

ENOUGH_TO_JUDGE = 20
"""Least number of held-out photos of known people with which both are compared."""

_MOST_PHOTOS = 2000
"""With more photos they aren't compared, as their embeddings would take too long."""


def compare_with_pretrained(training: TrainingRun, likeliest: Array, console: Console) -> dict[str, Any] | None:
    """Say that ``-c pretrained`` may be better, if it can be had and the people have few photos.

    ``likeliest``: (n,) the trained model's likeliest person in each held-out photo with one face.

    Returns:
        ``pretrained`` of the ``train`` JSON: ``closed_set_accuracy`` of class means on the held-out photos with one
        face, ``own`` of this model, and the number of these ``photos``; all are None if there are too few to judge, or
        if some are gone by now. None if nothing is said.
    """
    data, settings = training.data, training.settings
    people = len(data.dataset.people)
    labels = data.train_photos.labels
    if isinstance(settings.network[0], Body) or data.dataset.finder is None or not _is_installed():
        return None
    if not people or (labels < people).sum() >= FEW * people:
        return None
    known = data.validation.labels < people
    embeddings = None
    if known.sum() >= ENOUGH_TO_JUDGE and len(labels) <= _MOST_PHOTOS:
        embeddings = _embeddings_of_both(training, known)
    if embeddings is None:
        console.info(
            f"With fewer than {FEW} photos a person, a body that has seen many faces may be better: try "
            "facecnn train -c pretrained"
        )
        return {"closed_set_accuracy": None, "own": None, "photos": None}
    train, held_out = embeddings
    by_means = head_of(train, labels, people, 0.0).log_probabilities(held_out)[:, :people].argmax(axis=1)
    accuracy, own = (float((answer == data.validation.labels[known]).mean()) for answer in (by_means, likeliest[known]))
    console.info(
        f"With a body that has seen many faces (facecnn train -c pretrained), the likeliest person is the right one in "
        f"{percent(accuracy)} of the {len(held_out)} held-out photos with one face, here in {percent(own)}"
    )
    return {"closed_set_accuracy": accuracy, "own": own, "photos": len(held_out)}


def _is_installed() -> bool:
    """Whether the body is available. A damaged one mustn't end training that doesn't need it."""
    with suppress(CheckpointError):
        return body_arrays() is not None
    return False


def _embeddings_of_both(training: TrainingRun, known: BoolArray) -> tuple[Float32Array, Float32Array] | None:
    """The embeddings (n, 128) of the photos trained on, and of the ``known`` held-out ones with one face."""
    data, embedder = training.data, Embedder(training.device.backend)
    faces = data.training.rows(data.dataset) - data.dataset.rows
    train = _embeddings(data.dataset, data.train_indices, faces[data.train_indices], embedder)
    alone = data.held_out_numbers[data.held_out.show_one_face(data.held_out_numbers)][known]
    held_out = _embeddings(data.held_out, alone, np.zeros(len(alone), np.int64), embedder)
    return None if train is None or held_out is None else (train, held_out)


def _embeddings(dataset: Dataset, numbers: Array, faces: Array, embedder: Embedder) -> Float32Array | None:
    """Embeddings (n, 128) of photos of a data set; ``faces`` (n,): which face of each, in the order of its crops.

    None if a photo has been removed or changed since the data set was read.
    """
    settings = replace(
        CHIP_SETTINGS,
        smallest_face=dataset.settings.smallest_face,
        largest_picture=dataset.settings.largest_picture,
        hide_face=dataset.settings.hide_face,
    )
    files = [Path(dataset.files[number]) for number in numbers.tolist()]
    loaded = load_photos(files, settings, finder=dataset.finder)
    if (loaded.row < 0).any() or list(loaded.sha256) != [dataset.sha256[number] for number in numbers.tolist()]:
        return None
    return embedder.embed(loaded.pixels, loaded.row + faces)
