"""pool_forward and pool_backward."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from contract.cases.numbers import integers, random, times
from facecnn.arrays import Array
from facecnn.kernels import reference
from facecnn.kernels.cases import Case, Out, Size
from facecnn.kernels.protocol import PoolKind
from facecnn.network.layers import Pool
from facecnn.network.layers.pool import Edges

KINDS: tuple[PoolKind, ...] = ("max", "average")
EDGES: tuple[Edges, ...] = ("drop", "keep")


def _pool(
    name: str, x: Array, kind: PoolKind, window: tuple[int, int], stride: tuple[int, int], edges: Edges = "drop",
    size: Size = "tiny",
) -> Iterator[Case]:  # fmt: skip
    layer = Pool(size=window, stride=stride, edges=edges)
    shape = (len(x), *layer.output_shape(x.shape[1:]))
    argmax = np.zeros(shape, np.int32)
    reference.pool_forward(np.zeros(shape), argmax, x, kind, window, stride, reference.Workspace())
    # Without a largest element there is no argmax: it stays as it is.
    won = Out(shape, np.int32) if kind == "max" else argmax
    name = f"{kind}, {name}"
    yield Case("pool_forward", name, (Out(shape), won, x, kind, window, stride), size)
    if kind == "max":
        unused = Out((0, *shape[1:]), np.int32)
        yield Case("pool_forward", f"{name}, unused argmax", (Out(shape), unused, x, kind, window, stride), size)
    yield Case("pool_backward", name, (Out(x.shape), random(*shape, seed=1), argmax, kind, window, stride), size)


def _with_nan(x: Array) -> Array:
    x[0, 1, 1:3] = np.nan
    return x


# (photos, height, width, maps), window, stride
_USUAL = [
    ((1, 1, 1, 1), (1, 1), (1, 1)),
    ((2, 7, 6, 3), (2, 2), (2, 2)),
    ((2, 7, 9, 8), (3, 3), (2, 2)),
    ((1, 9, 8, 33), (2, 3), (4, 3)),
    ((3, 5, 4, 2), (5, 4), (5, 4)),
    ((2, 4, 4, 16), (4, 4), (4, 4)),
    *(
        ((2, 11, 12, 3), window, stride)
        for window, stride in [
            ((2, 2), (2, 2)), ((3, 3), (2, 2)), ((2, 3), (4, 1)), ((11, 12), (11, 12)), ((4, 5), (5, 6)),
        ]
    ),
]  # fmt: skip


def _usual() -> Iterator[Case]:
    for shape, window, stride in _USUAL:
        for kind in KINDS:
            for edges in EDGES:
                name = f"{times(*window)} every {times(*stride)} of {times(*shape)}, edges {edges}"
                ties = integers(*shape, low=0, high=2)
                yield from _pool(name, random(*shape), kind, window, stride, edges, "usual")
                yield from _pool(f"{name}, ties", ties, kind, window, stride, edges, "usual")


def _large() -> Iterator[Case]:
    window = ("max", (3, 3), (2, 2))
    out, x = (23, 6, 6, 3), random(23, 13, 13, 3)
    yield Case("pool_forward", "large", (Out(out), Out(out, np.int32), x, *window), "large")
    none, average = np.zeros(out, np.int32), ("average", (3, 3), (2, 2))
    yield Case("pool_forward", "large, unused argmax", (Out(out), Out((0, 6, 6, 3), np.int32), x, *window), "large")
    yield Case("pool_backward", "large", (Out(x.shape), random(*out), none, *average), "large")
    over, none = (23, 7, 6, 3), np.zeros((23, 7, 6, 3), np.int32)
    arguments = (Out((23, 13, 12, 3)), random(*over), none, "average", (2, 3), (2, 2))
    yield Case("pool_backward", "large, over the edges", arguments, "large")


CASES = [
    *_pool("one element", random(1, 1, 1, 1), "max", (1, 1), (1, 1)),
    *_pool("ties", integers(2, 7, 6, 3, low=0, high=2), "max", (2, 2), (2, 2)),
    *_pool("overlapping", random(2, 7, 9, 2), "max", (3, 3), (2, 1)),
    *_pool("not a number", _with_nan(random(1, 4, 4, 2)), "max", (2, 3), (1, 1)),
    *_pool("with gaps", random(1, 9, 8, 5), "max", (2, 3), (4, 4)),
    *_pool("overlapping", random(2, 7, 9, 2), "average", (3, 3), (2, 1)),
    *_pool("with gaps", random(1, 9, 8, 3), "average", (2, 3), (4, 4)),
    *_pool("over the edges", random(2, 8, 7, 2), "max", (3, 3), (2, 2), "keep"),
    *_pool("over the edges", random(2, 8, 9, 2), "average", (3, 4), (2, 3), "keep"),
    *_pool("over the edges, with gaps", random(1, 9, 8, 3), "average", (2, 3), (4, 4), "keep"),
    *_pool("not a number, over the edges", _with_nan(random(1, 2, 3, 2)), "max", (2, 2), (2, 2), "keep"),
    *_pool("the whole photo", random(3, 5, 4, 2), "average", (5, 4), (5, 4)),
    *_usual(),
    *_large(),
]
