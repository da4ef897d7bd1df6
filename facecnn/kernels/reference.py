"""The arithmetic of a convolutional network in plain NumPy: the definition that the other backends are checked
against.

Written to be read. Any floating dtype works; gradients are checked in float64 here. ``cpu`` and ``cuda`` implement the
same functions with the same arguments.

Conventions
    Arrays are NHWC: photo, row, column, map. N photos, H rows, W columns, C input maps, K kernels.
    Outputs come first, and are overwritten whole unless the function says that it updates them in place. Inputs
    follow, then scalars, then ``workspace``: scratch memory that a backend may keep between calls; none is used here.
    ``dout`` is the loss's derivative by ``out``, and so on; a layer's ``dout`` is the next layer's ``dx``.
    Values that change from step to step (``learning_rate``, ``step``, ``epoch``) are arrays of one element, so that a
    recorded sequence of launches reads them afresh.
    Indices and labels are int32.

How a convolution learns
    Write z[p, k] = bias[k] + sum over tap t and map c of weight[k, t, c] * x[p + t, c], where p is a position of the
    output and t an offset within the kernel. This is a cross-correlation: nothing is flipped. Let delta[p, k] be the
    loss's derivative by z[p, k]. The activation's derivative is applied once, here: delta = dout * activation'(z).
    1. weight[k, t, c] takes part in z[p, k] at every position p, with the factor x[p + t, c], so
       dweight[k, t, c] = sum over p of delta[p, k] * x[p + t, c]: again a cross-correlation, of the unflipped input
       with the unflipped delta, summed over positions and photos, and divided by nothing.
    2. x[q, c] takes part in z[q - t, k] for every tap t, with the factor weight[k, t, c], so
       dx[q, c] = sum over k and t of delta[q - t, k] * weight[k, t, c]: the minus sign is the only place where
       anything is flipped, and it is needed only to carry the error to a layer below.
    3. The largest element of a pooling window is the only one that the output depends on, so it gets all of dout.
       Of equal elements the first in row order wins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.arrays import Array
from facecnn.kernels.protocol import (
    AUGMENTATION,
    FUSED_ACTIVATIONS,
    LEAST_LENGTH,
    PURPOSE_AUGMENT,
    PURPOSE_NOISE,
    Activation,
    Normalise,
    PoolKind,
    gaussian_weights,
    local_contrast_weights,
)


class Workspace:
    """Scratch memory of a backend for one network and batch size; NumPy needs none."""


def empty(shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
    """An array of this backend's device with arbitrary, finite content."""
    return np.zeros(tuple(shape), dtype)


def to_device(array: Array) -> Array:
    """A copy of a host array on this backend's device."""
    return np.array(array, order="C")


def to_host(array: Array) -> Array:
    """A copy of a device array on the host."""
    return np.array(array)


def copy_to_device(out: Array, array: Array) -> None:
    """Overwrite a device array with a host array of the same shape."""
    out[...] = array


def resident(array: Array, rows: Array) -> tuple[Array, npt.NDArray[np.int32]]:
    """Put ``rows`` (n,) of a read-only host array on the device.

    Returns an array, and the index in it of each row. A device without memory of its own copies nothing. One with its
    own memory raises MemoryError if that is too small; its backend has a class ``PhotoStream``, which sends the photos
    batch by batch.
    """
    return np.asarray(array), np.asarray(rows, np.int32)


def synchronise() -> None:
    """Wait until all launched work is done."""


def record(function: Callable[[], None], workspace: Any) -> Callable[[], None]:
    """Record ``function``, and return a function that replays it.

    ``function`` may only launch kernels, always the same ones with the same arguments and this workspace. This backend
    records nothing and returns it unchanged."""
    return function


def on_host(function: Callable[..., None], arrays: Sequence[Array], workspace: Any) -> None:
    """Call ``function`` between two kernels with the contents of device arrays, as host arrays that it may change.

    In a recording it is called at each replay."""
    function(*arrays)


def mark(workspace: Any) -> Any:
    """An event between the kernels launched before it and those launched later, for ``milliseconds``."""
    return time.perf_counter()


def milliseconds(start: Any, stop: Any) -> float:
    """Device time between two events of ``mark``."""
    return float(1000 * (stop - start))


def hold_up(at_least: float, workspace: Any) -> None:
    """Keep an asynchronous device busy for ``at_least`` milliseconds, so that launches queue up behind it and the time
    between marks is the kernels' own."""


# ---------------------------------------------------------------------------------------------------- activations


def _normal_cdf(z: Array) -> Array:
    from math import erf

    return np.asarray(0.5 * (1 + np.vectorize(erf, otypes=[z.dtype])(z / np.sqrt(z.dtype.type(2)))))


def _normal_density(z: Array) -> Array:
    return np.asarray(np.exp(-0.5 * z * z) / np.sqrt(z.dtype.type(2 * np.pi)))


_ACTIVATIONS: dict[Activation, tuple[Callable[[Array, Any], Any], Callable[[Array, Any], Any]]] = {
    "identity": (lambda z, slope: z, lambda out, slope: np.ones_like(out)),
    "sigmoid": (
        lambda z, slope: 0.5 * (1 + np.tanh(0.5 * z)),  # the same as 1 / (1 + exp(-z)), and never overflows
        lambda out, slope: out * (1 - out),
    ),
    "tanh": (lambda z, slope: np.tanh(z), lambda out, slope: 1 - out * out),
    "relu": (
        lambda z, slope: np.where(z > 0, z, 0 * z),
        lambda out, slope: np.where(out > 0, out.dtype.type(1), out.dtype.type(0)),
    ),
    "leaky_relu": (
        lambda z, slope: np.where(z > 0, z, z.dtype.type(slope) * z),
        lambda out, slope: np.where(out > 0, out.dtype.type(1), out.dtype.type(slope)),
    ),
    "gelu": (lambda z, slope: z * _normal_cdf(z), lambda z, slope: _normal_cdf(z) + z * _normal_density(z)),
}
"""activation(z) and its derivative: computed from activation(z) for FUSED_ACTIVATIONS, which never decrease and allow
it, and from z for others."""


def activation_forward(out: Array, x: Array, activation: Activation, slope: float, workspace: Any) -> None:
    """out = activation(x), element by element; both of any one shape.

    gelu is x times the normal distribution function of x (Hendrycks and Gimpel 2016, the exact form with erf).
    """
    value, _ = _ACTIVATIONS[activation]
    out[...] = value(x, slope)


def activation_backward(
    dx: Array, dout: Array, x: Array, out: Array, activation: Activation, slope: float, workspace: Any
) -> None:
    """dx = dout * activation'(x); from ``out`` for FUSED_ACTIVATIONS, else from ``x`` (gelu: Phi(x) + x * phi(x))."""
    _, derivative = _ACTIVATIONS[activation]
    dx[...] = dout * derivative(out if activation in FUSED_ACTIVATIONS else x, slope)


def prelu_forward(out: Array, x: Array, slope: Array, workspace: Any) -> None:
    """A leaky relu whose slope is learned (He et al. 2015, arXiv:1502.01852): out = x where x > 0, else slope[c] * x.

    out, x (M, C): M counts photos, or photos times positions; slope (C,), one for each map or unit, of any sign.
    """
    out[...] = np.where(x > 0, x, slope * x)


def prelu_backward(dx: Array, dslope: Array, dout: Array, x: Array, slope: Array, workspace: Any) -> None:
    """dx = dout where x > 0, else dout * slope[c]; dslope[c] = sum of dout * x over the x <= 0 of column c.

    The side is read from ``x``, since a negative slope changes the sign of ``out``.
    """
    above = x > 0
    dx[...] = np.where(above, dout, dout * slope)
    dslope[...] = np.where(above, x.dtype.type(0), dout * x).sum(axis=0)


# ---------------------------------------------------------------------------------------------------- convolution


def _taps(x: Array, shape: tuple[int, int], padding: tuple[int, int], row: int, column: int) -> Array:
    """x[p + t] for every output position p of a map of ``shape`` and the one tap t = (row, column); zero outside."""
    height, width = shape
    shifted = np.zeros((x.shape[0], height, width, x.shape[3]), x.dtype)
    top, left = row - padding[0], column - padding[1]
    first_y, last_y = max(0, -top), min(height, x.shape[1] - top)
    first_x, last_x = max(0, -left), min(width, x.shape[2] - left)
    if first_y < last_y and first_x < last_x:
        shifted[:, first_y:last_y, first_x:last_x] = x[:, first_y + top : last_y + top, first_x + left : last_x + left]
    return shifted


def conv_forward(
    out: Array, argmax: Array, x: Array, weight: Array, bias: Array, padding: tuple[int, int], activation: Activation,
    slope: float, pool: int, workspace: Any,
) -> None:  # fmt: skip
    """Convolution, bias, activation and max-pooling in one block.

    out     (N, H', W', K)  activation(largest sum of each window + bias)
    argmax  (N, H', W', K)  uint8: position of that sum in its window, row * pool + column. Of equal sums the first
                           wins, unless a backend rounds them differently. Not written if pool is 1; a forward pass
                           that needs no argmax passes one for no photos, (0, H', W', K)
    x       (N, H, W, C)    zero-padded: ``padding`` = (rows above, columns to the left)
    weight  (K, R, S, C), bias (K,)

    pool    windows of pool x pool, side by side; rows and columns that fill no window are dropped.

    Only FUSED_ACTIVATIONS are allowed: they never decrease, so the largest sum has the largest output.
    """
    assert activation in FUSED_ACTIVATIONS
    photos, height, width, kernels = out.shape
    shape = (height * pool, width * pool)
    z = np.zeros((photos, *shape, kernels), out.dtype)
    for row in range(weight.shape[1]):
        for column in range(weight.shape[2]):
            z += _taps(x, shape, padding, row, column) @ weight[:, row, column].T
    windows = z.reshape(photos, height, pool, width, pool, kernels).transpose(0, 1, 3, 5, 2, 4)
    windows = windows.reshape(photos, height, width, kernels, pool * pool)
    if pool > 1 and len(argmax) > 0:
        argmax[...] = windows.argmax(axis=-1)
    activation_forward(out, windows.max(axis=-1) + bias, activation, slope, workspace)


def _spread_over_windows(
    dout: Array, out: Array, argmax: Array, activation: Activation, slope: float, pool: int
) -> Array:
    """delta (N, H' * pool, W' * pool, K): dout * activation' at the element that won its window, zero elsewhere."""
    _, derivative = _ACTIVATIONS[activation]
    delta: Array = dout * derivative(out, slope)
    if pool == 1:
        return delta
    photos, height, width, kernels = out.shape
    won = argmax[..., None] == np.arange(pool * pool, dtype=argmax.dtype)
    windows = np.where(won, delta[..., None], delta.dtype.type(0))
    windows = windows.reshape(photos, height, width, kernels, pool, pool).transpose(0, 1, 4, 2, 5, 3)
    return windows.reshape(photos, height * pool, width * pool, kernels)


def conv_backward_weight(
    dweight: Array, dbias: Array, dout: Array, out: Array, argmax: Array, x: Array, padding: tuple[int, int],
    activation: Activation, slope: float, pool: int, workspace: Any,
) -> None:  # fmt: skip
    """dweight[k, t, c] = sum over photos and positions p of delta[p, k] * x[p + t, c]; dbias[k] = sum of delta[p, k].

    Shapes as in ``conv_forward``. Neither the input nor the delta is flipped, and no size divides the sum.
    """
    delta = _spread_over_windows(dout, out, argmax, activation, slope, pool)
    flat = delta.reshape(-1, delta.shape[3])
    for row in range(dweight.shape[1]):
        for column in range(dweight.shape[2]):
            taps = _taps(x, (delta.shape[1], delta.shape[2]), padding, row, column)
            dweight[:, row, column] = flat.T @ taps.reshape(-1, x.shape[3])
    dbias[...] = flat.sum(axis=0)


def conv_backward_input(
    dx: Array, dout: Array, out: Array, argmax: Array, weight: Array, padding: tuple[int, int], activation: Activation,
    slope: float, pool: int, workspace: Any,
) -> None:  # fmt: skip
    """dx[q, c] = sum over kernels k and taps t of delta[q - t, k] * weight[k, t, c]. Shapes as in ``conv_forward``.

    The sum over all kernels is what makes stacked layers work: a kernel spans all maps of the layer below, so each of
    these maps gets its share of the error from every kernel.
    """
    delta = _spread_over_windows(dout, out, argmax, activation, slope, pool)
    height, width = delta.shape[1], delta.shape[2]
    dx[...] = 0
    for row in range(weight.shape[1]):
        for column in range(weight.shape[2]):
            top, left = row - padding[0], column - padding[1]
            first_y, last_y = max(0, -top), min(height, dx.shape[1] - top)
            first_x, last_x = max(0, -left), min(width, dx.shape[2] - left)
            if first_y < last_y and first_x < last_x:
                dx[:, first_y + top : last_y + top, first_x + left : last_x + left] += (
                    delta[:, first_y:last_y, first_x:last_x] @ weight[:, row, column]
                )


def _strided_frame(weight: Array, out: Array, stride: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the area that the windows of all outputs cover."""
    rows, columns = ((out.shape[1 + i] - 1) * stride[i] + weight.shape[1 + i] for i in (0, 1))
    return rows, columns


def _strided_taps(frame: Array, out: Array, stride: tuple[int, int], row: int, column: int) -> Array:
    """A view of frame[p * stride + t] for every position p of ``out`` and the one tap t = (row, column)."""
    last_row, last_column = (row + (out.shape[1] - 1) * stride[0], column + (out.shape[2] - 1) * stride[1])
    return frame[:, row : last_row + 1 : stride[0], column : last_column + 1 : stride[1]]


def strided_conv_forward(
    out: Array, x: Array, weight: Array, bias: Array, stride: tuple[int, int], padding: tuple[int, int],
    activation: Activation, slope: float, workspace: Any,
) -> None:  # fmt: skip
    """Convolution, bias and activation, at every ``stride``-th position only.

    out[p, k] = activation(bias[k] + sum over taps t and maps c of weight[k, t, c] * x[p * stride + t - padding, c])

    stride  from one output's window to the next one's: (rows, columns)

    The rest as in ``conv_forward``, without pool. The shape of out sets the number of windows; where one reaches over
    the edges of x, there are zeros.
    """
    assert activation in FUSED_ACTIVATIONS
    frame = _taps(x, _strided_frame(weight, out, stride), padding, 0, 0)
    z = np.zeros_like(out)
    for row in range(weight.shape[1]):
        for column in range(weight.shape[2]):
            z += _strided_taps(frame, out, stride, row, column) @ weight[:, row, column].T
    activation_forward(out, z + bias, activation, slope, workspace)


def strided_conv_backward_weight(
    dweight: Array, dbias: Array, dout: Array, out: Array, x: Array, stride: tuple[int, int], padding: tuple[int, int],
    activation: Activation, slope: float, workspace: Any,
) -> None:  # fmt: skip
    """dweight[k, t, c] = sum over photos and positions p of delta[p, k] * x[p * stride + t - padding, c];
    dbias[k] = sum of delta[p, k]. Shapes as in ``strided_conv_forward``."""
    _, derivative = _ACTIVATIONS[activation]
    delta = dout * derivative(out, slope)
    flat = delta.reshape(-1, delta.shape[3])
    frame = _taps(x, _strided_frame(dweight, out, stride), padding, 0, 0)
    for row in range(dweight.shape[1]):
        for column in range(dweight.shape[2]):
            taps = _strided_taps(frame, out, stride, row, column)
            dweight[:, row, column] = flat.T @ taps.reshape(-1, x.shape[3])
    dbias[...] = flat.sum(axis=0)


def strided_conv_backward_input(
    dx: Array, dout: Array, out: Array, weight: Array, stride: tuple[int, int], padding: tuple[int, int],
    activation: Activation, slope: float, workspace: Any,
) -> None:  # fmt: skip
    """dx[q, c] = sum over kernels k, taps t and positions p of delta[p, k] * weight[k, t, c], over the p and t for
    which p * stride + t - padding = q. Shapes as in ``strided_conv_forward``.

    A step larger than the kernel leaves gaps between the windows, where dx is 0.
    """
    _, derivative = _ACTIVATIONS[activation]
    delta = dout * derivative(out, slope)
    frame = np.zeros((len(dx), *_strided_frame(weight, out, stride), dx.shape[3]), dx.dtype)
    for row in range(weight.shape[1]):
        for column in range(weight.shape[2]):
            _strided_taps(frame, out, stride, row, column)[...] += delta @ weight[:, row, column]
    dx[...] = _taps(frame, (dx.shape[1], dx.shape[2]), (-padding[0], -padding[1]), 0, 0)


# -------------------------------------------------------------------------------------------------------- pooling


def pool_forward(
    out: Array, argmax: Array, x: Array, kind: PoolKind, size: tuple[int, int], stride: tuple[int, int], workspace: Any,
) -> None:  # fmt: skip
    """The largest or the average element of each window.

    out (N, H', W', C); x (N, H, W, C); window (i, j) starts at row i * stride[0], column j * stride[1], inside of x.
    The shape of out sets the number of windows. Where a window reaches over the edge, its part inside x counts.
    argmax (N, H', W', C) int32: row * W + column in x of the largest element, the first in row order; not written for
    "average". A forward pass that needs none passes one for no photos, (0, H', W', C).
    """
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            top, left = i * stride[0], j * stride[1]
            window = x[:, top : top + size[0], left : left + size[1]]
            columns = window.shape[2]
            window = window.reshape(len(x), -1, x.shape[3])
            if kind == "max":
                if len(argmax):
                    best = window.argmax(axis=1)
                    argmax[:, i, j] = (top + best // columns) * x.shape[2] + left + best % columns
                out[:, i, j] = window.max(axis=1)
            else:
                out[:, i, j] = window.mean(axis=1)


def pool_backward(
    dx: Array, dout: Array, argmax: Array, kind: PoolKind, size: tuple[int, int], stride: tuple[int, int],
    workspace: Any,
) -> None:  # fmt: skip
    """dout goes to the element that won ("max"), or in equal parts to all of the window ("average"); windows add up."""
    dx[...] = 0
    photos, maps = np.ix_(np.arange(len(dx)), np.arange(dx.shape[3]))
    for i in range(dout.shape[1]):
        for j in range(dout.shape[2]):
            if kind == "max":
                won = argmax[:, i, j]
                dx[photos, won // dx.shape[2], won % dx.shape[2], maps] += dout[:, i, j]
            else:
                top, left = i * stride[0], j * stride[1]
                window = dx[:, top : top + size[0], left : left + size[1]]
                window += dout[:, None, None, i, j] / (window.shape[1] * window.shape[2])


# ------------------------------------------------------------------------------------------------ residual blocks


def add_maps_forward(
    out: Array, branch: Array, shortcut: Array, activation: Activation, slope: float, workspace: Any
) -> None:
    """out = activation(branch + shortcut), the end of a residual block (He et al. 2016, arXiv:1512.03385).

    out (N, H, W, C); branch (N, H1, W1, C1) and shortcut (N, H2, W2, C2) count as 0 beyond their last row, column and
    map, as dlib's ``add_prev`` has it; H is the larger of H1 and H2, and so on. FUSED_ACTIVATIONS only.
    """
    assert activation in FUSED_ACTIVATIONS
    total = np.zeros_like(out)
    for maps in (branch, shortcut):
        total[_corner(maps)] += maps
    activation_forward(out, total, activation, slope, workspace)


def add_maps_backward(
    dbranch: Array, dshortcut: Array, dout: Array, out: Array, activation: Activation, slope: float, workspace: Any
) -> None:
    """Both get dout * activation' at their own elements, from ``out``. Shapes as in ``add_maps_forward``."""
    _, derivative = _ACTIVATIONS[activation]
    delta = dout * derivative(out, slope)
    for dmaps in (dbranch, dshortcut):
        dmaps[...] = delta[_corner(dmaps)]


def _corner(maps: Array) -> tuple[slice, ...]:
    """Where an array lies in a larger one that begins with it."""
    return tuple(slice(side) for side in maps.shape)


# ----------------------------------------------------------------------------------------------- neurons and dense


def neuron_forward(out: Array, x: Array, weight: Array, bias: Array, workspace: Any) -> None:
    """m neurons for each map; a neuron sees the whole of its own map, and no other map.

    out[n, m, k] = bias[m, k] + sum over positions p of weight[m, p, k] * x[n, p, k]

    out (N, M, K); x (N, H, W, K); weight (M, H, W, K); bias (M, K)
    """
    out[...] = np.einsum("nhwk,mhwk->nmk", x, weight) + bias


def neuron_backward_weight(dweight: Array, dbias: Array, dout: Array, x: Array, workspace: Any) -> None:
    """dweight[m, p, k] = sum over photos of dout[n, m, k] * x[n, p, k]; dbias = sum of dout."""
    dweight[...] = np.einsum("nmk,nhwk->mhwk", dout, x)
    dbias[...] = dout.sum(axis=0)


def neuron_backward_input(dx: Array, dout: Array, weight: Array, workspace: Any) -> None:
    """dx[n, p, k] = sum over the map's neurons m of dout[n, m, k] * weight[m, p, k]."""
    dx[...] = np.einsum("nmk,mhwk->nhwk", dout, weight)


def dense_forward(out: Array, x: Array, weight: Array, bias: Array, workspace: Any) -> None:
    """out = x weight' + bias: out (N, U), x (N, I), weight (U, I), bias (U,)."""
    out[...] = x @ weight.T + bias


def dense_backward_weight(dweight: Array, dbias: Array, dout: Array, x: Array, workspace: Any) -> None:
    """dweight = dout' x, dbias = sum of dout over the batch."""
    dweight[...] = dout.T @ x
    dbias[...] = dout.sum(axis=0)


def dense_backward_input(dx: Array, dout: Array, weight: Array, workspace: Any) -> None:
    """dx = dout weight."""
    dx[...] = dout @ weight


def unit_length_forward(out: Array, x: Array, norms: Array, workspace: Any) -> None:
    """out = x / norm of each row: out, x (N, U); norms (N,) are written, each at least LEAST_LENGTH."""
    norms[...] = np.maximum(np.sqrt(np.square(x).sum(axis=1)), LEAST_LENGTH)
    out[...] = x / norms[:, None]


def unit_length_backward(dx: Array, dout: Array, out: Array, norms: Array, workspace: Any) -> None:
    """dx = (dout - out * <dout, out>) / norm: what of dout points along the row can't change a length of 1."""
    along = (dout * out).sum(axis=1, keepdims=True)
    dx[...] = (dout - out * along) / norms[:, None]


# ------------------------------------------------------------------------------------------ batch norm and dropout


def batch_norm_forward(
    out: Array, mean: Array, inverse_std: Array, running_mean: Array, running_variance: Array, x: Array, scale: Array,
    shift: Array, momentum: float, epsilon: float, workspace: Any,
) -> None:  # fmt: skip
    """Batch normalisation in training (Ioffe and Szegedy 2015), per map or unit.

    out = (x - mean) / sqrt(variance + epsilon) * scale + shift, with the batch's own mean and (biased) variance.
    running_mean and running_variance are updated in place: they move towards the batch's mean and unbiased variance by
    the share ``momentum``.

    out, x (M, C): M counts photos, or photos times positions; all others (C,). inverse_std is kept for backward.
    """
    count = len(x)
    mean[...] = x.mean(axis=0)
    variance = ((x - mean) ** 2).mean(axis=0)
    inverse_std[...] = 1 / np.sqrt(variance + x.dtype.type(epsilon))
    out[...] = (x - mean) * inverse_std * scale + shift
    running_mean += x.dtype.type(momentum) * (mean - running_mean)
    running_variance += x.dtype.type(momentum) * (variance * (count / max(count - 1, 1)) - running_variance)


def batch_norm_inference(
    out: Array, x: Array, running_mean: Array, running_variance: Array, scale: Array, shift: Array, epsilon: float,
    workspace: Any,
) -> None:  # fmt: skip
    """The same with the running statistics, so that a photo's output doesn't depend on the rest of its batch."""
    out[...] = (x - running_mean) / np.sqrt(running_variance + x.dtype.type(epsilon)) * scale + shift


def batch_norm_backward(
    dx: Array, dscale: Array, dshift: Array, dout: Array, x: Array, mean: Array, inverse_std: Array, scale: Array,
    workspace: Any,
) -> None:  # fmt: skip
    """With h = (x - mean) * inverse_std: dshift = sum dout, dscale = sum dout * h, and, since the mean and the
    variance depend on every x of the batch, dx = scale * inverse_std * (dout - dshift / M - h * dscale / M).
    """
    normalised = (x - mean) * inverse_std
    dshift[...] = dout.sum(axis=0)
    dscale[...] = (dout * normalised).sum(axis=0)
    dx[...] = scale * inverse_std * (dout - dshift / len(x) - normalised * (dscale / len(x)))


def dropout(
    out: Array, x: Array, photos: Array, rate: float, seed: int, purpose: int, step: Array, workspace: Any
) -> None:
    """Each element is zero with probability ``rate``, else x / (1 - rate) (inverted dropout, Srivastava et al. 2014).

    The function is its own backward: called with dout in the place of x it gives dx. out, x (N, F); photos (N,) are the
    photos' numbers in the data set. Element e of a photo is dropped where word e of ``random_words(seed, purpose,
    photo, step)`` lies below rate * 2**32, so a photo's mask doesn't depend on its batch.
    """
    if rate == 0:  # as in inference, which needs no random words
        out[...] = x
        return
    words = np.empty(x.shape[1], np.uint32)
    threshold = np.uint32(min(int(rate * 2**32), 2**32 - 1))
    for n in range(len(x)):
        random_words(words, seed, purpose, int(photos[n]), step, workspace)
        out[n] = np.where(words >= threshold, x[n] / x.dtype.type(1 - rate), x.dtype.type(0))


# ----------------------------------------------------------------------------------------------------------- losses


def softmax_cross_entropy(
    losses: Array, objectives: Array, probabilities: Array, dlogits: Array, logits: Array, labels: Array,
    class_weights: Array, total: Array, label_smoothing: float, workspace: Any,
) -> None:  # fmt: skip
    """Softmax and cross-entropy, with label smoothing s and class weights v.

    losses         (N,)  -log p[label]: the plain cross-entropy that is reported and compared
    objectives     (N,)  each photo's share of the objective, which is their sum, the weighted mean
                         sum_n ((1 - s) v[label] * -log p[label] + s / U * sum_u v[u] * -log p[u]) / total
    probabilities  (N, U), dlogits (N, U) the derivative of that sum by the logits (N, U)
    labels         (N,) int32; class_weights (U,)
    total          (1,) sum_n v[label] over the whole batch, not only this micro-batch: ``label_weight``

    The same definition as torch.nn.CrossEntropyLoss(weight, label_smoothing). With q the smoothed and weighted target
    of a photo, the derivative of -sum_u q[u] log p[u] is p * sum(q) - q.
    """
    units = logits.shape[1]
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    probabilities[...] = np.exp(log_p)
    rows = np.arange(len(labels))
    losses[...] = -log_p[rows, labels]
    target = np.broadcast_to(class_weights * (label_smoothing / units), log_p.shape).astype(log_p.dtype)
    target[rows, labels] += class_weights[labels] * (1 - label_smoothing)
    target /= total[0]
    objectives[...] = -(target * log_p).sum(axis=1)
    dlogits[...] = probabilities * target.sum(axis=1, keepdims=True) - target


def mean_squared_error(
    losses: Array, objectives: Array, dout: Array, out: Array, target: Array, total: Array, workspace: Any
) -> None:
    """losses (N,) = mean over the outputs of (out - target)^2; objectives = losses / total; dout the derivative of
    their sum. out, target, dout (N, U); total (1,): number of photos in the whole batch, not only this micro-batch."""
    error = out - target
    losses[...] = (error * error).mean(axis=1)
    objectives[...] = losses / total[0]
    dout[...] = error * (2 / (error.shape[1] * total[0]))


def label_weight(total: Array, labels: Array, class_weights: Array, workspace: Any) -> None:
    """total (1,) = sum of class_weights[label] over labels (N,): what a batch's loss is divided by."""
    total[0] = class_weights[labels].sum()


def one_hot(out: Array, labels: Array, workspace: Any) -> None:
    """out (N, U) = 1 at each photo's label, 0 elsewhere; labels (N,) int32."""
    out[...] = labels[:, None] == np.arange(out.shape[1])


def add_to_totals(totals: Array, losses: Array, outputs: Array, labels: Array, workspace: Any) -> None:
    """totals (3,) += (sum of losses, photos whose largest output is their label's), and totals[2] = the worst loss.

    outputs (N, U): of equal outputs the first counts as the largest. Accumulates over the steps of an epoch; a NaN
    among the losses makes their sum and the worst loss NaN.
    """
    for n in range(len(losses)):
        totals[0] += losses[n]
        totals[1] += outputs[n].argmax() == labels[n]
        if not losses[n] <= totals[2]:
            totals[2] = losses[n]


def accumulate(total: Array, x: Array, first: bool, workspace: Any) -> None:
    """total += x, or total = x if ``first``; both (P,)."""
    total[...] = x if first else total + x


# ---------------------------------------------------------------------------------------------------------- batches


def take_batch(
    photos: Array, rows: Array, labels: Array, learning_rate: Array, step: Array, cursor: Array, order_photos: Array,
    order_rows: Array, order_labels: Array, starts: Array, rates: Array, workspace: Any,
) -> None:  # fmt: skip
    """Take the next batch of an epoch, without the host.

    photos, rows, labels       (N,) int32: the batch's part of order_photos, order_rows, order_labels (photos,)
    learning_rate (1,), step (1,) int32: the step's rate, and the updates made so far
    cursor        (2,) int32   the batch of the epoch and the step that come next; both are counted up
    starts, rates (batches,)   int32 the first photo of each batch, and its learning rate
    """
    batch = int(cursor[0])
    start = int(starts[batch])
    for out, order in ((photos, order_photos), (rows, order_rows), (labels, order_labels)):
        out[...] = order[start : start + len(out)]
    learning_rate[0] = rates[batch]
    step[0] = cursor[1]
    cursor += 1


# ------------------------------------------------------------------------------------------------------ optimizers


def optimizer_update(
    weight: Array, state: Sequence[Array], gradient: Array, learning_rate: Array, step: Array, rule: str,
    scalars: Mapping[str, float], decaying: int, workspace: Any,
) -> None:  # fmt: skip
    """One step of an optimizer, in place.

    weight, gradient (P,); ``state``: the rule's own arrays (P,), which are the parameters between weight and g of
    its function below; step (1,): updates made so far; ``scalars``: the rule's settings by name, and its weight decay.

    Weight decay pulls the first ``decaying`` weights towards 0: as ``weight_decay`` by weight_decay * weight in the
    gradient, which is the derivative of weight_decay / 2 * the sum of squares (L2), or as ``decoupled_weight_decay`` by
    weight -= learning_rate * decoupled_weight_decay * weight before all else (Loshchilov and Hutter 2019).
    """
    kind, rate = weight.dtype.type, learning_rate[0]
    settings = dict(scalars)
    decay = kind(settings.pop("weight_decay", 0.0))
    decoupled_decay = kind(settings.pop("decoupled_weight_decay", 0.0))
    g = gradient.copy()
    g[:decaying] += decay * weight[:decaying]
    weight[:decaying] -= rate * decoupled_decay * weight[:decaying]
    _UPDATE_RULES[f"_{rule}"](weight, *state, g, rate, int(step[0]) + 1, **settings)


def _sgd(weight: Array, g: Array, rate: Any, t: int) -> None:
    """Stochastic gradient descent (Robbins and Monro 1951). As torch.optim.SGD."""
    weight -= rate * g


def _momentum(weight: Array, velocity: Array, g: Array, rate: Any, t: int, *, momentum: float) -> None:
    """Stochastic gradient descent with momentum (Polyak 1964). As torch.optim.SGD."""
    velocity[...] = weight.dtype.type(momentum) * velocity + g
    weight -= rate * velocity


def _nesterov(weight: Array, velocity: Array, g: Array, rate: Any, t: int, *, momentum: float) -> None:
    """Stochastic gradient descent with Nesterov's momentum (Nesterov 1983). As torch.optim.SGD with ``nesterov``."""
    velocity[...] = weight.dtype.type(momentum) * velocity + g
    weight -= rate * (g + weight.dtype.type(momentum) * velocity)


def _rmsprop(weight: Array, second_moment: Array, g: Array, rate: Any, t: int, *, beta2: float, epsilon: float) -> None:
    """RMSprop (Tieleman and Hinton 2012). As torch.optim.RMSprop, not centred and without momentum."""
    kind = weight.dtype.type
    second_moment[...] = kind(beta2) * second_moment + kind(1 - beta2) * g * g
    weight -= rate * g / (np.sqrt(second_moment) + kind(epsilon))


def _adagrad(
    weight: Array, squares: Array, g: Array, rate: Any, t: int, *, initial_squares: float, epsilon: float
) -> None:
    """Adagrad (Duchi, Hazan and Singer 2011). As torch.optim.Adagrad with this initial accumulator value, and no decay
    of the rate."""
    kind = weight.dtype.type
    squares += g * g
    weight -= rate * g / (np.sqrt(kind(initial_squares) + squares) + kind(epsilon))


def _adam(
    weight: Array, mean: Array, second_moment: Array, g: Array, rate: Any, t: int, *, beta1: float, beta2: float,
    epsilon: float,
) -> None:  # fmt: skip
    """Adam (Kingma and Ba 2015): bias-corrected moving averages of g and of its square. As torch.optim.Adam, and with
    decoupled weight decay as torch.optim.AdamW."""
    kind = weight.dtype.type
    mean += kind(1 - beta1) * (g - mean)
    second_moment[...] = kind(beta2) * second_moment + kind(1 - beta2) * g * g
    corrected = np.sqrt(second_moment / kind(1 - beta2**t)) + kind(epsilon)
    weight -= rate / kind(1 - beta1**t) * mean / corrected


def _lion(weight: Array, mean: Array, g: Array, rate: Any, t: int, *, beta1: float, beta2: float) -> None:
    """Lion (Chen et al. 2023, algorithm 2). The sign of 0 is 0."""
    kind = weight.dtype.type
    weight -= rate * np.sign(kind(beta1) * mean + kind(1 - beta1) * g)
    mean[...] = kind(beta2) * mean + kind(1 - beta2) * g


_UPDATE_RULES: dict[str, Callable[..., None]] = {
    function.__name__: function for function in (_sgd, _momentum, _nesterov, _rmsprop, _adagrad, _adam, _lion)
}


def clip_gradient(out: Array, gradient: Array, limit: float, workspace: Any) -> None:
    """out = gradient * min(1, limit / (|gradient| + 1e-6)), where |gradient| is the 2-norm; both (P,).

    Clipping by norm: the direction is kept (Pascanu, Mikolov and Bengio 2013). As torch.nn.utils.clip_grad_norm_. A NaN
    in the gradient makes all of ``out`` NaN.
    """
    norm = np.sqrt((gradient * gradient).sum())
    out[...] = gradient * np.minimum(gradient.dtype.type(1), limit / (norm + gradient.dtype.type(1e-6)))


def add_noise(
    out: Array, gradient: Array, counts: Array, seed: int, noise: float, noise_decay: float, step: Array,
    workspace: Any,
) -> None:  # fmt: skip
    """out = gradient + noise / (1 + t)^noise_decay * z with t = step, and z normal with mean 0 and variance 1.

    out, gradient (P,), P a multiple of 4; they may be the same array. counts (P / 4,) uint8: of elements 4 b to
    4 b + 3, the first counts[b] get noise, the others are copied.

    The four z of elements 4 b to 4 b + 3 come from the words w of philox(counter=(b, 0, step, 0), key=(seed,
    PURPOSE_NOISE)), so that they are the same on every device except for rounding (Box and Muller 1958): with
    u = ((w0 >> 8) + 1) * 2^-24 in (0, 1] and v = (w1 >> 8) * 2^-24 in [0, 1), the first two are sqrt(-2 log u) times
    cos(2 pi v) and sin(2 pi v); the others are made of w2 and w3 likewise.
    """
    kind = out.dtype.type
    t = int(step[0])
    words = philox((np.arange(len(counts), dtype=np.uint64), 0, t, 0), (seed, PURPOSE_NOISE))
    z = np.empty((len(counts), 4), out.dtype)
    for first in (0, 2):
        u, v = (((words[first + i] >> 8) + 1 - i).astype(out.dtype) * kind(2.0**-24) for i in range(2))
        radius, angle = np.sqrt(-2 * np.log(u)), kind(2 * np.pi) * v
        z[:, first], z[:, first + 1] = radius * np.cos(angle), radius * np.sin(angle)
    z[np.arange(4) >= counts[:, None]] = 0
    out[...] = gradient + kind(noise / (1 + t) ** noise_decay) * z.reshape(-1)


def average_update(average: Array, weight: Array, step: Array, decay: float, workspace: Any) -> None:
    """average = d * average + (1 - d) * weight with d = min(decay, (1 + t) / (10 + t)), t = step: an exponential moving
    average that follows quickly in the first steps. Both (P,)."""
    t = int(step[0])
    d = min(decay, (1 + t) / (10 + t))
    average += average.dtype.type(1 - d) * (weight - average)


# --------------------------------------------------------------------------------------------------- random numbers


def philox(counter: tuple[Any, int, int, int], key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011): four random 32-bit words for a counter and a key.
    The counter's first word may be an array of uint64, for many counters at once.

    It is counter-based: any word can be computed directly, so random numbers don't depend on what was drawn before, on
    the batch or on the device.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def random_words(out: Array, seed: int, purpose: int, photo: int, step: Array, workspace: Any) -> None:
    """out (n,) uint32: word e is word e % 4 of philox(counter=(e // 4, photo, step, 0), key=(seed, purpose))."""
    for block in range(-(-len(out) // 4)):
        words = philox((block, photo, int(step[0]), 0), (seed, purpose))
        out[4 * block : 4 * block + 4] = words[: len(out) - 4 * block]


# ------------------------------------------------------------------------------------------------ photos to pixels


def draw_augmentation(
    parameters: Array, photos: Array, epoch: Array, seed: int, mirror: bool, shift: float, zoom: float, rotate: float,
    gamma: float, contrast: float, brightness: float, blur: float, erase: float, workspace: Any,
) -> None:  # fmt: skip
    """Draw each photo's augmentation in this epoch: parameters (N, len(AUGMENTATION)) float32, in AUGMENTATION's order.

    photos (N,) are the photos' numbers in the data set. Column by column, with u uniform in [0, 1) from word i of
    ``random_words(seed, PURPOSE_AUGMENT, photo, epoch)`` as (word >> 8) * 2**-24 and v = 2 u - 1:

    mirror u0 < 0.5; shift_y, shift_x = shift * v1, shift * v2 (of the side); zoom = 1 + zoom * v3; angle = rotate * v4
    (degrees); gamma = gamma * v5 (the exponent is e to this); contrast = 1 + contrast * v6; brightness =
    brightness * v7; blur (sigma in pixels) = 0.5 + u9 where u8 < blur, else 0; and where u10 < erase a box of
    height = 0.15 + 0.3 u11 and width = 0.15 + 0.3 u12 at erase_y = u13 * (1 - height), erase_x = u14 * (1 - width),
    else a box of height and width 0 (all in parts of the side).

    All in float32 with one rounding an operation, so that every backend draws the same bits.
    """
    f = np.float32
    words = np.empty(16, np.uint32)
    for n in range(len(photos)):
        random_words(words, seed, PURPOSE_AUGMENT, int(photos[n]), epoch, workspace)
        u = (words >> np.uint32(8)).astype(f) * f(2.0**-24)
        v = f(2) * u - f(1)
        height = f(0.15) + f(0.3) * u[11] if u[10] < f(erase) else f(0)
        width = f(0.15) + f(0.3) * u[12] if u[10] < f(erase) else f(0)
        parameters[n] = (
            f(mirror and u[0] < f(0.5)),
            f(shift) * v[1],
            f(shift) * v[2],
            f(1) + f(zoom) * v[3],
            f(rotate) * v[4],
            f(gamma) * v[5],
            f(1) + f(contrast) * v[6],
            f(brightness) * v[7],
            f(0.5) + u[9] if u[8] < f(blur) else f(0),
            u[13] * (f(1) - height),
            u[14] * (f(1) - width),
            height,
            width,
        )


def prepare_photos(
    out: Array, pixels: Array, rows: Array, parameters: Array, normalise: Normalise, workspace: Any
) -> None:
    """Crops of photos become the network's input.

    out         (N, H, W, C)      floating
    pixels      (P, H + 2 my, W + 2 mx, C) uint8: every photo with a margin of my rows and mx columns around the picture
    rows        (N,) int32        which of them
    parameters  (N, len(AUGMENTATION)) float32, from ``draw_augmentation`` or AUGMENTATION_NONE

    1. Tone: 256 values, ((v / 255)^(e^gamma) - 0.5) * contrast + 0.5 + brightness, cut to [0, 1].
    2. Warp: the output's pixel (y, x), measured from the picture's middle (columns negated if mirrored), is rotated by
       angle, divided by zoom and moved by -shift * side; there the toned photo is read, bilinearly, its border
       repeated.
    3. Blur: Gaussian of sigma = blur, nine taps, border repeated.
    4. Normalise, per photo: "none"; "standardise": (x - mean) / max(deviation, 1 / sqrt(H W C));
       "local_contrast": d = x - G(x), then d / (max(r, mean(r) / 2) + 4 / 255) cut to [-4, 4], with r = sqrt(G(d^2)),
       per map; G is a Gaussian of sigma 0.06 of the shorter side, border repeated.
    5. Erase: the box is filled with 0, from row round(erase_y * H) on, round(height * H) rows; columns likewise.
    """
    kind = out.dtype.type
    height, width = out.shape[1:3]
    column = {name: i for i, name in enumerate(AUGMENTATION)}
    grid_y, grid_x = np.meshgrid(np.arange(height, dtype=out.dtype), np.arange(width, dtype=out.dtype), indexing="ij")
    for n in range(len(out)):
        p = {name: kind(parameters[n, i]) for name, i in column.items()}
        photo = pixels[rows[n]]
        tone = (np.arange(256, dtype=out.dtype) / 255) ** np.exp(p["gamma"])
        tone = np.clip((tone - kind(0.5)) * p["contrast"] + kind(0.5) + p["brightness"], 0, 1)

        y, x = grid_y - kind((height - 1) / 2), grid_x - kind((width - 1) / 2)
        if p["mirror"]:
            x = -x
        angle = np.deg2rad(p["angle"])
        cosine, sine = np.cos(angle) / p["zoom"], np.sin(angle) / p["zoom"]
        source_y = cosine * y - sine * x - p["shift_y"] * height + kind((photo.shape[0] - 1) / 2)
        source_x = sine * y + cosine * x - p["shift_x"] * width + kind((photo.shape[1] - 1) / 2)
        picture = _bilinear(tone[photo], source_y, source_x)

        if p["blur"] > 0:
            picture = _blur(picture, gaussian_weights(float(p["blur"]), 4).astype(out.dtype))
        if normalise == "standardise":
            centred = picture - picture.mean()
            picture = centred / max(np.sqrt((centred**2).mean()), kind(1 / np.sqrt(picture.size)))
        elif normalise == "local_contrast":
            weights = local_contrast_weights(height, width).astype(out.dtype)
            d = picture - _blur(picture, weights)
            r = np.sqrt(_blur(d * d, weights))
            picture = np.clip(d / (np.maximum(r, r.mean(axis=(0, 1)) / 2) + kind(4 / 255)), -4, 4)

        top, left = int(np.rint(p["erase_y"] * height)), int(np.rint(p["erase_x"] * width))
        bottom, right = top + int(np.rint(p["erase_height"] * height)), left + int(np.rint(p["erase_width"] * width))
        picture[top:bottom, left:right] = 0
        out[n] = picture


def _bilinear(picture: Array, y: Array, x: Array) -> Array:
    y, x = np.clip(y, 0, picture.shape[0] - 1), np.clip(x, 0, picture.shape[1] - 1)
    top, left = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    bottom, right = np.minimum(top + 1, picture.shape[0] - 1), np.minimum(left + 1, picture.shape[1] - 1)
    down, along = (y - top)[..., None], (x - left)[..., None]
    upper = picture[top, left] * (1 - along) + picture[top, right] * along
    lower = picture[bottom, left] * (1 - along) + picture[bottom, right] * along
    return np.asarray(upper * (1 - down) + lower * down)


def _blur(picture: Array, weights: Array) -> Array:
    """Convolve rows and columns with symmetric weights of odd length, the border repeated."""
    radius = len(weights) // 2
    for axis in (0, 1):
        widths = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(picture, widths, mode="edge")
        picture = sum(w * np.take(padded, np.arange(picture.shape[axis]) + i, axis) for i, w in enumerate(weights))
    return picture
