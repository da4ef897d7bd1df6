"""Sharpness of faces."""

import numpy as np

from facecnn.arrays import Float64Array, UInt8Array


def sharpness(pictures: UInt8Array) -> Float64Array:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000) over that of the grey values, so that low contrast doesn't
    count as blur; 0 for a uniform picture.

    Args:
        pictures: (n, rows, columns, channels)

    Returns:
        (n,)
    """
    grey = pictures.mean(axis=3, dtype=np.float32)
    laplacian = -4 * grey[:, 1:-1, 1:-1]
    laplacian += grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    contrast = grey.var(axis=(1, 2), dtype=np.float64)
    return np.asarray(laplacian.var(axis=(1, 2), dtype=np.float64) / np.maximum(contrast, 1.0))
