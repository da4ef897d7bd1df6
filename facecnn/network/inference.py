"""What a network makes of photos that are not augmented."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.kernels.protocol import AUGMENTATION_NONE, MIRROR, SHIFT_X, SHIFT_Y, Normalise
from facecnn.network.feeding import PhotoFeed
from facecnn.network.network import Network, Weights

Array = npt.NDArray[Any]


def views(mirror: bool, shift: float) -> npt.NDArray[np.float32]:
    """The ways in which a photo is looked at, as parameters of ``prepare_photos``: (views, columns of AUGMENTATION).

    The photo as it is; with ``shift``, also moved by that fraction of the side up, down, left and right; with
    ``mirror``, the mirror images of all these.
    """
    places = [(0.0, 0.0)]
    if shift:
        places += [(shift, 0.0), (-shift, 0.0), (0.0, shift), (0.0, -shift)]
    made = np.tile(AUGMENTATION_NONE, (len(places), 1))
    made[:, [SHIFT_Y, SHIFT_X]] = places
    if not mirror:
        return made
    mirrored = made.copy()
    mirrored[:, MIRROR] = 1
    return np.concatenate([made, mirrored])


def passes(
    network: Network,
    photos: PhotoFeed,
    normalise: Normalise,
    *,
    mirror: bool,
    shift: float = 0.0,
    weights: Weights | None = None,
) -> Iterator[tuple[int, int]]:
    """Run all ``views`` of all photos through the network, batch by batch: (start, stop) of those that have just been,
    whose outputs are ``network.output[: stop - start]``.

    ``photos`` must be fed in batches of the network's size at most.
    """
    kernels = network.kernels
    number = len(photos.rows)
    rows = kernels.to_device(photos.rows)
    bounds = [(start, min(number, start + network.batch_size)) for start in range(0, number, network.batch_size)]
    for view in views(mirror, shift):
        parameters = kernels.to_device(np.tile(view, (network.batch_size, 1)))
        photos.plan([np.arange(start, stop) for start, stop in bounds])
        for start, stop in bounds:
            count = stop - start
            pixels = photos.pixels(photos.bring())
            kernels.prepare_photos(
                network.input[:count],
                pixels,
                photos.places(rows[start:stop], 0, count),
                parameters[:count],
                normalise,
                network.workspace,
            )
            photos.done()
            network.infer(count, weights)
            yield start, stop


def log_probabilities(
    network: Network,
    photos: PhotoFeed,
    normalise: Normalise,
    *,
    mirror: bool,
    shift: float = 0.0,
    weights: Weights | None = None,
) -> npt.NDArray[np.float64]:
    """Logarithms of the probabilities of each output: (photos, units), each row's probabilities summing to 1.

    ``photos`` must be fed in batches of the network's size at most. The answer is the mean over the ``views`` of the
    photo of the logarithms, scaled to sum to 1 again.
    """
    number = len(photos.rows)
    outputs, total = np.empty((number, network.units)), np.zeros((number, network.units))
    for start, stop in passes(network, photos, normalise, mirror=mirror, shift=shift, weights=weights):
        outputs[start:stop] = network.kernels.to_host(network.output[: stop - start])
        if stop == number:  # the last ones, looked at in one way
            total += log_softmax(outputs)
    return log_softmax(total / len(views(mirror, shift)))


def log_softmax(logits: Array) -> npt.NDArray[np.float64]:
    """Logarithms of softmax, row by row."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
