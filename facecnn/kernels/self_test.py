"""Every kernel once on a device, held against the reference in float64: does this machine compute what it should?

A faulty card, an overclocked processor or a broken compiler shows here, and not as a network that learns badly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.arrays import Array
from facecnn.kernels import formulas, reference
from facecnn.kernels.backend import Backend
from facecnn.kernels.protocol import AUGMENTATION, PURPOSE_DROPOUT
from facecnn.kernels.update_rules import update_rule

TOLERANCE = 1e-5
"""Largest difference in parts of an output's largest element: float32 keeps seven digits, and sums lose some."""
_LEAST_SCALE = 1e-6
_NOT_COMPUTING = {"record", "mark", "hold_up"}


@dataclass(frozen=True)
class Result:
    """How one kernel did."""

    kernel: str
    passed: bool
    worst: float | None
    """The largest difference from the reference, in parts of the largest element; None where there is no number."""
    tolerance: float
    """What ``worst`` may be. Integers must be equal in any case."""
    error: str | None = None
    """What went wrong besides."""


@dataclass(frozen=True)
class _Out:
    """An output, to be wholly overwritten."""

    shape: tuple[int, ...]
    dtype: npt.DTypeLike = np.float64


@dataclass(frozen=True)
class _Changed:
    """An array that the kernel changes in place."""

    array: Array


@dataclass(frozen=True)
class _Case:
    arguments: Sequence[Any]
    """All but the workspace. Floating arrays are made float32 on the device."""
    tolerance: float = TOLERANCE


def kernel_names() -> list[str]:
    """The functions of a backend that compute something, in the reference's order."""
    return [
        name
        for name, function in vars(reference).items()
        if inspect.isfunction(function)
        and function.__module__ == reference.__name__
        and not name.startswith("_")
        and name not in _NOT_COMPUTING
        and "workspace" in inspect.signature(function).parameters
    ]


def check_kernels(backend: Backend, progress: Callable[[int, int], None] = lambda done, total: None) -> list[Result]:
    """A result for each kernel; nothing that a kernel does, not even to fail, ends the test."""
    cases = _cases()
    results = []
    for name in kernel_names():
        of_kernel = [_check(backend, name, case) for case in cases[name]]
        results.append(min(of_kernel, key=lambda result: (result.passed, -(result.worst or 0))))
        progress(len(results), len(cases))
    return results


def _check(backend: Backend, name: str, case: _Case) -> Result:
    wanted = _run(reference, name, case.arguments, np.float64)
    try:
        got = _run(backend, name, case.arguments, np.float32)
    except Exception as error:  # of the compiler or the driver: it is this kernel's result
        return Result(name, False, None, case.tolerance, f"{type(error).__name__}: {error}")
    worst, integers_differ = 0.0, False
    for result, expected in zip(got, wanted, strict=True):
        if result.dtype.kind == "f":
            scale = max(float(np.abs(expected).max()), _LEAST_SCALE)
            worst = float(np.maximum(worst, np.abs(result - expected).max() / scale))  # keeps NaN
        else:
            integers_differ |= not np.array_equal(result, expected)
    if not np.isfinite(worst):
        return Result(name, False, None, case.tolerance, "it gave something that is not a number")
    if integers_differ:
        return Result(name, False, worst, case.tolerance, "it gave other integers than the reference")
    return Result(name, worst <= case.tolerance, worst, case.tolerance)


def _run(backend: Backend, name: str, arguments: Iterable[Any], dtype: npt.DTypeLike) -> list[Array]:
    """The outputs, as host arrays. They are filled with nonsense before, so that what isn't written shows."""

    def on_device(array: Array) -> Any:
        return backend.to_device(np.ascontiguousarray(array, dtype if array.dtype.kind == "f" else array.dtype))

    outputs = []

    def placed(argument: Any) -> Any:
        if isinstance(argument, tuple):
            return tuple(map(placed, argument))
        if isinstance(argument, _Out):
            floating = np.dtype(argument.dtype).kind == "f"
            outputs.append(on_device(np.full(argument.shape, np.nan if floating else 171, argument.dtype)))
            return outputs[-1]
        if isinstance(argument, _Changed):
            outputs.append(on_device(argument.array))
            return outputs[-1]
        return on_device(argument) if isinstance(argument, np.ndarray) else argument

    getattr(backend, name)(*map(placed, arguments), backend.Workspace())
    backend.synchronise()
    return [backend.to_host(output) for output in outputs]


def _cases() -> dict[str, list[_Case]]:
    """A small case for each kernel, or several. The three of a convolution share a shape, for which they are compiled;
    it is one of the smoke config's."""
    generator = np.random.default_rng(0)

    def random(*shape: int) -> Array:
        """Normal numbers that float32 holds exactly, so that both sides start from the same."""
        return generator.normal(size=shape).astype(np.float32).astype(np.float64)

    def below(limit: int, *shape: int, dtype: npt.DTypeLike = np.int32) -> Array:
        return generator.integers(0, limit, shape).astype(dtype)

    step, rate = np.array([7], np.int32), np.array([0.125])

    conv_x, conv_out, conv_weight = (2, 8, 13, 4), (2, 4, 6, 8), (8, 3, 3, 4)
    block = ((1, 1), "leaky_relu", 0.125, 2)  # padding, activation, slope, pool
    won = below(4, *conv_out, dtype=np.uint8)
    conv = {
        "conv_forward": [_Out(conv_out), _Out(conv_out, np.uint8), random(*conv_x), random(*conv_weight), random(8)],
        "conv_backward_weight": [
            _Out(conv_weight), _Out((8,)), random(*conv_out), random(*conv_out), won, random(*conv_x),
        ],
        "conv_backward_input": [_Out(conv_x), random(*conv_out), random(*conv_out), won, random(*conv_weight)],
    }  # fmt: skip

    # The last windows reach over the right edge.
    pool_x, pool_out, window = (2, 7, 8, 3), (2, 3, 4, 3), ("max", (3, 3), (2, 2))
    pool_input = random(*pool_x)
    pool_won = np.zeros(pool_out, np.int32)
    reference.pool_forward(np.zeros(pool_out), pool_won, pool_input, *window, reference.Workspace())  # type: ignore[arg-type]

    photos, units, inputs = 9, 5, 70
    labels = below(units, photos)
    weights = np.abs(random(units)) + 0.5
    count, columns = 40, 6
    flat = 300
    augmentation = (3, True, 0.06, 0.1, 8.0, 0.5, 0.3, 0.2, 0.5, 0.5)  # seed, and the ranges
    parameters = np.zeros((4, len(AUGMENTATION)), np.float32)
    reference.draw_augmentation(parameters, np.arange(4), step, *augmentation, reference.Workspace())

    def update(name: str) -> _Case:
        rule = update_rule(name)
        state = tuple(_Changed(np.abs(random(flat)) + 0.01) for _ in rule.state)
        scalars = {setting: 0.3 + 0.2 * n for n, setting in enumerate([*rule.settings, *rule.decays])}
        return _Case([_Changed(random(flat)), state, random(flat), rate, step, name, scalars, 200])

    one_each = {
        "activation_forward": _Case([_Out((3, 50)), random(3, 50), "gelu", 0.0]),
        "activation_backward": _Case([_Out((3, 50)), random(3, 50), random(3, 50), random(3, 50), "gelu", 0.0]),
        "prelu_forward": _Case([_Out((count, columns)), random(count, columns), random(columns)]),
        "prelu_backward": _Case(
            [
                _Out((count, columns)), _Out((columns,)), random(count, columns), random(count, columns),
                random(columns),
            ]
        ),
        **{name: _Case([*arguments, *block]) for name, arguments in conv.items()},
        "pool_forward": _Case([_Out(pool_out), _Out(pool_out, np.int32), pool_input, *window]),
        "pool_backward": _Case([_Out(pool_x), random(*pool_out), pool_won, *window]),
        "neuron_forward": _Case([_Out((photos, 2, 4)), random(photos, 5, 6, 4), random(2, 5, 6, 4), random(2, 4)]),
        "neuron_backward_weight": _Case(
            [_Out((2, 5, 6, 4)), _Out((2, 4)), random(photos, 2, 4), random(photos, 5, 6, 4)]
        ),
        "neuron_backward_input": _Case([_Out((photos, 5, 6, 4)), random(photos, 2, 4), random(2, 5, 6, 4)]),
        "dense_forward": _Case([_Out((photos, units)), random(photos, inputs), random(units, inputs), random(units)]),
        "dense_backward_weight": _Case(
            [_Out((units, inputs)), _Out((units,)), random(photos, units), random(photos, inputs)]
        ),
        "dense_backward_input": _Case([_Out((photos, inputs)), random(photos, units), random(units, inputs)]),
        "batch_norm_forward": _Case(
            [
                _Out((count, columns)), _Out((columns,)), _Out((columns,)), _Changed(random(columns)),
                _Changed(np.abs(random(columns))), random(count, columns) + 1, random(columns), random(columns),
                0.125, 1e-5,
            ],
            3e-5,
        ),
        "batch_norm_inference": _Case(
            [
                _Out((count, columns)), random(count, columns), random(columns), np.abs(random(columns)) + 0.5,
                random(columns), random(columns), 1e-5,
            ]
        ),
        "batch_norm_backward": _Case(
            [
                _Out((count, columns)), _Out((columns,)), _Out((columns,)), random(count, columns),
                random(count, columns), random(columns), random(columns), random(columns),
            ],
            3e-5,
        ),
        "dropout": _Case([_Out((photos, 21)), random(photos, 21), below(1000, photos), 0.25, 5, PURPOSE_DROPOUT, step]),
        "softmax_cross_entropy": _Case(
            [
                _Out((photos,)), _Out((photos,)), _Out((photos, units)), _Out((photos, units)), random(photos, units),
                labels, weights, np.array([8.0]), 0.125,
            ]
        ),
        "mean_squared_error": _Case(
            [
                _Out((photos,)), _Out((photos,)), _Out((photos, units)), random(photos, units), random(photos, units),
                np.array([8.0]),
            ]
        ),
        "label_weight": _Case([_Out((1,)), labels, weights]),
        "one_hot": _Case([_Out((photos, units)), labels]),
        "add_to_totals": _Case(
            [_Changed(np.array([2.0, 3.0, 0.5])), np.abs(random(photos)), random(photos, units), labels]
        ),
        "accumulate": _Case([_Changed(random(flat)), random(flat), False]),
        "take_batch": _Case(
            [
                _Out((3,), np.int32), _Out((3,), np.int32), _Out((3,), np.int32), _Out((1,)), _Out((1,), np.int32),
                _Changed(np.array([1, 8], np.int32)), below(99, 6), below(99, 6), below(2, 6),
                np.array([0, 3], np.int32), np.array([0.5, 0.25]),
            ]
        ),
        "clip_gradient": _Case([_Out((flat,)), random(flat), 0.5]),
        "add_noise": _Case(
            [_Out((flat,)), random(flat), np.full(flat // 4, 4, np.uint8), 5, 0.5, 0.55, step]
        ),
        "average_update": _Case([_Changed(random(flat)), random(flat), step, 0.99]),
        "random_words": _Case([_Out((10,), np.uint32), 5, 1, 12, step]),
        # Equal to the bit, whatever the device.
        "draw_augmentation": _Case(
            [_Out((photos, len(AUGMENTATION))), np.arange(photos, dtype=np.int32), step, *augmentation], 0.0
        ),
        # Local contrast divides by as little as 4 / 255, which magnifies rounding.
        "prepare_photos": _Case(
            [_Out((4, 12, 9, 1)), below(256, 3, 16, 13, 1, dtype=np.uint8), below(3, 4), parameters, "local_contrast"],
            3e-4,
        ),
    }  # fmt: skip
    updates = [update(name) for name in formulas.OPTIMIZERS]
    return {**{name: [case] for name, case in one_each.items()}, "optimizer_update": updates}
