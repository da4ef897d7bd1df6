"""Gradients by central differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from facecnn.arrays import Array


def central_differences(value: Callable[[], float], weight: Array, h: float = 1e-5) -> Array:
    """Compute the gradient of ``value`` by ``weight``, element by element, from (f(w + h) - f(w - h)) / 2h.

    Args:
        value: Computes f from the weights as they are.
        weight: Of any shape; changed in place, and restored.
    """
    gradient = np.empty_like(weight)
    for place in np.ndindex(weight.shape):
        kept = weight[place]
        weight[place] = kept + h
        above = value()
        weight[place] = kept - h
        gradient[place] = (above - value()) / (2 * h)
        weight[place] = kept
    return gradient
