"""Cases of kernels: what each is run with, and how exact its results must be.

Here are those that ``facecnn doctor`` tests a device with; the tests add theirs (tests/contract/cases).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from facecnn.arrays import Array
from facecnn.kernels import formulas, reference
from facecnn.kernels.protocol import AUGMENTATION, PURPOSE_DROPOUT
from facecnn.kernels.update_rules import update_rule

TOLERANCE = 1e-5
"""Largest difference in parts of an output's largest element: float32 keeps seven digits, and sums lose some."""
LEAST_SCALE = 1e-6
"""What the largest element counts as, at least."""

Size = Literal["tiny", "usual", "large"]
"""tiny: little enough for CUDA's simulator. large: enough that several threads share the work."""


@dataclass(frozen=True)
class Out:
    """An output of this shape, which a kernel must overwrite wholly."""

    shape: tuple[int, ...]
    dtype: npt.DTypeLike | None = None
    """None: the floating type that the kernel is run in."""


@dataclass(frozen=True)
class Inout:
    """An array that a kernel changes in place."""

    array: Array


@dataclass(frozen=True)
class Case:
    """A kernel and what to call it with."""

    kernel: str
    name: str
    """What is special about it."""
    arguments: tuple[Any, ...]
    """All but the workspace: Out, Inout, arrays, tuples of these, and scalars. Floating arrays take the type that the
    kernel is run in."""
    size: Size = "tiny"
    own_code: bool = False
    """Whether the CPU compiles code for this case alone, which takes seconds."""
    tolerance: float = TOLERANCE
    least_scale: float = LEAST_SCALE

    def __str__(self) -> str:
        return f"{self.kernel}, {self.name}"


Place: TypeAlias = Callable[[Array, bool], Any]
"""Brings a host array to a device; the second argument says whether the kernel writes to it."""


def nonsense(dtype: npt.DTypeLike) -> Any:
    """What memory is filled with before a kernel runs, to show where it isn't overwritten: NaN, or 171."""
    return np.nan if np.dtype(dtype).kind == "f" else 171


def placed(arguments: Iterable[Any], dtype: npt.DTypeLike, place: Place) -> tuple[list[Any], list[Any]]:
    """A case's arguments on a device, and those among them that are outputs.

    Args:
        arguments: ``Case.arguments``.
        dtype: The type of floating arrays.
        place: Brings each array to the device.
    """
    outputs = []

    def with_dtype(array: Array) -> Array:
        return np.ascontiguousarray(array, dtype if array.dtype.kind == "f" else array.dtype)

    def on_device(argument: Any) -> Any:
        if isinstance(argument, tuple):
            return tuple(map(on_device, argument))
        if isinstance(argument, Out):
            kind = dtype if argument.dtype is None else argument.dtype
            outputs.append(place(np.full(argument.shape, nonsense(kind), kind), True))
            return outputs[-1]
        if isinstance(argument, Inout):
            outputs.append(place(with_dtype(argument.array), True))
            return outputs[-1]
        return place(with_dtype(argument), False) if isinstance(argument, np.ndarray) else argument

    return [on_device(argument) for argument in arguments], outputs


def self_test_cases() -> list[Case]:
    """A small case for each kernel, or several. The three of a convolution share a shape, for which they are compiled;
    it is one of the smoke config's."""
    return [*_convolutions(), *_strided_convolutions(), *_layers(), *_training(), *_photos()]


_NAME = "as the self-test has it"
_STEP = np.array([7], np.int32)
_PHOTOS, _UNITS, _INPUTS = 9, 5, 70
_FLAT = 300
"""Weights."""


def _case(kernel: str, *arguments: Any, own_code: bool = False, tolerance: float = TOLERANCE) -> Case:
    return Case(kernel, _NAME, arguments, own_code=own_code, tolerance=tolerance)


class _Numbers:
    """Random numbers, always the same ones."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def normal(self, *shape: int) -> Array:
        """Normal numbers that float32 holds exactly, so that both sides start from the same."""
        return self._generator.normal(size=shape).astype(np.float32).astype(np.float64)

    def below(self, limit: int, *shape: int, dtype: npt.DTypeLike = np.int32) -> Array:
        return self._generator.integers(0, limit, shape).astype(dtype)


def _convolutions() -> list[Case]:
    numbers = _Numbers(0)
    normal = numbers.normal
    x, out, weight = (2, 8, 13, 4), (2, 4, 6, 8), (8, 3, 3, 4)
    block = ((1, 1), "leaky_relu", 0.125, 2)  # padding, activation, slope, pool
    won = numbers.below(4, *out, dtype=np.uint8)
    arguments: dict[str, list[Any]] = {
        "conv_forward": [Out(out), Out(out, np.uint8), normal(*x), normal(*weight), normal(8)],
        "conv_backward_weight": [Out(weight), Out((8,)), normal(*out), normal(*out), won, normal(*x)],
        "conv_backward_input": [Out(x), normal(*out), normal(*out), won, normal(*weight)],
    }
    return [_case(kernel, *own, *block, own_code=True) for kernel, own in arguments.items()]


def _strided_convolutions() -> list[Case]:
    numbers = _Numbers(4)
    normal = numbers.normal
    x, out, weight = (2, 8, 13, 4), (2, 4, 6, 8), (8, 3, 3, 4)
    block = ((2, 2), (1, 0), "leaky_relu", 0.125)  # stride, padding, activation, slope
    arguments: dict[str, list[Any]] = {
        "strided_conv_forward": [Out(out), normal(*x), normal(*weight), normal(8)],
        "strided_conv_backward_weight": [Out(weight), Out((8,)), normal(*out), normal(*out), normal(*x)],
        "strided_conv_backward_input": [Out(x), normal(*out), normal(*out), normal(*weight)],
    }
    return [_case(kernel, *own, *block, own_code=True) for kernel, own in arguments.items()]


def _layers() -> list[Case]:
    numbers = _Numbers(1)
    normal = numbers.normal
    # The last windows reach over the right edge.
    pool_x, pool_out, window = (2, 7, 8, 3), (2, 3, 4, 3), ("max", (3, 3), (2, 2))
    pool_input, pool_won = normal(*pool_x), np.zeros(pool_out, np.int32)
    reference.pool_forward(np.zeros(pool_out), pool_won, pool_input, "max", (3, 3), (2, 2), reference.Workspace())
    rows = (40, 6)
    flat, column = Out(rows), Out(rows[1:])
    maps, neurons, units = (_PHOTOS, 5, 6, 4), (2, 5, 6, 4), (_PHOTOS, 2, 4)
    dense, answers = (_UNITS, _INPUTS), (_PHOTOS, _UNITS)
    branch, shortcut, summed = (2, 3, 3, 8), (2, 4, 4, 5), (2, 4, 4, 8)
    return [
        _case("activation_forward", Out((3, 50)), normal(3, 50), "gelu", 0.0),
        _case("activation_backward", Out((3, 50)), normal(3, 50), normal(3, 50), normal(3, 50), "gelu", 0.0),
        _case("prelu_forward", flat, normal(*rows), normal(rows[1])),
        _case("prelu_backward", flat, column, normal(*rows), normal(*rows), normal(rows[1])),
        _case("pool_forward", Out(pool_out), Out(pool_out, np.int32), pool_input, *window),
        _case("pool_backward", Out(pool_x), normal(*pool_out), pool_won, *window),
        _case("add_maps_forward", Out(summed), normal(*branch), normal(*shortcut), "relu", 0.0),
        _case("add_maps_backward", Out(branch), Out(shortcut), normal(*summed), normal(*summed), "relu", 0.0),
        _case("neuron_forward", Out(units), normal(*maps), normal(*neurons), normal(2, 4)),
        _case("neuron_backward_weight", Out(neurons), Out((2, 4)), normal(*units), normal(*maps)),
        _case("neuron_backward_input", Out(maps), normal(*units), normal(*neurons)),
        _case("dense_forward", Out(answers), normal(_PHOTOS, _INPUTS), normal(*dense), normal(_UNITS)),
        _case("dense_backward_weight", Out(dense), Out((_UNITS,)), normal(*answers), normal(_PHOTOS, _INPUTS)),
        _case("dense_backward_input", Out((_PHOTOS, _INPUTS)), normal(*answers), normal(*dense)),
        _case("unit_length_forward", Out(answers), normal(*answers), Out((_PHOTOS,))),
        _case("unit_length_backward", Out(answers), normal(*answers), normal(*answers), np.abs(normal(_PHOTOS)) + 0.5),
        _case(
            "batch_norm_forward", flat, column, column, Inout(normal(rows[1])), Inout(np.abs(normal(rows[1]))),
            normal(*rows) + 1, normal(rows[1]), normal(rows[1]), 0.125, 1e-5, tolerance=3e-5,
        ),
        _case(
            "batch_norm_inference", flat, normal(*rows), normal(rows[1]), np.abs(normal(rows[1])) + 0.5,
            normal(rows[1]), normal(rows[1]), 1e-5,
        ),
        _case(
            "batch_norm_backward", flat, column, column, normal(*rows), normal(*rows), normal(rows[1]),
            normal(rows[1]), normal(rows[1]), tolerance=3e-5,
        ),
        _case(
            "dropout", Out((_PHOTOS, 21)), normal(_PHOTOS, 21), numbers.below(1000, _PHOTOS), 0.25, 5, PURPOSE_DROPOUT,
            _STEP,
        ),
    ]  # fmt: skip


def _training() -> list[Case]:
    numbers = _Numbers(2)
    normal, below = numbers.normal, numbers.below
    labels, weights = below(_UNITS, _PHOTOS), np.abs(normal(_UNITS)) + 0.5
    per_photo, answers = Out((_PHOTOS,)), (_PHOTOS, _UNITS)
    rate = np.array([0.125])

    def update(name: str) -> Case:
        rule = update_rule(name)
        state = tuple(Inout(np.abs(normal(_FLAT)) + 0.01) for _ in rule.state)
        scalars = {setting: 0.3 + 0.2 * n for n, setting in enumerate([*rule.settings, *rule.decays])}
        arguments = (Inout(normal(_FLAT)), state, normal(_FLAT), rate, _STEP, name, scalars, 200)
        return Case("optimizer_update", f"{name}, {_NAME}", arguments)

    return [
        _case(
            "softmax_cross_entropy", per_photo, per_photo, Out(answers), Out(answers), normal(*answers), labels,
            weights, np.array([8.0]), 0.125,
        ),
        _case(
            "mean_squared_error", per_photo, per_photo, Out(answers), normal(*answers), normal(*answers),
            np.array([8.0]),
        ),
        _case("label_weight", Out((1,)), labels, weights),
        _case("one_hot", Out(answers), labels),
        _case("add_to_totals", Inout(np.array([2.0, 3.0, 0.5])), np.abs(normal(_PHOTOS)), normal(*answers), labels),
        _case("accumulate", Inout(normal(_FLAT)), normal(_FLAT), False),
        _case(
            "take_batch", Out((3,), np.int32), Out((3,), np.int32), Out((3,), np.int32), Out((1,)), Out((1,), np.int32),
            Inout(np.array([1, 8], np.int32)), below(99, 6), below(99, 6), below(2, 6), np.array([0, 3], np.int32),
            np.array([0.5, 0.25]),
        ),
        _case("clip_gradient", Out((_FLAT,)), normal(_FLAT), 0.5),
        _case("add_noise", Out((_FLAT,)), normal(_FLAT), np.full(_FLAT // 4, 4, np.uint8), 5, 0.5, 0.55, _STEP),
        _case("average_update", Inout(normal(_FLAT)), normal(_FLAT), _STEP, 0.99),
        *(update(name) for name in formulas.OPTIMIZERS),
    ]  # fmt: skip


def _photos() -> list[Case]:
    numbers = _Numbers(3)
    augmentation = (3, True, 0.06, 0.1, 8.0, 0.5, 0.3, 0.2, 0.5, 0.5)  # seed, and the ranges
    parameters = np.zeros((4, len(AUGMENTATION)), np.float32)
    reference.draw_augmentation(parameters, np.arange(4), _STEP, *augmentation, reference.Workspace())
    pixels, rows = numbers.below(256, 3, 16, 13, 1, dtype=np.uint8), numbers.below(3, 4)
    photos = np.arange(_PHOTOS, dtype=np.int32)
    return [
        _case("random_words", Out((10,), np.uint32), 5, 1, 12, _STEP),
        # Equal to the bit, whatever the device.
        _case(
            "draw_augmentation", Out((_PHOTOS, len(AUGMENTATION))), photos, _STEP, *augmentation, tolerance=0.0
        ),
        # Local contrast divides by as little as 4 / 255, which magnifies rounding.
        _case(
            "prepare_photos", Out((4, 12, 9, 1)), pixels, rows, parameters, "local_contrast", tolerance=3e-4,
        ),
    ]  # fmt: skip
