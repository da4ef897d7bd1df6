"""The pictures of a model's kernels, from the model, the run's frames and its photos."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.network.excitation import Excitation, excitation
from facecnn.network.feeding import PhotoFeed
from facecnn.photos.dataset import Dataset
from facecnn.photos.folder_faces import from_record
from facecnn.photos.preparation import without_margin
from facecnn.recognition import Recogniser
from facecnn.reports.kernel_pictures import (
    MOST_COLUMNS,
    MOST_KERNELS,
    DrawnKernels,
    ExcitingPatches,
    draw_kernels,
    draw_patches,
)
from facecnn.runs.folder import RunFolder
from facecnn.runs.frames import KernelFrames

Array = npt.NDArray[Any]

MOST_PHOTOS = 128
"""So many photos, spread over all, are looked at for what excites the kernels."""

MOST_LAYERS = 6
PATCHES = 4
"""Of each kernel."""


def kernels_of(recogniser: Recogniser, run: RunFolder | None = None) -> list[DrawnKernels]:
    """The kernels of each conv layer, with what they were before the run's first step where its frames tell."""
    arrays = recogniser.network.weights.to_host()
    names = [stage.name for stage in recogniser.network.stages if stage.layer.has_kernels]
    now = {name: arrays[f"{name}.weight"] for name in names}
    frames = [] if run is None else KernelFrames(run.frames_path, now).read()
    start = frames[0].layers if frames and frames[0].epoch == 0 else {}
    return [DrawnKernels(name, kernels, start.get(name)) for name, kernels in now.items()]


def draw_kernels_of(run: RunFolder, recogniser: Recogniser) -> None:
    """kernels.png, where there are any. Raises OutputError."""
    layers = kernels_of(recogniser, run)
    if layers:
        draw_kernels(run.kernels_path, layers)


def draw_patches_of(run: RunFolder, recogniser: Recogniser, dataset: Dataset) -> None:
    """patches.png: what excites the kernels in the data set's photos, where there are any; in those that the run
    trained on, the face that it trained on. Raises OutputError."""
    network = recogniser.network
    convs = [number for number, stage in enumerate(network.stages) if stage.layer.has_kernels][:MOST_LAYERS]
    if not convs or not len(dataset.rows):
        return
    rows = from_record(run.read_split(), dataset).rows(dataset)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, MOST_PHOTOS).round().astype(int))]
    photos = PhotoFeed(network.kernels, dataset.pixels, rows, network.batch_size)
    found = excitation(network, photos, recogniser.normalise, convs, PATCHES)
    layers = []
    for layer in kernels_of(recogniser)[:MOST_LAYERS]:
        most = MOST_KERNELS if layer.now.shape[3] in (1, 3) else MOST_COLUMNS
        layers.append(ExcitingPatches(layer, _patches(found[layer.name], dataset, rows, min(most, len(layer.now)))))
    draw_patches(run.patches_path, layers)


def _patches(found: Excitation, dataset: Dataset, rows: Array, kernels: int) -> list[list[Array]]:
    return [
        [
            _cut(without_margin(dataset.pixels[rows[photo]], dataset.settings), place, found.size)
            for photo, place in zip(found.photos[kernel], found.places[kernel].tolist(), strict=True)
        ]
        for kernel in range(kernels)
    ]


def _cut(photo: Array, place: tuple[int, int], size: tuple[int, int]) -> Array:
    """A part of a photo, NaN where it reaches beyond it."""
    (top, left), (height, width) = place, size
    patch = np.full((height, width, photo.shape[2]), np.nan, np.float32)
    rows, columns = (
        slice(max(first, 0), min(first + length, side))
        for first, length, side in ((top, height, photo.shape[0]), (left, width, photo.shape[1]))
    )
    patch[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = photo[rows, columns]
    return patch
