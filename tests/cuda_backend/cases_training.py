"""Losses, batches and step rules."""

from typing import Any

import numpy as np

from contract.harness import Inout, Out, random

RATE = np.array([0.125])


def _softmax(logits: Any, smoothing: float, labels: Any = None) -> tuple[Any, ...]:
    photos, units = logits.shape
    if labels is None:
        labels = np.arange(photos) * 7 % units
    per_photo, per_unit = Out((photos,)), Out((photos, units))
    weights = np.linspace(0.5, 2, units)
    return (
        per_photo, per_photo, per_unit, per_unit, logits, np.array(labels, np.int32), weights, np.array([7.5]),
        smoothing,
    )  # fmt: skip


def _squares(*shape: int) -> tuple[Any, ...]:
    return Out(shape[:1]), Out(shape[:1]), Out(shape), random(*shape), random(*shape, seed=1), np.array([9.0])


def _batch(count: int) -> tuple[Any, ...]:
    orders = [np.random.default_rng(i).integers(0, 99, 30).astype(np.int32) for i in range(3)]
    state = Out((1,)), Out((1,), np.int32), Inout(np.array([1, 8], np.int32))
    return *[Out((count,), np.int32)] * 3, *state, *orders, np.array([0, 2, 4], np.int32), np.array([0.5, 0.25, 0.125])


def _momentum(size: int, nesterov: bool, decoupled: bool, decaying: int) -> tuple[Any, ...]:
    arrays = Inout(random(size)), Inout(random(size, seed=1)), random(size, seed=2)
    return *arrays, RATE, 0.9, nesterov, 0.01, decoupled, decaying


def _scaled(size: int, number: float, decoupled: bool, decaying: int) -> tuple[Any, ...]:
    """Of RMSprop and Adagrad, whose arguments are of the same kinds."""
    arrays = Inout(random(size)), Inout(np.abs(random(size, seed=1)) + 0.01), random(size, seed=2)
    return *arrays, RATE, number, 1e-3, 0.05, decoupled, decaying


def _adam(size: int, step: int, beta1: float, beta2: float, decoupled: bool, decaying: int) -> tuple[Any, ...]:
    state = Inout(random(size)), Inout(random(size, seed=1)), Inout(np.abs(random(size, seed=2)) + 0.01)
    steps = np.array([step], np.int32)
    return *state, random(size, seed=3), RATE, steps, beta1, beta2, 1e-8, 0.05, decoupled, decaying


def _lion(size: int, decaying: int) -> tuple[Any, ...]:
    return Inout(random(size)), Inout(random(size, seed=1)), random(size, seed=2), RATE, 0.9, 0.99, 0.05, decaying


def _noise(size: int, step: int, noise_decay: float = 0.55, seed: int = 5) -> tuple[Any, ...]:
    counts = (np.arange(size // 4) * 7 % 5).astype(np.uint8)
    return Out((size,)), random(size), counts, seed, 0.25, noise_decay, np.array([step], np.int32)


CASES: dict[str, tuple[Any, ...]] = {
    "softmax_cross_entropy, one unit": _softmax(random(1, 1), 0.1),
    "softmax_cross_entropy, two units": _softmax(5 * random(5, 2), 0.0),
    "softmax_cross_entropy, several turns": _softmax(5 * random(3, 33), 0.05),
    "softmax_cross_entropy, smoothing": _softmax(5 * random(2, 8), 0.5),
    "softmax_cross_entropy, equal logits": _softmax(np.zeros((2, 5)), 0.0),
    "softmax_cross_entropy, large logits": _softmax(np.array([[1e4, 0.0, -1e4], [-1e30, 1e30, 0.0]]), 0.0, [2, 1]),
    "softmax_cross_entropy, not a number": _softmax(np.array([[np.nan, 2, 3], [1, 2, np.nan], [1, 2, 3]]), 0.1),
    # A loss of e^-20: both it and the derivative keep their digits.
    "softmax_cross_entropy, small loss": _softmax(np.array([[0.0, -20.0]]), 0.0),
    "mean_squared_error, one": _squares(1, 1),
    "mean_squared_error, several turns": _squares(3, 19),
    "label_weight, one": (Out((1,)), np.zeros(1, np.int32), np.array([0.75])),
    "label_weight, several turns": (Out((1,)), (np.arange(21) * 7 % 5).astype(np.int32), np.linspace(0.5, 2, 5)),
    "one_hot, several turns": (Out((7, 5)), np.array([3, 0, 4, 1, 1, 2, 0], np.int32)),
    "add_to_totals, ties": (
        Inout(np.array([10.0, 5.0, 3.0])), np.array([0.25, 0.5, 4.0]),
        np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0], [3.0, 4.0, 5.0]]), np.array([0, 2, 2], np.int32),
    ),
    "add_to_totals, several turns": (
        Inout(np.array([0.0, 0.0, 9.0])), np.abs(random(21)), random(21, 3), (np.arange(21) % 3).astype(np.int32),
    ),
    "add_to_totals, not a number": (
        Inout(np.zeros(3)), np.array([1.0, 2.0, np.nan]), np.array([[0, np.nan], [np.nan, 9], [0, 0]]),
        np.array([1, 0, 1], np.int32),
    ),
    "take_batch, one photo": _batch(1),
    "take_batch, several turns": _batch(21),
    "sgd_update, one weight": (Inout(random(1)), random(1, seed=1), RATE, 0.01, 0),
    "sgd_update, decay of some": (Inout(random(59)), random(59, seed=1), RATE, 0.01, 30),
    "momentum_update, one weight": _momentum(1, False, False, 0),
    "momentum_update, decay of some": _momentum(59, False, False, 30),
    "momentum_update, decoupled": _momentum(11, False, True, 7),
    "momentum_update, nesterov": _momentum(11, True, False, 11),
    "rmsprop_update, decay of some": _scaled(59, 0.9, False, 30),
    "rmsprop_update, decoupled": _scaled(7, 0.9, True, 5),
    "adagrad_update, decay of some": _scaled(59, 0.0, False, 30),
    "adagrad_update, decoupled": _scaled(7, 0.5, True, 5),
    "adam_update, first step": _adam(59, 0, 0.9, 0.999, True, 30),
    "adam_update, later": _adam(7, 1000, 0.9, 0.999, True, 0),
    "adam_update, no averages": _adam(7, 3, 0.0, 0.0, True, 7),
    "adam_update, decay in the gradient": _adam(7, 3, 0.9, 0.999, False, 5),
    "lion_update, decay of some": _lion(59, 30),
    "lion_update, neither way": (
        Inout(np.ones(3)), Inout(np.zeros(3)), np.array([0.0, np.nan, -1e-30]), RATE, 0.9, 0.99, 0.0, 0,
    ),
    "clip_gradient, one": (Out((1,)), random(1), 0.125),
    "clip_gradient, too long": (Out((59,)), random(59), 0.5),
    "clip_gradient, short enough": (Out((7,)), random(7), 100.0),
    "clip_gradient, zeros": (Out((7,)), np.zeros(7), 1e-3),
    "clip_gradient, not a number": (Out((11,)), np.where(np.arange(11) == 10, np.nan, 1.0), 0.5),
    "add_noise, first step": _noise(4 * 5, 0),
    "add_noise, several turns": _noise(4 * 61, 2000, seed=2**32 - 1),
    "add_noise, does not fade": _noise(4 * 3, 2**31 - 2, 0.0),
    "average_update, first step": (Inout(random(59)), random(59, seed=1), np.array([0], np.int32), 0.99),
    "average_update, later": (Inout(random(5)), random(5, seed=1), np.array([10**6], np.int32), 0.99),
    "accumulate, first": (Inout(random(59)), random(59, seed=1), True),
    "accumulate, later": (Inout(random(59)), random(59, seed=1), False),
}  # fmt: skip
