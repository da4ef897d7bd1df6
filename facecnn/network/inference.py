"""What a network makes of photos that are not augmented."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.kernels.protocol import AUGMENTATION_NONE, MIRROR, Normalise
from facecnn.network.feeding import PhotoFeed
from facecnn.network.network import Network, Weights

Array = npt.NDArray[Any]


def log_probabilities(
    network: Network, photos: PhotoFeed, normalise: Normalise, *, mirror: bool, weights: Weights | None = None
) -> npt.NDArray[np.float64]:
    """Logarithms of the probabilities of each output: (photos, units), each row's probabilities summing to 1.

    ``photos`` must be fed in batches of the network's size at most. With ``mirror`` the answer is the mean over the
    photo and its mirror image of the logarithms, scaled to sum to 1 again.
    """
    kernels = network.kernels
    number = len(photos.rows)
    rows = kernels.to_device(photos.rows)
    starts = range(0, number, network.batch_size)
    total = np.zeros((number, network.units))
    for mirrored in (False, True) if mirror else (False,):
        one = AUGMENTATION_NONE.copy()
        one[MIRROR] = mirrored
        parameters = kernels.to_device(np.tile(one, (network.batch_size, 1)))
        photos.plan([np.arange(start, min(number, start + network.batch_size)) for start in starts])
        for start in starts:
            stop = min(number, start + network.batch_size)
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
            network.forward(count, weights=weights)
            total[start:stop] += _log_softmax(kernels.to_host(network.output[:count]))
    return _log_softmax(total / 2 if mirror else total)


def _log_softmax(logits: Array) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
