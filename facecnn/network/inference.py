"""What a network makes of photos that are not augmented."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from facecnn.arrays import Array
from facecnn.kernels.protocol import AUGMENTATION_NONE, MIRROR, SHIFT_X, SHIFT_Y, Normalise
from facecnn.network.feeding import PhotoFeed
from facecnn.network.network import Network, Weights


def views_at_test_time(mirror: bool, shift: float) -> npt.NDArray[np.float32]:
    """The views of a photo that answers are averaged over, as parameters of ``prepare_photos``.

    The photo as it is; with ``shift``, also moved by that fraction of the side up, down, left and right; with
    ``mirror``, the mirror images of all these.

    Returns:
        (views, columns of AUGMENTATION)
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


def prepare_in_batches(
    network: Network, photos: PhotoFeed, normalise: Normalise, parameters: Array
) -> Iterator[tuple[int, int]]:
    """Fill ``network.input`` with one batch of the photos after another.

    Args:
        network: whose batch size is not above the one that the photos are fed in.
        photos: all of them are taken, in their order.
        normalise: how their pixels are scaled.
        parameters: (batch_size, columns of AUGMENTATION) on the device, of the views.

    Yields:
        The number of the batch's first photo, and of the one after its last.
    """
    for start, stop, pixels, rows in photos.in_order(network.batch_size):
        count = stop - start
        network.backend.prepare_photos(
            network.input[:count], pixels, rows, parameters[:count], normalise, network.workspace
        )
        yield start, stop


def passes(
    network: Network,
    photos: PhotoFeed,
    normalise: Normalise,
    *,
    mirror: bool,
    shift: float = 0.0,
    weights: Weights | None = None,
) -> Iterator[tuple[int, int]]:
    """Run all test-time views of all photos through the network, batch by batch.

    Yields:
        Which photos have just been run, as ``prepare_in_batches`` does: their outputs are
        ``network.output[: stop - start]``.
    """
    for view in views_at_test_time(mirror, shift):
        parameters = network.backend.to_device(np.tile(view, (network.batch_size, 1)))
        for start, stop in prepare_in_batches(network, photos, normalise, parameters):
            network.infer(stop - start, weights)
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

    They are the mean of the logarithms over the photo's test-time views, scaled to sum to 1 again.
    """
    number = len(photos.rows)
    outputs, total = np.empty((number, network.units)), np.zeros((number, network.units))
    for start, stop in passes(network, photos, normalise, mirror=mirror, shift=shift, weights=weights):
        outputs[start:stop] = network.backend.to_host(network.output[: stop - start])
        if stop == number:  # all photos in one view
            total += log_softmax(outputs)
    return log_softmax(total / len(views_at_test_time(mirror, shift)))


def log_softmax(logits: Array) -> npt.NDArray[np.float64]:
    """Logarithms of softmax, row by row."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
