"""Runs photos without augmentation through a network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from facecnn.arrays import Array, Float32Array, Float64Array
from facecnn.kernels.protocol import AUGMENTATION_NONE, MIRROR, SHIFT_X, SHIFT_Y, Normalise
from facecnn.network.feeding import PhotoFeed
from facecnn.network.network import Network
from facecnn.network.weights import Weights


def views_at_test_time(mirror: bool, shift: float) -> Float32Array:
    """Test-time augmentation: the views of a photo that answers are averaged over, as parameters of ``prepare_photos``.

    The photo as it is; with ``shift``, also moved by that fraction of the side up, down, left and right; with
    ``mirror``, the mirror images of all these.

    Returns:
        (views, columns of AUGMENTATION)
    """
    shifts = [(0.0, 0.0)]
    if shift:
        shifts += [(shift, 0.0), (-shift, 0.0), (0.0, shift), (0.0, -shift)]
    made = np.tile(AUGMENTATION_NONE, (len(shifts), 1))
    made[:, [SHIFT_Y, SHIFT_X]] = shifts
    if not mirror:
        return made
    mirrored = made.copy()
    mirrored[:, MIRROR] = 1
    return np.concatenate([made, mirrored])


def prepare_in_batches(
    network: Network, photos: PhotoFeed, normalise: Normalise, parameters: Array
) -> Iterator[tuple[int, int]]:
    """Fill ``network.input`` with one batch of the photos after another; yields start and stop of each.

    Args:
        network: its batch size must not be above that of the feed.
        photos: all of them are used, in order.
        normalise: how they are normalised.
        parameters: (batch_size, columns of AUGMENTATION) on the device, of the views.
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
        Start and stop of the photos that were run, whose outputs are ``network.output[: stop - start]``.
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
) -> Float64Array:
    """Log-probabilities (photos, units): their mean over each photo's test-time views, normalised again."""
    number = len(photos.rows)
    outputs, total = np.empty((number, network.units)), np.zeros((number, network.units))
    for start, stop in passes(network, photos, normalise, mirror=mirror, shift=shift, weights=weights):
        outputs[start:stop] = network.backend.to_host(network.output[: stop - start])
        if stop == number:  # the view is complete
            total += log_softmax(outputs)
    return log_softmax(total / len(views_at_test_time(mirror, shift)))


def log_softmax(logits: Array) -> Float64Array:
    """Logarithm of the softmax of each row."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
