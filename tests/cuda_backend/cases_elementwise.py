"""Activations, pooling and dropout.

In the simulator a block is 8 threads on tiles of up to 4 columns, and rows are cut into at most 3 chunks.
"""

from typing import Any, get_args

import numpy as np

from contract.harness import Out, integers, random
from facecnn.kernels import reference
from facecnn.kernels.protocol import PURPOSE_DROPOUT, Activation
from facecnn.network.layers import Pool

EXTREME = np.array([[-1e30, -200, -0.0, 0.0, 200, 1e30, np.nan]])
PHOTOS = np.array([0, 3, 2**31 - 1], np.int32)
STEP = np.array([7], np.int32)


def _activation(activation: Activation, *shape: int) -> dict[str, tuple[Any, ...]]:
    x, dout = 3 * random(*shape), random(*shape, seed=1)
    out = np.zeros_like(x)
    reference.activation_forward(out, x, activation, 0.1, reference.Workspace())
    return {
        f"activation_forward, {activation}": (Out(shape), x, activation, 0.1),
        f"activation_forward, {activation} of extreme numbers": (Out(EXTREME.shape), EXTREME, activation, 0.1),
        f"activation_backward, {activation}": (
            Out(shape), dout, x, out.astype(np.float32).astype(np.float64), activation, 0.1,
        ),
    }  # fmt: skip


def _prelu(rows: int, columns: int) -> dict[str, tuple[Any, ...]]:
    """With slopes above and below 0."""
    x, slope, dout = random(rows, columns), random(columns), random(rows, columns, seed=1)
    what = f"{rows} x {columns}"
    return {
        f"prelu_forward, {what}": (Out(x.shape), x, slope),
        f"prelu_backward, {what}": (Out(x.shape), Out(slope.shape), dout, x, slope),
    }


def _pool(
    what: str, x: Any, kind: Any, size: tuple[int, int], stride: tuple[int, int], edges: Any = "drop"
) -> dict[str, tuple[Any, ...]]:
    layer = Pool(size=size, stride=stride, edges=edges)
    shape = (len(x), *layer.output_shape(x.shape[1:]))
    out, argmax = np.zeros(shape), np.zeros(shape, np.int32)
    reference.pool_forward(out, argmax, x, kind, size, stride, reference.Workspace())
    won = Out(shape, np.int32) if kind == "max" else argmax
    return {
        f"pool_forward, {kind}, {what}": (Out(shape), won, x, kind, size, stride),
        f"pool_backward, {kind}, {what}": (Out(x.shape), random(*shape, seed=1), argmax, kind, size, stride),
    }


def _with_nan(x: Any) -> Any:
    x[0, 1, 1:3] = np.nan
    return x


CASES: dict[str, tuple[Any, ...]] = {
    **_activation("identity", 1),
    **_activation("relu", 2, 3, 3, 2),
    **_activation("leaky_relu", 7, 9),
    **_activation("sigmoid", 30),
    **_activation("tanh", 30),
    **_activation("gelu", 5, 11),
    **_prelu(1, 1),
    **_prelu(3, 10),
    **_prelu(61, 1),
    **_prelu(40, 3),
    **_prelu(19, 6),
    "prelu_forward, extreme numbers": (Out(EXTREME.shape), EXTREME, random(EXTREME.size)),
    "prelu_backward, NaN": (Out((1, 7)), Out((7,)), random(1, 7), EXTREME, random(7)),
    **_pool("one element", random(1, 1, 1, 1), "max", (1, 1), (1, 1)),
    **_pool("ties", integers(2, 7, 6, 3, low=0, high=2), "max", (2, 2), (2, 2)),
    **_pool("overlapping", random(2, 7, 9, 2), "max", (3, 3), (2, 1)),
    **_pool("not a number", _with_nan(random(1, 4, 4, 2)), "max", (2, 3), (1, 1)),
    **_pool("with gaps", random(1, 9, 8, 5), "max", (2, 3), (4, 4)),
    **_pool("overlapping", random(2, 7, 9, 2), "average", (3, 3), (2, 1)),
    **_pool("with gaps", random(1, 9, 8, 3), "average", (2, 3), (4, 4)),
    **_pool("over the edges", random(2, 8, 7, 2), "max", (3, 3), (2, 2), "keep"),
    **_pool("over the edges", random(2, 8, 9, 2), "average", (3, 4), (2, 3), "keep"),
    **_pool("over the edges, with gaps", random(1, 9, 8, 3), "average", (2, 3), (4, 4), "keep"),
    **_pool("not a number, over the edges", _with_nan(random(1, 2, 3, 2)), "max", (2, 2), (2, 2), "keep"),
    **_pool("the whole photo", random(3, 5, 4, 2), "average", (5, 4), (5, 4)),
    "dropout, one feature": (Out((3, 1)), random(3, 1), PHOTOS, 0.2, 2**32 - 1, PURPOSE_DROPOUT, STEP),
    "dropout, several blocks a photo": (Out((3, 71)), random(3, 71), PHOTOS, 0.5, 11, PURPOSE_DROPOUT + 3, STEP),
    "dropout, nothing": (Out((3, 7)), random(3, 7), PHOTOS, 0.0, 11, PURPOSE_DROPOUT, STEP),
    "dropout, nearly all": (Out((3, 64)), random(3, 64), PHOTOS, 0.99, 11, PURPOSE_DROPOUT, STEP),
}

assert {name.split(",")[1].split()[0] for name in CASES if name.startswith("activation")} == set(get_args(Activation))
