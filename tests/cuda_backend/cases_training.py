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


def _momentum(size: int, nesterov: bool, decaying: int) -> tuple[Any, ...]:
    arrays = Inout(random(size)), Inout(random(size, seed=1)), random(size, seed=2)
    return *arrays, RATE, 0.9, nesterov, 0.01, decaying


def _adam(size: int, step: int, beta1: float, beta2: float, decaying: int) -> tuple[Any, ...]:
    state = Inout(random(size)), Inout(random(size, seed=1)), Inout(np.abs(random(size, seed=2)) + 0.01)
    steps = np.array([step], np.int32)
    return *state, random(size, seed=3), RATE, steps, beta1, beta2, 1e-8, 0.05, decaying


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
    "momentum_update, one weight": _momentum(1, False, 0),
    "momentum_update, decay of some": _momentum(59, False, 30),
    "momentum_update, nesterov": _momentum(11, True, 11),
    "adam_update, first step": _adam(59, 0, 0.9, 0.999, 30),
    "adam_update, later": _adam(7, 1000, 0.9, 0.999, 0),
    "adam_update, no averages": _adam(7, 3, 0.0, 0.0, 7),
    "average_update, first step": (Inout(random(59)), random(59, seed=1), np.array([0], np.int32), 0.99),
    "average_update, later": (Inout(random(5)), random(5, seed=1), np.array([10**6], np.int32), 0.99),
    "accumulate, first": (Inout(random(59)), random(59, seed=1), True),
    "accumulate, later": (Inout(random(59)), random(59, seed=1), False),
}  # fmt: skip
