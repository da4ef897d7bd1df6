"""Batch norm of a batch whose photos are on several ranks, by the kernels that normalise a rank's own photos.

Forward, each rank's kernel gives the mean and the variance of its photos. Those of the whole batch follow from all
ranks' by the formula of Chan, Golub and LeVeque (1979), and the kernel for given statistics normalises with them.

Backward, dx = factor * (dout - S / M - h * P / M), with S = sum dout and P = sum dout * h over all M rows of the batch
(``reference.batch_norm_backward``). A rank's kernel has s, p and m of its own rows in their place, so what is missing
is factor * ((s / m - S / M) + h * (p / m - P / M)): h with another scale and shift. dscale and dshift stay the rank's
own: they are added up with the rest of the gradient.

The few numbers of each map are merged in float64, in the order of the ranks.
"""

from functools import partial

import numpy as np

from facecnn.arrays import Array
from facecnn.network.layers.base import LayerContext, by_last
from facecnn.parallel.ranks import Ranks


def forward(context: LayerContext, momentum: float, epsilon: float) -> None:
    """``batch_norm_forward`` with the statistics of all ranks' photos."""
    backend, workspace, weights = context.backend, context.workspace, context.weights
    out, x = by_last(context.out), by_last(context.x)
    mean, inverse_std = context.buffers["mean"], context.buffers["inverse_std"]
    running = (weights["running_mean"], weights["running_variance"])
    affine = (weights["scale"], weights["shift"])
    variance = context.buffers["of_all_ranks"][0]
    backend.batch_norm_forward(out, mean, inverse_std, *running, x, *affine, 0.0, epsilon, workspace)
    merge = partial(_merge_moments, context.ranks, len(x), momentum, epsilon)
    backend.on_host(merge, (mean, inverse_std, variance, *running), workspace)
    backend.batch_norm_inference(out, x, mean, variance, *affine, epsilon, workspace)


def backward(context: LayerContext) -> None:
    """``batch_norm_backward`` with the sums of all ranks' photos in dx, and this rank's in dscale and dshift."""
    backend, workspace, buffers = context.backend, context.workspace, context.buffers
    dx, dout, x = map(by_last, (context.dx_target, context.dout, context.x))
    dscale, dshift = context.gradient["scale"], context.gradient["shift"]
    scale, mean, inverse_std = context.weights["scale"], buffers["mean"], buffers["inverse_std"]
    backend.batch_norm_backward(dx, dscale, dshift, dout, x, mean, inverse_std, scale, workspace)
    if context.dx is None:
        return
    one, slope, offset = (buffers["of_all_ranks"][row] for row in range(3))
    missing = by_last(context.out)  # which is no longer needed
    correct = partial(_correction, context.ranks, len(x))
    backend.on_host(correct, (slope, offset, one, dscale, dshift, scale, inverse_std), workspace)
    backend.batch_norm_inference(missing, x, mean, one, slope, offset, 0.0, workspace)
    elements = x.shape[0] * x.shape[1]
    backend.accumulate(dx.reshape(elements), missing.reshape(elements), False, workspace)


def _merge_moments(
    ranks: Ranks,
    rows: int,
    momentum: float,
    epsilon: float,
    mean: Array,
    inverse_std: Array,
    variance: Array,
    running_mean: Array,
    running_variance: Array,
) -> None:
    """Replace the mean and the inverse standard deviation (C,) of this rank's ``rows`` by those of all ranks'; fill
    ``variance`` and move the running statistics."""
    own = mean.astype(np.float64), np.maximum(inverse_std.astype(np.float64) ** -2 - epsilon, 0)
    counts, means, variances = _stacked(ranks, rows, *own)
    count = counts.sum()
    centre = (counts * means).sum(axis=0) / count
    spread = (counts * (variances + (means - centre) ** 2)).sum(axis=0) / count
    mean[...] = centre
    variance[...] = spread
    inverse_std[...] = 1 / np.sqrt(spread + epsilon)
    running_mean += momentum * (mean - running_mean)
    running_variance += momentum * (spread * (count / max(count - 1, 1)) - running_variance).astype(mean.dtype)


def _correction(
    ranks: Ranks,
    rows: int,
    slope: Array,
    offset: Array,
    one: Array,
    dscale: Array,
    dshift: Array,
    scale: Array,
    inverse_std: Array,
) -> None:
    """The map slope * (x - mean) + offset, with numbers (C,), that dx lacks; sets ``one`` to 1."""
    own = dscale.astype(np.float64) / rows, dshift.astype(np.float64) / rows
    counts, products, sums = _stacked(ranks, rows, *own)
    count = counts.sum()
    factor = scale.astype(np.float64) * inverse_std
    offset[...] = factor * (own[1] - (counts * sums).sum(axis=0) / count)
    slope[...] = factor * inverse_std * (own[0] - (counts * products).sum(axis=0) / count)
    one[...] = 1


def _stacked(ranks: Ranks, rows: int, first: Array, second: Array) -> tuple[Array, Array, Array]:
    """All ranks' rows (size, 1) and two numbers for each map (size, C)."""
    stacked = ranks.stack(np.array([np.full(first.shape, float(rows)), first, second]))
    return stacked[:, 0, :1], stacked[:, 1], stacked[:, 2]
