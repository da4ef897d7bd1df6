"""Losses, batches and optimizers."""

from typing import Any

import numpy as np

from contract.harness import Inout, Out, random, rule_state
from facecnn.kernels import formulas

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


def _update(
    size: int, rule: str, decaying: int, *, decoupled: bool = False, step: int = 7, **settings: float
) -> tuple[Any, ...]:
    decay = {"decoupled_weight_decay" if decoupled else "weight_decay": 0.05}
    state, steps = rule_state(rule, size), np.array([step], np.int32)
    return Inout(random(size)), state, random(size, seed=9), RATE, steps, rule, {**settings, **decay}, decaying


def _adam(size: int, step: int, decaying: int, **changes: Any) -> tuple[Any, ...]:
    settings = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "decoupled": True, **changes}
    return _update(size, "adam", decaying, step=step, **settings)


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
    "optimizer_update, sgd, one weight": _update(1, "sgd", 0),
    "optimizer_update, sgd, decay of some": _update(59, "sgd", 30),
    "optimizer_update, momentum, one weight": _update(1, "momentum", 0, momentum=0.9),
    "optimizer_update, momentum, decay of some": _update(59, "momentum", 30, momentum=0.9),
    "optimizer_update, momentum, decoupled": _update(11, "momentum", 7, decoupled=True, momentum=0.9),
    "optimizer_update, nesterov": _update(11, "nesterov", 11, momentum=0.9),
    "optimizer_update, rmsprop, decay of some": _update(59, "rmsprop", 30, beta2=0.9, epsilon=1e-3),
    "optimizer_update, rmsprop, decoupled": _update(7, "rmsprop", 5, decoupled=True, beta2=0.9, epsilon=1e-3),
    "optimizer_update, adagrad, decay of some": _update(59, "adagrad", 30, initial_squares=0.0, epsilon=1e-3),
    "optimizer_update, adagrad, decoupled": _update(
        7, "adagrad", 5, decoupled=True, initial_squares=0.5, epsilon=1e-3
    ),
    "optimizer_update, adam, first step": _adam(59, 0, 30),
    "optimizer_update, adam, later": _adam(7, 1000, 0),
    "optimizer_update, adam, no averages": _adam(7, 3, 7, beta1=0.0, beta2=0.0),
    "optimizer_update, adam, decay in the gradient": _adam(7, 3, 5, decoupled=False),
    "optimizer_update, lion, decay of some": _update(59, "lion", 30, decoupled=True, beta1=0.9, beta2=0.99),
    "optimizer_update, lion, neither way": (
        Inout(np.ones(3)), (Inout(np.zeros(3)),), np.array([0.0, np.nan, -1e-30]), RATE, np.array([7], np.int32),
        "lion", {"beta1": 0.9, "beta2": 0.99}, 0,
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

assert {arguments[5] for name, arguments in CASES.items() if name.startswith("optimizer_update")} == set(
    formulas.OPTIMIZERS
)
