"""Runs photos without augmentation through a network."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from facecnn.arrays import Array, Float32Array, Float64Array
from facecnn.kernels.protocol import AUGMENTATION_NONE, MIRROR, SHIFT_X, SHIFT_Y, Normalise
from facecnn.network.feeding import ALL, PhotoFeed
from facecnn.network.network import Network
from facecnn.network.size import measure
from facecnn.network.stages import Stage
from facecnn.network.weights import Weights

MOST_NUMBERS = 2**18
"""Numbers in a block of outputs: 2 MiB, several times over while it is worked on. With 16 times as many the softmax of
10,000 outputs took a third longer, as they no longer fit a processor's cache."""


def answer_multiply_adds(stages: Sequence[Stage], mirror: bool, shift: float) -> int:
    """Multiply-adds of the answer for one photo, in all its views."""
    return measure(stages, 1).multiply_adds * len(views_at_test_time(mirror, shift))


def views_at_test_time(mirror: bool, shift: float) -> Float32Array:
    """Test-time augmentation: the views of a photo that answers are averaged over, as parameters of ``prepare_photos``.

    The photo as it is; with ``shift``, also moved by that fraction of the side up, down, left and right; with
    ``mirror``, the mirror images of all these. Returns (views, columns of AUGMENTATION).
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
    network: Network, photos: PhotoFeed, normalise: Normalise, parameters: Array, part: slice = ALL
) -> Iterator[tuple[int, int]]:
    """Fill ``network.input`` with one batch of the photos after another; yields start and stop of each.

    Args:
        network: its batch size must not be above that of the feed.
        photos: they are used in order.
        parameters: (batch_size, columns of AUGMENTATION) on the device, of the views.
        part: which of the photos are used.
    """
    for start, stop, pixels, rows in photos.in_order(network.batch_size, part):
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
    part: slice = ALL,
) -> Iterator[tuple[int, int]]:
    """Run all test-time views of all photos, or a ``part`` of them, through the network, batch by batch.

    Yields:
        Start and stop of the photos that were run, whose outputs are ``network.output[: stop - start]``.
    """
    for view in views_at_test_time(mirror, shift):
        parameters = network.backend.to_device(np.tile(view, (network.batch_size, 1)))
        for start, stop in prepare_in_batches(network, photos, normalise, parameters, part):
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
    blocks = blocks_of_log_probabilities(network, photos, normalise, mirror=mirror, shift=shift, weights=weights)
    return joined(blocks, network.units)


def blocks_of_log_probabilities(
    network: Network,
    photos: PhotoFeed,
    normalise: Normalise,
    *,
    mirror: bool,
    shift: float = 0.0,
    weights: Weights | None = None,
) -> Iterator[Float64Array]:
    """The rows of ``log_probabilities`` in blocks of successive photos, so that one block is in memory at a time.

    A block is of whole batches, so its numbers don't depend on where it ends. It has at most ``MOST_NUMBERS`` of them,
    unless one batch has more.
    """
    size = block_size(network.units, network.batch_size)
    views = len(views_at_test_time(mirror, shift))
    for first in range(0, len(photos.rows), size):
        last = min(len(photos.rows), first + size)
        outputs, total = np.empty((last - first, network.units)), np.zeros((last - first, network.units))
        part = slice(first, last)
        for start, stop in passes(network, photos, normalise, mirror=mirror, shift=shift, weights=weights, part=part):
            outputs[start - first : stop - first] = network.backend.to_host(network.output[: stop - start])
            if stop == last:  # the view is complete
                total += log_softmax(outputs)
        yield log_softmax(total / views)


def joined(blocks: Iterable[Float64Array], outputs: int) -> Float64Array:
    """Blocks (photos, outputs) as one array; without blocks (0, outputs)."""
    return np.concatenate([np.zeros((0, outputs)), *blocks])


def block_size(units: int, batch_size: int = 1) -> int:
    """Number of photos in a block, each with ``units`` outputs: whole batches, and at least one."""
    return max(1, MOST_NUMBERS // (units * batch_size)) * batch_size


def log_softmax(logits: Array) -> Float64Array:
    """Logarithm of the softmax of each row."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
