"""conv_forward, conv_backward_weight and conv_backward_input.

On the CPU maps, kernels, pool, activation, and what a row's length says of its tiles are compiled into the code, which
takes seconds. So there are several sizes to each of these settings, forward, backward and thread cases share them, and
a case that shares its code with none is ``own_code``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from contract.cases.numbers import integers, random, times
from facecnn.arrays import Array
from facecnn.kernels import reference
from facecnn.kernels.cases import Case, Out, Size
from facecnn.kernels.protocol import Activation

SLOPE = 0.1
KERNELS = ("conv_forward", "conv_backward_weight", "conv_backward_input")

Padding: TypeAlias = Literal["same", "valid"] | tuple[int, int]
"""A tuple: so many rows above and columns to the left, and as many below and to the right as keep the map's size."""


@dataclass(frozen=True)
class Conv:
    """What a convolution is made for."""

    size: tuple[int, int, int]
    """Photos, height, width."""
    maps: tuple[int, int]
    """In and out."""
    kernel: tuple[int, int]
    """Rows, columns."""
    pool: int
    padding: Padding
    activation: Activation

    @property
    def above(self) -> tuple[int, int]:
        """The padding above and to the left."""
        if self.padding == "same":
            return (self.kernel[0] - 1) // 2, (self.kernel[1] - 1) // 2
        return (0, 0) if self.padding == "valid" else self.padding

    @property
    def shape(self) -> tuple[int, ...]:
        """The output's."""
        photos, height, width = self.size
        if self.padding == "valid":
            height, width = height - self.kernel[0] + 1, width - self.kernel[1] + 1
        return photos, height // self.pool, width // self.pool, self.maps[1]

    @property
    def argmax(self) -> Out:
        """With pool 1 there is none: networks pass an empty array."""
        return Out(self.shape if self.pool > 1 else (0,), np.uint8)

    @property
    def x(self) -> Array:
        return random(*self.size, self.maps[0])

    @property
    def weight(self) -> Array:
        return random(self.maps[1], *self.kernel, self.maps[0])

    @property
    def bias(self) -> Array:
        return random(self.maps[1])

    @property
    def block(self) -> tuple[tuple[int, int], Activation, float, int]:
        """The arguments that all three kernels end with."""
        return self.above, self.activation, SLOPE, self.pool

    def arguments(self, kernel: str) -> tuple[object, ...]:
        """For one of the three kernels: any place in a window may have won."""
        if kernel == "conv_forward":
            return Out(self.shape), self.argmax, self.x, self.weight, self.bias, *self.block
        out = np.zeros(self.shape)
        reference.activation_forward(out, random(*self.shape, seed=2), self.activation, SLOPE, reference.Workspace())
        won = np.random.default_rng(0).integers(0, self.pool**2, self.argmax.shape).astype(np.uint8)
        deltas = random(*self.shape, seed=1), out.astype(np.float32).astype(np.float64), won
        if kernel == "conv_backward_weight":
            return Out(self.weight.shape), Out(self.bias.shape), *deltas, self.x, *self.block
        return Out(self.x.shape), *deltas, self.weight, *self.block

    def __str__(self) -> str:
        padding = self.padding if isinstance(self.padding, str) else f"padding {times(*self.padding)}"
        return (
            f"{times(*self.size)}, {self.maps[0]} to {self.maps[1]} maps by {times(*self.kernel)}, pool {self.pool}, "
            f"{padding}, {self.activation}"
        )


def sized(
    sizes: Sequence[tuple[int, int, int]], maps: tuple[int, int], kernel: tuple[int, int], pool: int, padding: Padding,
    activation: Activation,
) -> list[Conv]:  # fmt: skip
    """One for each size."""
    return [Conv(size, maps, kernel, pool, padding, activation) for size in sizes]


# What the CPU's tests run at every change, and others take their settings from.
USUAL = [
    *sized([(1, 2, 7), (2, 12, 13), (23, 6, 6), (1, 3, 49)], (1, 16), (3, 3), 2, "same", "leaky_relu"),
    *sized([(3, 5, 4)], (1, 1), (1, 1), 1, "valid", "identity"),
    *sized([(2, 10, 11)], (24, 3), (4, 2), 3, "same", "relu"),
    # One map, and kernels that leave lanes for windows that lie beside each other.
    *sized([(2, 6, 20), (1, 7, 64)], (1, 8), (5, 5), 2, "valid", "leaky_relu"),
    # In the second, no window reaches the last rows.
    *sized([(1, 4, 4), (2, 7, 6)], (1, 3), (2, 3), 4, "same", "tanh"),
]
# Where rows are cut into tiles (see cpu.conv.winograd), as the 64 columns above are: many maps, full vectors of kernels
# and a rest. Backwards there are no tiles here, and the code is that for 24 maps.
USUAL_FORWARD = Conv((1, 11, 26), (8, 20), (3, 3), 2, "same", "leaky_relu")
# Windows with too many sums for the registers of any processor: one row of them at a time.
USUAL_BY_ROWS = Conv((2, 13, 15), (3, 5), (3, 2), 6, "same", "leaky_relu")
# Many maps and kernels without a pool: tiles as lines of matrices, in cpu.conv.winograd_products.
USUAL_IN_PRODUCTS = sized([(1, 3, 3), (5, 6, 7)], (32, 32), (3, 3), 1, "same", "relu")
IN_PRODUCTS = [
    *sized([(2, 6, 10), (70, 2, 6)], (32, 64), (2, 3), 1, "valid", "leaky_relu"),
    *sized([(2, 5, 9)], (48, 96), (3, 3), 1, (2, 1), "identity"),
    *sized([(1, 1, 6)], (64, 32), (1, 3), 1, "same", "leaky_relu"),
]
MORE = [
    *sized([(1, 2, 2), (23, 6, 5)], (1, 16), (3, 3), 2, "same", "leaky_relu"),
    *sized([(5, 12, 80)], (1, 8), (3, 3), 2, "same", "leaky_relu"),
    *sized([(1, 3, 3), (1, 7, 100)], (24, 3), (4, 2), 3, "same", "relu"),
    *sized([(2, 6, 5), (1, 1, 1), (2, 3, 70)], (33, 8), (2, 2), 1, "same", "leaky_relu"),
    *sized([(1, 6, 6), (2, 20, 17), (2, 7, 61), (1, 9, 150)], (3, 8), (5, 5), 2, "valid", "leaky_relu"),
    *sized([(2, 5, 4)], (3, 33), (5, 4), 1, "valid", "tanh"),
    *sized([(2, 9, 9)], (16, 16), (7, 7), 2, "same", "relu"),
    *sized([(2, 6, 6), (2, 9, 33), (1, 10, 26)], (1, 8), (5, 5), 2, "valid", "leaky_relu"),
    *sized([(2, 4, 5), (1, 3, 70), (1, 4, 22)], (1, 20), (3, 3), 2, "same", "leaky_relu"),
    *sized([(2, 9, 75), (1, 8, 29)], (1, 3), (2, 3), 4, "same", "tanh"),
    *sized([(2, 3, 5), (1, 4, 51), (1, 2, 18)], (1, 7), (2, 4), 1, "same", "relu"),
    *sized([(2, 6, 7), (1, 5, 80)], (1, 4), (3, 2), 3, "valid", "identity"),
    # In tiles: one strip and three.
    *sized([(1, 8, 301), (2, 7, 68), (1, 9, 133), (1, 6, 33)], (3, 20), (5, 5), 2, "valid", "leaky_relu"),
    *sized([(1, 6, 28), (2, 5, 64), (1, 5, 131), (1, 5, 430)], (4, 24), (3, 3), 2, "same", "relu"),
    *sized([(2, 9, 12), (1, 8, 30)], (8, 40), (3, 3), 4, "same", "leaky_relu"),
    *sized([(1, 11, 14)], (8, 24), (3, 3), 4, "valid", "sigmoid"),
    *sized([(1, 3, 12), (2, 4, 33)], (16, 16), (2, 5), 1, "valid", "identity"),
]
# Each pool, padding and activation, compared with PyTorch as USUAL is.
WITH_PYTORCH = [
    *sized([(2, 11, 12)], (3, 8), (3, 3), 2, "same", "leaky_relu"),
    *sized([(2, 11, 12)], (3, 8), (5, 5), 2, "valid", "relu"),
    *sized([(2, 11, 12)], (3, 8), (4, 3), 1, "valid", "tanh"),
    *sized([(2, 11, 12)], (3, 8), (2, 4), 3, "same", "sigmoid"),
    *sized([(2, 11, 12)], (3, 8), (1, 1), 1, "same", "identity"),
]

# For a simulated card's blocks of few threads: sizes that fill no tile. The CPU would compile most for themselves.
TINY_SHARING_CODE = {
    "smallest": Conv((1, 1, 1), (1, 1), (1, 1), 1, "valid", "identity"),
    "same, small": Conv((2, 5, 6), (1, 16), (3, 3), 2, "same", "leaky_relu"),
}
TINY = {
    "as in the seed": Conv((1, 11, 12), (3, 8), (5, 5), 2, "valid", "leaky_relu"),
    "many outputs": Conv((2, 25, 26), (1, 3), (3, 3), 2, "same", "relu"),
    "rows and columns that fill no window": Conv((1, 6, 10), (2, 5), (2, 2), 3, "valid", "relu"),
    "even kernel": Conv((2, 6, 5), (3, 2), (4, 2), 1, "same", "tanh"),
    "one by one": Conv((2, 7, 4), (6, 5), (1, 1), 2, "valid", "sigmoid"),
    "no pool, many outputs": Conv((1, 18, 19), (2, 6), (3, 2), 1, "same", "leaky_relu"),
    "many maps and kernels": Conv((1, 4, 5), (7, 9), (2, 3), 2, "same", "sigmoid"),
    "more kernels than a block takes": Conv((1, 1, 2), (2, 70), (1, 1), 1, "valid", "identity"),
    "more maps than a block takes": Conv((1, 1, 2), (70, 2), (1, 1), 1, "valid", "relu"),
    "largest kernel": Conv((1, 11, 12), (1, 2), (11, 11), 4, "same", "tanh"),
    "long kernel, no pool": Conv((1, 3, 12), (1, 5), (1, 11), 1, "same", "identity"),
    "wide pool in strips": Conv((1, 12, 11), (3, 5), (3, 2), 5, "same", "leaky_relu"),
    "largest pool": Conv((1, 17, 17), (1, 2), (2, 2), 16, "valid", "relu"),
    "offsets beyond the kernel": Conv((1, 4, 5), (2, 3), (2, 3), 1, (2, 4), "identity"),
}

# Several photos and rows for each thread.
LARGE = Conv((23, 12, 13), (1, 16), (3, 3), 2, "same", "leaky_relu")
LARGE_FEW_KERNELS = Conv((5, 12, 20), (1, 8), (5, 5), 2, "valid", "leaky_relu")
LARGE_IN_TILES = Conv((5, 12, 64), (1, 8), (5, 5), 2, "valid", "leaky_relu")
LARGE_IN_PRODUCTS = Conv((23, 12, 11), (32, 32), (3, 3), 1, "same", "relu")
LARGE_WITH_A_REST = Conv((5, 12, 301), (3, 20), (5, 5), 2, "valid", "leaky_relu")


def _cases(
    conv: Conv, name: str | None = None, size: Size = "usual", own_code: bool = False,
    kernels: Sequence[str] = KERNELS,
) -> Iterator[Case]:  # fmt: skip
    for kernel in kernels:
        yield Case(kernel, name or str(conv), conv.arguments(kernel), size=size, own_code=own_code)


def _forward(
    name: str, conv: Conv, x: Array, weight: Array, bias: Array, size: Size, argmax: Out | None = None, **more: bool
) -> Case:
    arguments = Out(conv.shape), argmax or conv.argmax, x, weight, bias, *conv.block
    return Case("conv_forward", name, arguments, size=size, **more)


def _with_equal_sums() -> Iterator[Case]:
    """The first of equal sums wins."""
    usual = Conv((3, 14, 13), (1, 16), (3, 3), 2, "same", "leaky_relu")
    x, weight = integers(3, 14, 13, 1, low=0, high=2), integers(16, 3, 3, 1, low=-1, high=2)
    yield _forward("equal sums of sixteen kernels", usual, x, weight, np.zeros(16), "usual")
    tiny = Conv((1, 7, 9), (1, 5), (3, 3), 2, "same", "leaky_relu")
    few = integers(1, 7, 9, 1, low=0, high=2)
    weight = integers(5, 3, 3, 1, low=-1, high=2)
    yield _forward("equal sums", tiny, few, weight, np.zeros(5), "tiny", own_code=True)
    all_equal = Conv((1, 7, 9), (1, 2), (3, 3), 5, "same", "relu")
    yield _forward("all sums equal", all_equal, few, np.zeros((2, 3, 3, 1)), np.zeros(2), "tiny", own_code=True)
    unused = Out((0, *tiny.shape[1:]), np.uint8)
    yield _forward("unused argmax", tiny, tiny.x, tiny.weight, tiny.bias, "tiny", unused, own_code=True)


def _with_nan() -> Iterator[Case]:
    activations: tuple[Activation, ...] = ("relu", "leaky_relu")
    for activation in activations:
        for pool in (1, 2, 5):
            conv = Conv((1, 9, 8), (1, 2), (3, 3), pool, "same", activation)
            x = conv.x
            x[0, 4, 3] = np.nan
            name = f"NaN, {activation}, pool {pool}"
            yield _forward(name, conv, x, conv.weight, conv.bias, "tiny", own_code=True)


CASES = [
    *(case for conv in USUAL for case in _cases(conv)),
    *_cases(USUAL_FORWARD, kernels=KERNELS[:1]),
    *_cases(USUAL_FORWARD, own_code=True, kernels=KERNELS[1:]),
    *_cases(USUAL_BY_ROWS, kernels=KERNELS[:1]),
    *(case for conv in USUAL_IN_PRODUCTS for case in _cases(conv, kernels=KERNELS[:1])),
    *(case for conv in IN_PRODUCTS for case in _cases(conv, own_code=True, kernels=KERNELS[:1])),
    *(case for conv in [*MORE, *WITH_PYTORCH] for case in _cases(conv, own_code=True)),
    *(case for name, conv in TINY_SHARING_CODE.items() for case in _cases(conv, name, "tiny")),
    *(case for name, conv in TINY.items() for case in _cases(conv, name, "tiny", own_code=True)),
    *_cases(LARGE, "large", "large"),
    *_cases(LARGE_FEW_KERNELS, "few kernels", "large", kernels=KERNELS[:1]),
    *_cases(LARGE_IN_TILES, "in tiles", "large", kernels=KERNELS[:2]),
    *_cases(LARGE_IN_PRODUCTS, "in products", "large", kernels=KERNELS[:1]),
    *_cases(LARGE_WITH_A_REST, "in tiles with a rest", "large", own_code=True, kernels=KERNELS[:2]),
    *_with_equal_sums(),
    *_with_nan(),
]
