"""Dense layers, neurons and batch norm.

In the simulator a block is 2 x 2 threads with up to 2 x 2 outputs each and slabs of 4 (dense), or 8 threads on tiles of
up to 4 maps or columns, and sums are cut into at most 3 parts; so these small shapes have whole and partly filled tiles
and several blocks, slabs, parts and turns of a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from contract.harness import Inout, Out, random


def _dense(photos: int, inputs: int, units: int) -> dict[str, tuple[Any, ...]]:
    x, weight, bias = random(photos, inputs), random(units, inputs), random(units)
    dout = random(photos, units, seed=1)
    what = f"{photos} x {inputs} -> {units}"
    return {
        f"dense_forward, {what}": (Out((photos, units)), x, weight, bias),
        f"dense_backward_weight, {what}": (Out(weight.shape), Out(bias.shape), dout, x),
        f"dense_backward_input, {what}": (Out(x.shape), dout, weight),
    }


def _neuron(shape: tuple[int, int, int, int], neurons: int) -> dict[str, tuple[Any, ...]]:
    x, weight, bias = random(*shape), random(neurons, *shape[1:]), random(neurons, shape[3])
    units = (shape[0], neurons, shape[3])
    dout = random(*units, seed=1)
    what = f"{neurons} on {shape}"
    return {
        f"neuron_forward, {what}": (Out(units), x, weight, bias),
        f"neuron_backward_weight, {what}": (Out(weight.shape), Out(bias.shape), dout, x),
        f"neuron_backward_input, {what}": (Out(shape), dout, weight),
    }


def _batch_norm(rows: int, columns: int, mean: float = 3, epsilon: float = 1e-3) -> dict[str, tuple[Any, ...]]:
    x = (2 * random(rows, columns) + mean).astype(np.float32).astype(np.float64)
    scale, shift, running_mean, running_variance = (random(columns, seed=seed) for seed in range(1, 5))
    running_variance = np.abs(running_variance) + 0.5
    batch_mean = x.mean(axis=0).astype(np.float32).astype(np.float64)
    inverse = (1 / np.sqrt(x.var(axis=0) + epsilon)).astype(np.float32).astype(np.float64)
    one = Out((columns,))
    what = f"{rows} x {columns} around {mean:g}"
    return {
        f"batch_norm_forward, {what}": (
            Out(x.shape), one, one, Inout(running_mean), Inout(running_variance), x, scale, shift, 0.25, epsilon,
        ),
        f"batch_norm_inference, {what}": (Out(x.shape), x, running_mean, running_variance, scale, shift, epsilon),
        f"batch_norm_backward, {what}": (
            Out(x.shape), one, one, random(*x.shape, seed=9), x, batch_mean, inverse, scale,
        ),
    }  # fmt: skip


def _with_nan(arguments: tuple[Any, ...], index: int) -> tuple[Any, ...]:
    """The same with a NaN in the first element of an argument."""
    array = arguments[index].copy()
    array.reshape(-1)[0] = np.nan
    return (*arguments[:index], array, *arguments[index + 1 :])


CASES: dict[str, tuple[Any, ...]] = {
    **_dense(1, 1, 1),
    **_dense(2, 4, 2),
    **_dense(5, 13, 3),
    **_dense(3, 30, 6),
    **_dense(6, 9, 9),
    "dense_forward, NaN": _with_nan(_dense(3, 13, 3)["dense_forward, 3 x 13 -> 3"], 1),
    "dense_backward_weight, NaN": _with_nan(_dense(3, 5, 3)["dense_backward_weight, 3 x 5 -> 3"], 2),
    "dense_backward_input, NaN": _with_nan(_dense(3, 5, 3)["dense_backward_input, 3 x 5 -> 3"], 1),
    **_neuron((1, 1, 1, 1), 1),
    **_neuron((3, 3, 5, 1), 1),
    **_neuron((2, 5, 3, 3), 2),
    **_neuron((5, 4, 3, 2), 3),
    **_neuron((3, 3, 2, 6), 5),
    "neuron_forward, NaN": _with_nan(_neuron((2, 2, 2, 3), 1)["neuron_forward, 1 on (2, 2, 2, 3)"], 1),
    "neuron_backward_weight, NaN": _with_nan(_neuron((2, 2, 2, 3), 1)["neuron_backward_weight, 1 on (2, 2, 2, 3)"], 2),
    "neuron_backward_input, NaN": _with_nan(_neuron((2, 2, 2, 3), 1)["neuron_backward_input, 1 on (2, 2, 2, 3)"], 1),
    **_batch_norm(1, 1),
    **_batch_norm(2, 3, epsilon=0.1),
    **_batch_norm(3, 10),
    **_batch_norm(61, 1),
    **_batch_norm(23, 3),
    **_batch_norm(19, 6),
    **_batch_norm(40, 2, mean=3000),
    "batch_norm_forward, NaN": _with_nan(_batch_norm(9, 3)["batch_norm_forward, 9 x 3 around 3"], 5),
    "batch_norm_inference, NaN": _with_nan(_batch_norm(9, 3)["batch_norm_inference, 9 x 3 around 3"], 1),
    "batch_norm_backward, NaN": _with_nan(_batch_norm(9, 3)["batch_norm_backward, 9 x 3 around 3"], 3),
}
