"""Draw the pictures of a run: all when its training ends, and missing ones when a report is made."""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facecnn.arrays import Array
from facecnn.jobs.console import Console
from facecnn.jobs.models import Model
from facecnn.jobs.plotting import Plot, Plotter
from facecnn.learning.scores import MOST_PEOPLE
from facecnn.learning.watching import watched
from facecnn.network.excitation import Excitation, excitation
from facecnn.network.feeding import PhotoFeed
from facecnn.photos.dataset import Dataset
from facecnn.photos.folder import class_order
from facecnn.photos.folder_faces import from_record
from facecnn.photos.preparation import without_margin
from facecnn.recognition import Recogniser
from facecnn.reports.evolution import draw_evolution
from facecnn.reports.facts import confused_pairs
from facecnn.reports.figure import WITHOUT_PICTURES
from facecnn.reports.findings import counted
from facecnn.reports.kernel_pictures import (
    MOST_COLUMNS,
    MOST_KERNELS,
    DrawnKernels,
    ExcitingPatches,
    draw_kernels,
    draw_patches,
)
from facecnn.reports.plots import draw_confusion, draw_curves
from facecnn.reports.watching import draw_watching
from facecnn.runs.folder import RunFolder
from facecnn.runs.frames import KernelFrames

MOST_PHOTOS = 128
"""Number of photos, evenly spread over all, that are searched for the most exciting patches."""

MOST_LAYERS = 6
CONFUSED_PEOPLE = 30
"""Number of people drawn if there are too many for a whole confusion matrix."""
PATCHES = 4
"""Patches of each kernel."""


def begin_plots(run: RunFolder, metrics: Sequence[Mapping[str, Any]], best_epoch: int, plotter: Plotter) -> None:
    """Begin to draw what there are figures for before the model is judged; ``draw_pictures`` draws the rest."""
    if plotter.can_draw():
        plotter.begin(_plots_of_training(run, metrics, best_epoch, run.picture_paths))


def draw_pictures(
    run: RunFolder,
    metrics: Sequence[Mapping[str, Any]],
    model: Model,
    judged: tuple[Mapping[str, Any], str] | None,
    dataset: Dataset | None,
    wanted: Container[Path],
    console: Console,
    plotter: Plotter,
    *,
    is_begun: bool = False,
) -> None:
    """Draw a run's pictures, as far as there is data for them, except those that ``plotter`` still has to finish.

    Args:
        run: the run's folder, whose kernel frames are drawn.
        metrics: a record for each epoch.
        judged: for the confusion matrix: figures from ``judge``, and of which photos, such as "held-out".
        dataset: holds the photos of the run, for the most exciting patches.
        wanted: which of ``run.picture_paths`` to draw.
        is_begun: whether ``begin_plots`` was called.

    Raises:
        OutputError: a picture can't be written.
    """
    if not plotter.can_draw():
        console.warning(WITHOUT_PICTURES)
        return
    if judged is not None and run.confusion_path in wanted:
        plotter.begin([plot_of_judged(run.confusion_path, *judged)])
    if model.recogniser.answers_by_embeddings:
        return  # nothing was trained that a curve or a kernel could show
    if not is_begun:
        plotter.begin(_plots_of_training(run, metrics, model.best_epoch, wanted))
    _draw_kernels(run, model.recogniser, metrics, dataset, wanted)


def _plots_of_training(
    run: RunFolder, metrics: Sequence[Mapping[str, Any]], best_epoch: int | None, wanted: Container[Path]
) -> list[Plot]:
    plots = []
    if metrics and run.curves_path in wanted:
        plots.append(Plot(draw_curves, run.curves_path, metrics, best_epoch))
    if any(row.get("kernels") for row in metrics) and run.watching_path in wanted:
        plots.append(Plot(draw_watching, run.watching_path, metrics))
    return plots


def _draw_kernels(
    run: RunFolder,
    recogniser: Recogniser,
    metrics: Sequence[Mapping[str, Any]],
    dataset: Dataset | None,
    wanted: Container[Path],
) -> None:
    """Draw the kernels, the patches that excite them, and how they evolved."""
    kernels = conv_kernels(recogniser)
    frames = KernelFrames(run.frames_path, kernels).read()
    start = frames[0].layers if frames and frames[0].epoch == 0 else {}
    if kernels and run.kernels_path in wanted:
        draw_kernels(run.kernels_path, [DrawnKernels(name, now, start.get(name)) for name, now in kernels.items()])
    if kernels and dataset is not None and len(dataset.rows) and run.patches_path in wanted:
        draw_patches(run.patches_path, _exciting_patches(run, recogniser, kernels, dataset))
    if kernels and frames and run.evolution_path in wanted:
        shapes = {name: array.shape for name, array in kernels.items()}
        draw_evolution(run.evolution_path, frames, shapes, metrics[-1]["epoch"])


def conv_kernels(recogniser: Recogniser) -> dict[str, Array]:
    """The kernels (kernel, row, column, input map) of each conv layer."""
    arrays = recogniser.network.weights.to_host()
    return {name: arrays[f"{name}.weight"] for name in watched(recogniser.network.stages)}


def plot_of_judged(path: Path, judged: Mapping[str, Any], what: str, most: int = MOST_PEOPLE) -> Plot:
    """The plot of the confusion matrix, with a column for refusals and, if there are strangers, a row for them.

    Of more than ``most`` people, it only has those who are most often taken for another, or another for them.

    ``judged``: figures from ``judge``; ``what``: which photos they are of, such as "held-out".
    """
    names: list[str] = judged["classes"]
    pairs = np.array(confused_pairs(judged), np.int64).reshape(-1, 3)
    chosen = range(len(names)) if len(names) <= most else _most_confused(pairs, len(names))
    order = sorted(chosen, key=lambda person: class_order(names[person]))
    people, is_part = [names[person] for person in order], len(order) < len(names)
    columns = [*people, *(["others"] if is_part else []), "refused"]
    # Which row and column is whose: all others share the place after the people, and refusals come last.
    place = np.full(len(names) + 1, len(order))
    place[order], place[-1] = np.arange(len(order)), len(columns) - 1
    matrix = np.zeros((len(order) + 1, len(columns)), np.int64)
    np.add.at(matrix, (place[pairs[:, 0]], place[pairs[:, 1]]), pairs[:, 2])
    matrix[-1], rows = 0, people
    if judged["unknown"] is not None:
        rows = [*people, "strangers"]
        np.add.at(matrix[-1], place, [*judged["unknown"]["named_as"], judged["unknown"]["refused"]])
    title = counted(int(matrix.sum()), f"{what} photo")
    if is_part:
        title += f", of the {len(order)} of {len(names):,} people who are confused most often"
    return Plot(draw_confusion, path, matrix[: len(rows)], rows, columns, title)


def _most_confused(pairs: Array, people: int) -> list[int]:
    """The ``CONFUSED_PEOPLE`` who are in most of the photos of ``pairs`` (pairs, 3) that have another's name."""
    wrong = pairs[(pairs[:, 0] != pairs[:, 1]) & (pairs[:, 1] < people)]
    photos = np.zeros(people, np.int64)
    for column in (0, 1):
        np.add.at(photos, wrong[:, column], wrong[:, 2])
    chosen: list[int] = np.argsort(-photos, kind="stable")[:CONFUSED_PEOPLE].tolist()
    return chosen


def _exciting_patches(
    run: RunFolder, recogniser: Recogniser, kernels: Mapping[str, Array], dataset: Dataset
) -> list[ExcitingPatches]:
    """The patches that excite each kernel most, of the faces that the run was trained on."""
    network = recogniser.network
    convs = watched(network.stages)[:MOST_LAYERS]
    rows = from_record(run.read_split(), dataset).rows(dataset)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, MOST_PHOTOS).round().astype(int))]
    photos = PhotoFeed(network.backend, dataset.pixels, rows, network.batch_size)
    layers = []
    for name, found in excitation(network, photos, recogniser.normalise, convs, PATCHES).items():
        most = MOST_KERNELS if kernels[name].shape[3] in (1, 3) else MOST_COLUMNS
        patches = _patches(found, dataset, rows, min(most, len(kernels[name])))
        layers.append(ExcitingPatches(DrawnKernels(name, kernels[name]), patches))
    return layers


def _patches(found: Excitation, dataset: Dataset, rows: Array, kernels: int) -> list[list[Array]]:
    return [
        [
            _cut(without_margin(dataset.pixels[rows[photo]], dataset.settings), place, found.size)
            for photo, place in zip(found.photos[kernel], found.places[kernel].tolist(), strict=True)
        ]
        for kernel in range(kernels)
    ]


def _cut(photo: Array, place: tuple[int, int], size: tuple[int, int]) -> Array:
    """A patch of a photo, NaN beyond the photo's edges."""
    (top, left), (height, width) = place, size
    patch = np.full((height, width, photo.shape[2]), np.nan, np.float32)
    rows, columns = (
        slice(max(first, 0), min(first + length, side))
        for first, length, side in ((top, height, photo.shape[0]), (left, width, photo.shape[1]))
    )
    patch[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = photo[rows, columns]
    return patch
