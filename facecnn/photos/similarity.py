"""The similarity transform that brings one set of points nearest to another."""

import numpy as np

from facecnn.arrays import Float64Array


def similarity(
    source: Float64Array, target: Float64Array, weights: Float64Array | None = None
) -> tuple[Float64Array, Float64Array]:
    """Rotation, scale and shift from ``source`` to ``target``, by least squares (Umeyama 1991); never a reflection.

    Args:
        source: (n, 2) points.
        target: (n, 2) where they should come to lie.
        weights: (n,) of their squared distances; all are equal by default.

    Returns:
        A matrix (2, 2) and a shift (2,): ``source @ matrix.T + shift`` is nearest to ``target``.
    """
    weights = np.ones(len(source)) if weights is None else weights
    centre_source, centre_target = (np.average(points, axis=0, weights=weights) for points in (source, target))
    a, b = source - centre_source, target - centre_target
    # In complex numbers: the factor that brings factor * a nearest to b. A reflection can't be written like this.
    factor = np.vdot(weights * (a[:, 0] + 1j * a[:, 1]), b[:, 0] + 1j * b[:, 1]) / (weights[:, None] * a * a).sum()
    matrix = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return matrix, centre_target - matrix @ centre_source
