"""What a network makes of photos that are not augmented."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.kernels.protocol import AUGMENTATION, AUGMENTATION_NONE, Normalise
from facecnn.network.network import Network, Weights

Array = npt.NDArray[Any]


def log_probabilities(
    network: Network, pixels: Array, rows: Array, normalise: Normalise, *, mirror: bool, weights: Weights | None = None
) -> npt.NDArray[np.float64]:
    """Logarithms of the probabilities of each output: (len(rows), units), each row's probabilities summing to 1.

    pixels (P, H + 2 my, W + 2 mx, C) uint8 on the device, rows (n,) int32 on the host. With ``mirror`` the answer is
    the mean over the photo and its mirror image of the logarithms, scaled to sum to 1 again.
    """
    kernels = network.kernels
    total = np.zeros((len(rows), network.units))
    for mirrored in (False, True) if mirror else (False,):
        one = AUGMENTATION_NONE.copy()
        one[AUGMENTATION.index("mirror")] = mirrored
        parameters = kernels.to_device(np.tile(one, (network.batch_size, 1)))
        for start in range(0, len(rows), network.batch_size):
            batch = kernels.to_device(np.asarray(rows[start : start + network.batch_size], np.int32))
            count = len(batch)
            kernels.prepare_photos(
                network.input[:count], pixels, batch, parameters[:count], normalise, network.workspace
            )
            network.forward(count, weights=weights)
            total[start : start + count] += _log_softmax(kernels.to_host(network.output[:count]))
    return _log_softmax(total / 2 if mirror else total)


def _log_softmax(logits: Array) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
