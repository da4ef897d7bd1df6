"""strided_conv_forward, strided_conv_backward_weight and strided_conv_backward_input.

On the CPU the same is compiled into the code as for a convolution (see ``conv``), and the stride, padding and the
number of pixels in a tile. In CUDA's simulator a block is 2 x 2 threads with up to 2 x 2 outputs each, and slabs of 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from contract.cases.numbers import random, times
from facecnn.arrays import Array
from facecnn.kernels import reference
from facecnn.kernels.cases import Case, Out, Size
from facecnn.kernels.protocol import Activation

SLOPE = 0.1
KERNELS = ("strided_conv_forward", "strided_conv_backward_weight", "strided_conv_backward_input")


@dataclass(frozen=True)
class Strided:
    """What a strided convolution is made for."""

    size: tuple[int, int, int]
    """Photos, height, width."""
    maps: tuple[int, int]
    """In and out."""
    kernel: tuple[int, int]
    """Rows, columns."""
    stride: tuple[int, int]
    padding: tuple[int, int]
    """Rows above, columns to the left; below and to the right as many."""
    activation: Activation

    @property
    def shape(self) -> tuple[int, ...]:
        """The output's."""
        rows, columns = (
            (self.size[1 + i] + 2 * self.padding[i] - self.kernel[i]) // self.stride[i] + 1 for i in (0, 1)
        )
        return self.size[0], rows, columns, self.maps[1]

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
    def block(self) -> tuple[tuple[int, int], tuple[int, int], Activation, float]:
        """The arguments that all three kernels end with."""
        return self.stride, self.padding, self.activation, SLOPE

    def arguments(self, kernel: str) -> tuple[object, ...]:
        """For one of the three kernels."""
        if kernel == "strided_conv_forward":
            return Out(self.shape), self.x, self.weight, self.bias, *self.block
        out = np.zeros(self.shape)
        reference.activation_forward(out, random(*self.shape, seed=2), self.activation, SLOPE, reference.Workspace())
        deltas = random(*self.shape, seed=1), out.astype(np.float32).astype(np.float64)
        if kernel == "strided_conv_backward_weight":
            return Out(self.weight.shape), Out(self.bias.shape), *deltas, self.x, *self.block
        return Out(self.x.shape), *deltas, self.weight, *self.block

    def __str__(self) -> str:
        return (
            f"{times(*self.size)}, {self.maps[0]} to {self.maps[1]} maps by {times(*self.kernel)} every "
            f"{times(*self.stride)}, padding {times(*self.padding)}, {self.activation}"
        )


# What the CPU's tests run at every change, as PyTorch's do.
USUAL = [
    Strided((2, 9, 8), (3, 5), (3, 3), (2, 2), (0, 0), "relu"),
    Strided((3, 7, 6), (4, 20), (3, 2), (2, 2), (1, 1), "leaky_relu"),
    # Wide rows within the photo, which are read as they are; full vectors of kernels and a rest.
    Strided((2, 11, 31), (3, 36), (5, 4), (2, 2), (0, 0), "tanh"),
    # Gaps between the windows.
    Strided((2, 10, 11), (2, 3), (2, 2), (3, 3), (0, 0), "sigmoid"),
    Strided((5, 3, 3), (8, 33), (3, 3), (2, 2), (0, 0), "identity"),
]
MORE = [
    Strided((1, 1, 1), (1, 1), (1, 1), (2, 2), (0, 0), "identity"),
    Strided((2, 6, 7), (1, 8), (2, 3), (1, 2), (0, 1), "relu"),
    Strided((3, 5, 4), (32, 32), (3, 3), (2, 2), (1, 1), "leaky_relu"),
    Strided((23, 4, 4), (32, 17), (3, 3), (2, 2), (0, 0), "relu"),
    Strided((2, 13, 27), (3, 8), (7, 7), (2, 2), (3, 3), "leaky_relu"),
    Strided((1, 15, 77), (1, 32), (3, 3), (1, 3), (0, 0), "tanh"),
    Strided((2, 17, 17), (32, 64), (3, 3), (2, 2), (0, 0), "relu"),
    Strided((70, 2, 3), (1, 3), (1, 1), (1, 1), (0, 0), "identity"),
]
TINY = {
    "smallest": Strided((1, 1, 1), (1, 1), (1, 1), (2, 2), (0, 0), "identity"),
    "as in a face network": Strided((2, 7, 7), (3, 6), (3, 3), (2, 2), (0, 0), "relu"),
    "padding": Strided((1, 5, 6), (2, 3), (3, 4), (2, 2), (1, 1), "leaky_relu"),
    "other steps down than along": Strided((2, 4, 7), (1, 5), (2, 3), (1, 2), (0, 1), "tanh"),
    "gaps between windows": Strided((1, 8, 9), (3, 2), (2, 2), (3, 3), (0, 0), "sigmoid"),
    "rows that no window reaches": Strided((1, 6, 6), (1, 2), (1, 1), (3, 4), (0, 0), "relu"),
    "one window for each photo": Strided((3, 3, 3), (5, 9), (3, 3), (2, 2), (0, 0), "identity"),
    "many pixels": Strided((4, 7, 9), (1, 2), (3, 3), (2, 2), (0, 0), "leaky_relu"),
}

# Several photos, blocks of pixels and parts of kernels for each thread.
LARGE = Strided((23, 9, 8), (3, 5), (3, 3), (2, 2), (0, 0), "relu")
LARGE_ROWS = Strided((7, 19, 31), (3, 36), (5, 4), (2, 2), (0, 0), "tanh")
LARGE_KERNELS = Strided((23, 7, 7), (64, 192), (3, 3), (2, 2), (1, 1), "leaky_relu")


def _cases(
    convolution: Strided, name: str | None = None, size: Size = "usual", own_code: bool = False,
    kernels: Sequence[str] = KERNELS,
) -> Iterator[Case]:  # fmt: skip
    for kernel in kernels:
        arguments = convolution.arguments(kernel)
        yield Case(kernel, name or str(convolution), arguments, size=size, own_code=own_code)


def _with_nan() -> Iterator[Case]:
    convolution = TINY["as in a face network"]
    x = convolution.x
    x[1, 3, 4] = np.nan
    arguments = Out(convolution.shape), x, convolution.weight, convolution.bias, *convolution.block
    yield Case("strided_conv_forward", "NaN", arguments, own_code=True)


CASES = [
    *(case for one in USUAL for case in _cases(one)),
    *(case for one in MORE for case in _cases(one, own_code=True)),
    *(case for name, one in TINY.items() for case in _cases(one, name, "tiny", own_code=True)),
    *_cases(LARGE, "large", "large"),
    *_cases(LARGE_ROWS, "large, wide rows", "large", kernels=KERNELS[:2]),
    *_cases(LARGE_KERNELS, "large, many kernels", "large", own_code=True),
    *_with_nan(),
]
