"""Dense layers, neurons and batch norm.

In CUDA's simulator a block is 2 x 2 threads with up to 2 x 2 outputs each and slabs of 4 (dense), or 8 threads on tiles
of up to 4 maps or columns, and sums are cut into at most 3 parts; so the tiny shapes have whole and partly filled tiles
and several blocks, slabs, parts and turns of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from contract.cases.numbers import as_float32, random, times
from facecnn.kernels.cases import Case, Inout, Out, Size


def _dense(photos: int, inputs: int, units: int, size: Size = "tiny") -> Iterator[Case]:
    x, weight, bias = random(photos, inputs), random(units, inputs), random(units)
    dout = random(photos, units, seed=1)
    name = f"{times(photos, inputs)} -> {units}"
    yield Case("dense_forward", name, (Out((photos, units)), x, weight, bias), size)
    yield Case("dense_backward_weight", name, (Out(weight.shape), Out(bias.shape), dout, x), size)
    yield Case("dense_backward_input", name, (Out(x.shape), dout, weight), size)


def _neuron(
    shape: tuple[int, int, int, int], neurons: int, size: Size = "tiny", own_code: bool = False
) -> Iterator[Case]:
    x, weight, bias = random(*shape), random(neurons, *shape[1:]), random(neurons, shape[3])
    units = (shape[0], neurons, shape[3])
    dout = random(*units, seed=1)
    name = f"{neurons} on {shape}"
    for kernel, arguments in (
        ("neuron_forward", (Out(units), x, weight, bias)),
        ("neuron_backward_weight", (Out(weight.shape), Out(bias.shape), dout, x)),
        ("neuron_backward_input", (Out(shape), dout, weight)),
    ):
        yield Case(kernel, name, arguments, size, own_code)


def _batch_norm(
    rows: int, columns: int, mean: float = 3, epsilon: float = 1e-3, momentum: float = 0.25, size: Size = "tiny"
) -> Iterator[Case]:
    x = as_float32(2 * random(rows, columns) + mean)
    scale, shift, running_mean, running_variance = (random(columns, seed=seed) for seed in range(1, 5))
    running_variance = np.abs(running_variance) + 0.5
    batch_mean = as_float32(x.mean(axis=0))
    inverse = as_float32(1 / np.sqrt(x.var(axis=0) + epsilon))
    one, running = Out((columns,)), (Inout(running_mean), Inout(running_variance))
    name = f"{times(rows, columns)} around {mean:g}, momentum {momentum:g}"
    forward = (Out(x.shape), one, one, *running, x, scale, shift, momentum, epsilon)
    inference = (Out(x.shape), x, running_mean, running_variance, scale, shift, epsilon)
    backward = (Out(x.shape), one, one, random(*x.shape, seed=9), x, batch_mean, inverse, scale)
    tolerance = 1e-5 if size == "tiny" else 3e-5
    yield Case("batch_norm_forward", name, forward, size, tolerance=tolerance)
    yield Case("batch_norm_inference", name, inference, size)
    yield Case("batch_norm_backward", name, backward, size, tolerance=tolerance)


def _with_nan(cases: Iterator[Case]) -> Iterator[Case]:
    """The same with a NaN in the first element of what comes in."""
    place = {
        "dense_forward": 1, "dense_backward_weight": 2, "dense_backward_input": 1, "neuron_forward": 1,
        "neuron_backward_weight": 2, "neuron_backward_input": 1, "batch_norm_forward": 5, "batch_norm_inference": 1,
        "batch_norm_backward": 3,
    }  # fmt: skip
    for case in cases:
        arguments = list(case.arguments)
        array = arguments[place[case.kernel]].copy()
        array.reshape(-1)[0] = np.nan
        arguments[place[case.kernel]] = array
        yield replace(case, name=f"NaN, {case.name}", arguments=tuple(arguments))


def _usual_batch_norm() -> Iterator[Case]:
    for rows in (1, 2, 6, 3001):
        for columns in (1, 3, 16, 96):
            # A batch of two can lie arbitrarily close together: a larger epsilon keeps its deviation well conditioned.
            epsilon = 1e-5 if rows > 2 else 0.1
            yield from _batch_norm(rows, columns, epsilon=epsilon, momentum=0.1, size="usual")


def _large_batch_norm() -> Iterator[Case]:
    x, columns, one = random(9001, 5), random(5), Out((5,))
    running = Inout(columns), Inout(random(5, seed=1))
    forward = (Out(x.shape), one, one, *running, x, columns, columns, 0.1, 1e-5)
    inference = (Out(x.shape), x, columns, np.ones(5), columns, columns, 1e-5)
    backward = (Out(x.shape), one, one, x, random(9001, 5, seed=1), columns, columns, columns)
    yield Case("batch_norm_forward", "large", forward, "large", tolerance=3e-5)
    yield Case("batch_norm_inference", "large", inference, "large")
    yield Case("batch_norm_backward", "large", backward, "large", tolerance=3e-5)


CASES = [
    *_dense(1, 1, 1),
    *_dense(2, 4, 2),
    *_dense(5, 13, 3),
    *_dense(3, 30, 6),
    *_dense(6, 9, 9),
    *_with_nan(_dense(3, 13, 3)),
    *_with_nan(_dense(3, 5, 3)),
    *_dense(7, 300, 9, "usual"),
    *_dense(16, 512, 96, "usual"),
    *_dense(6, 2100, 9, "usual"),
    *_dense(61, 96, 2, "usual"),
    *_dense(23, 2100, 50, "large"),
    *_neuron((1, 1, 1, 1), 1),
    *_neuron((3, 3, 5, 1), 1),
    *_neuron((2, 5, 3, 3), 2),
    *_neuron((5, 4, 3, 2), 3),
    *_neuron((3, 3, 2, 6), 5),
    *_with_nan(_neuron((2, 2, 2, 3), 1)),
    *_neuron((1, 1, 1, 1), 8, "usual"),
    *_neuron((3, 5, 4, 6), 2, "usual"),
    *(
        case
        for shape in [(2, 5, 7, 3), (23, 9, 4, 8), (2, 1, 3, 100)]
        for neurons in (1, 8)
        for case in _neuron(shape, neurons, "usual")
    ),
    *_neuron((3, 6, 6, 64), 1, "usual", own_code=True),
    *_neuron((3, 6, 6, 64), 8, "usual", own_code=True),
    *_neuron((23, 7, 9, 3), 8, "large"),
    *_batch_norm(1, 1),
    *_batch_norm(2, 3, epsilon=0.1),
    *_batch_norm(3, 10),
    *_batch_norm(61, 1),
    *_batch_norm(23, 3),
    *_batch_norm(19, 6),
    *_batch_norm(40, 2, mean=3000),
    *_with_nan(_batch_norm(9, 3)),
    *_usual_batch_norm(),
    *_batch_norm(50, 6, epsilon=1e-5, momentum=0.1, size="usual"),
    *_large_batch_norm(),
]
