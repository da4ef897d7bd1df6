"""Names and constants that all backends share."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Activation = Literal["identity", "sigmoid", "tanh", "relu", "leaky_relu", "gelu"]

FUSED_ACTIVATIONS = ("identity", "sigmoid", "tanh", "relu", "leaky_relu")
"""Activations that never fall, so that pooling may come first and the derivative be taken from the output."""

PoolKind = Literal["max", "average"]
Normalise = Literal["none", "standardise", "local_contrast"]

LARGEST_FUSED_POOL = 16
"""The position in a window of 16 x 16 still fits the uint8 in which a convolution keeps it."""

LEAST_LENGTH = 1e-12
"""What rows of zeros are divided by, in place of their length."""

AUGMENTATION = (
    "mirror",
    "shift_y",
    "shift_x",
    "zoom",
    "angle",
    "gamma",
    "contrast",
    "brightness",
    "blur",
    "erase_y",
    "erase_x",
    "erase_height",
    "erase_width",
)
"""The columns of the parameters that say what happens to a photo."""

(
    MIRROR, SHIFT_Y, SHIFT_X, ZOOM, ANGLE, GAMMA, CONTRAST, BRIGHTNESS, BLUR, ERASE_Y, ERASE_X, ERASE_HEIGHT,
    ERASE_WIDTH,
) = range(len(AUGMENTATION))  # fmt: skip
"""The columns' numbers."""

AUGMENTATION_NONE = np.array([0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], np.float32)
"""The parameters of a photo that is left as it is."""

PURPOSE_NOISE = 0
PURPOSE_AUGMENT = 1
PURPOSE_DROPOUT = 2
"""Second word of the key of random numbers. Dropout of layer i uses PURPOSE_DROPOUT + i: no other may be above it."""


def gaussian_weights(sigma: float, radius: int) -> npt.NDArray[np.float64]:
    """exp(-i^2 / (2 sigma^2)) for i = -radius ... radius, scaled to sum to 1."""
    i = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (i / sigma) ** 2)
    return np.asarray(weights / weights.sum())


def local_contrast_weights(height: int, width: int) -> npt.NDArray[np.float64]:
    """The Gaussian of local contrast normalisation: sigma 0.06 of the shorter side, cut at three sigma."""
    sigma = 0.06 * min(height, width)
    return gaussian_weights(sigma, max(1, round(3 * sigma)))
