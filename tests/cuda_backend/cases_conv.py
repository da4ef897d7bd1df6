"""The convolution's kernels: each activation, pool, kernel size and padding, and sizes that fill no tile."""

from __future__ import annotations

from typing import Any

import numpy as np

from contract.harness import Out, integers, random

CASES: dict[str, tuple[Any, ...]] = {}

# (photos, height, width), (maps, kernels), (kernel rows, columns), padding above and left, pool, activation.
_BLOCKS: dict[str, tuple[Any, ...]] = {
    "smallest": ((1, 1, 1), (1, 1), (1, 1), "valid", 1, "identity"),
    "as in the seed": ((1, 11, 12), (3, 8), (5, 5), "valid", 2, "leaky_relu"),
    "same, small": ((2, 5, 6), (1, 16), (3, 3), (1, 1), 2, "leaky_relu"),
    "many outputs": ((2, 25, 26), (1, 3), (3, 3), (1, 1), 2, "relu"),
    "rows and columns that fill no window": ((1, 6, 10), (2, 5), (2, 2), "valid", 3, "relu"),
    "even kernel": ((2, 6, 5), (3, 2), (4, 2), (1, 0), 1, "tanh"),
    "one by one": ((2, 7, 4), (6, 5), (1, 1), "valid", 2, "sigmoid"),
    "no pool, many outputs": ((1, 18, 19), (2, 6), (3, 2), (1, 0), 1, "leaky_relu"),
    "many maps and kernels": ((1, 4, 5), (7, 9), (2, 3), (0, 1), 2, "sigmoid"),
    "more kernels than a block takes": ((1, 1, 2), (2, 70), (1, 1), "valid", 1, "identity"),
    "more maps than a block takes": ((1, 1, 2), (70, 2), (1, 1), "valid", 1, "relu"),
    "largest kernel": ((1, 11, 12), (1, 2), (11, 11), (5, 5), 4, "tanh"),
    "long kernel, no pool": ((1, 3, 12), (1, 5), (1, 11), (0, 5), 1, "identity"),
    "wide pool in strips": ((1, 12, 11), (3, 5), (3, 2), (1, 0), 5, "leaky_relu"),
    "largest pool": ((1, 17, 17), (1, 2), (2, 2), "valid", 16, "relu"),
    "offsets beyond the kernel": ((1, 4, 5), (2, 3), (2, 3), (2, 4), 1, "identity"),
}


def _shapes(size: Any, maps: Any, kernel: Any, padding: Any, pool: int) -> tuple[Any, Any]:
    """The output's shape and the padding."""
    photos, height, width = size
    if padding == "valid":
        return (photos, (height - kernel[0] + 1) // pool, (width - kernel[1] + 1) // pool, maps[1]), (0, 0)
    return (photos, height // pool, width // pool, maps[1]), padding


for _name, (_size, _maps, _kernel, _padding, _pool, _activation) in _BLOCKS.items():
    _shape, _above = _shapes(_size, _maps, _kernel, _padding, _pool)
    _x, _weight = random(*_size, _maps[0]), random(_maps[1], *_kernel, _maps[0])
    _block = (_above, _activation, 0.1, _pool)
    _won_shape = _shape if _pool > 1 else (0,)
    _won = np.random.default_rng(0).integers(0, _pool**2, _won_shape).astype(np.uint8)
    _deltas = (random(*_shape, seed=1), np.tanh(random(*_shape, seed=2)), _won)
    CASES[f"conv_forward, {_name}"] = (Out(_shape), Out(_won_shape, np.uint8), _x, _weight, random(_maps[1]), *_block)
    CASES[f"conv_backward_weight, {_name}"] = (Out(_weight.shape), Out((_maps[1],)), *_deltas, _x, *_block)
    CASES[f"conv_backward_input, {_name}"] = (Out(_x.shape), *_deltas, _weight, *_block)

_FEW = integers(1, 7, 9, 1, low=0, high=2)
CASES["conv_forward, equal sums"] = (
    Out((1, 3, 4, 5)), Out((1, 3, 4, 5), np.uint8), _FEW, integers(5, 3, 3, 1, low=-1, high=2), np.zeros(5),
    (1, 1), "leaky_relu", 0.1, 2,
)  # fmt: skip
CASES["conv_forward, all sums equal"] = (
    Out((1, 1, 1, 2)), Out((1, 1, 1, 2), np.uint8), _FEW, np.zeros((2, 3, 3, 1)), np.zeros(2), (1, 1), "relu", 0.1, 5,
)  # fmt: skip
CASES["conv_forward, places that nobody asks for"] = (
    Out((1, 3, 4, 5)), Out((0, 3, 4, 5), np.uint8), random(1, 7, 9, 1), random(5, 3, 3, 1), random(5),
    (1, 1), "leaky_relu", 0.1, 2,
)  # fmt: skip
_WITH_NAN = random(1, 9, 8, 1)
_WITH_NAN[0, 4, 3] = np.nan
for _activation in ("relu", "leaky_relu"):
    for _pool in (1, 2, 5):
        _shape = (1, 9 // _pool, 8 // _pool, 2)
        CASES[f"conv_forward, NaN, {_activation}, pool {_pool}"] = (
            Out(_shape), Out(_shape if _pool > 1 else (0,), np.uint8), _WITH_NAN, random(2, 3, 3, 1), random(2),
            (1, 1), _activation, 0.1, _pool,
        )  # fmt: skip
