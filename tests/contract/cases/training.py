"""Losses, batches, clipping, noise, averages and optimizers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from contract.cases.numbers import random, times
from facecnn.arrays import Array
from facecnn.kernels.cases import Case, Inout, Out, Size
from facecnn.kernels.update_rules import update_rule

RATE = np.array([0.125])


# -------------------------------------------------------------------------------------------------- losses and batches


def _softmax(
    name: str, logits: Array, smoothing: float, labels: Sequence[int] | None = None, size: Size = "tiny",
    weights: Sequence[float] | None = None,
) -> Case:  # fmt: skip
    photos, units = logits.shape
    numbers = np.array(np.arange(photos) * 7 % units if labels is None else labels, np.int32)
    per_photo, per_unit = Out((photos,)), Out((photos, units))
    of_classes = np.linspace(0.5, 2, units) if weights is None else np.array(weights)
    total = np.array([7.5])
    arguments = (per_photo, per_photo, per_unit, per_unit, logits, numbers, of_classes, total, smoothing)
    return Case("softmax_cross_entropy", name, arguments, size)


def _usual_softmax() -> Iterator[Case]:
    for photos, units in [(1, 1), (5, 2), (60, 33)]:
        for smoothing in (0.0, 0.05, 0.5):
            name = f"{times(photos, units)} smoothed by {smoothing}"
            yield _softmax(name, 5 * random(photos, units), smoothing, size="usual")
    labels, weights = (0, 1, 2, 3, 4, 0, 0, 3, 1), (0.5, 1, 2, 1.5, 0.25)
    for smoothing in (0.0, 0.05):
        for what, of_classes in (("weighted", weights), ("unweighted", np.ones(5))):
            name = f"{what}, smoothed by {smoothing}"
            yield _softmax(name, random(9, 5), smoothing, labels, "usual", weights=tuple(of_classes))


def _squares(name: str, *shape: int, size: Size = "tiny") -> Case:
    photos, total = Out(shape[:1]), np.array([9.0])
    arguments = (photos, photos, Out(shape), random(*shape), random(*shape, seed=1), total)
    return Case("mean_squared_error", name, arguments, size)


def _label_weight(name: str, photos: int, size: Size = "tiny") -> Case:
    labels = (np.arange(photos) * 7 % 5).astype(np.int32)
    return Case("label_weight", name, (Out((1,)), labels, np.linspace(0.5, 2, 5)), size)


def _one_hot(name: str, units: int, *labels: int) -> Case:
    return Case("one_hot", name, (Out((len(labels), units)), np.array(labels, np.int32)))


def _totals(name: str, before: Sequence[float], losses: Array, outputs: Array, labels: Sequence[int]) -> Case:
    arguments = Inout(np.array(before, np.float64)), losses, outputs, np.array(labels, np.int32)
    return Case("add_to_totals", name, arguments)


def _batch(name: str, count: int) -> Case:
    orders = [np.random.default_rng(i).integers(0, 99, 30).astype(np.int32) for i in range(3)]
    state = Out((1,)), Out((1,), np.int32), Inout(np.array([1, 8], np.int32))
    starts, rates = np.array([0, 2, 4], np.int32), np.array([0.5, 0.25, 0.125])
    return Case("take_batch", name, (*[Out((count,), np.int32)] * 3, *state, *orders, starts, rates))


_OF_LOSSES = [
    _softmax("one unit", random(1, 1), 0.1),
    _softmax("two units", 5 * random(5, 2), 0.0),
    _softmax("several turns", 5 * random(3, 33), 0.05),
    _softmax("smoothing", 5 * random(2, 8), 0.5),
    _softmax("equal logits", np.zeros((2, 5)), 0.0),
    _softmax("large logits", np.array([[1e4, 0.0, -1e4], [-1e30, 1e30, 0.0]]), 0.0, [2, 1]),
    _softmax("not a number", np.array([[np.nan, 2, 3], [1, 2, np.nan], [1, 2, 3]]), 0.1),
    # A loss of e^-20: both it and the derivative keep their digits.
    _softmax("small loss", np.array([[0.0, -20.0]]), 0.0),
    *_usual_softmax(),
    _squares("one", 1, 1),
    _squares("several turns", 3, 19),
    _squares("7 x 3", 7, 3, size="usual"),
    _squares("9 x 5", 9, 5, size="usual"),
    Case("label_weight", "one", (Out((1,)), np.zeros(1, np.int32), np.array([0.75]))),
    _label_weight("one of five", 1),
    _label_weight("several turns", 21),
    _label_weight("70", 70, "usual"),
    _one_hot("few", 4, 3, 0, 0),
    _one_hot("several turns", 5, 3, 0, 4, 1, 1, 2, 0),
    _totals(
        "ties", [10, 5, 3], np.array([0.25, 0.5, 4.0]), np.array([[1.0, 1, 0], [0, 2, 1], [3, 4, 5]]), [0, 2, 2]
    ),
    _totals("several turns", [0, 0, 9], np.abs(random(21)), random(21, 3), [i % 3 for i in range(21)]),
    _totals(
        "not a number", [0, 0, 0], np.array([1.0, 2, np.nan]), np.array([[0, np.nan], [np.nan, 9], [0, 0]]), [1, 0, 1]
    ),
    _batch("one photo", 1),
    _batch("several turns", 21),
]  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- optimizers


def _update(
    name: str, rule: str, settings: Mapping[str, float], size: int, decaying: int, decay: float = 0.05, *,
    decoupled: bool = False, step: int = 7, size_class: Size = "tiny",
) -> Case:  # fmt: skip
    scalars = {**settings, "decoupled_weight_decay" if decoupled else "weight_decay": decay}
    state = tuple(_state(array, size, seed) for seed, array in enumerate(update_rule(rule).state, 1))
    steps = np.array([step], np.int32)
    arguments = (Inout(random(size)), state, random(size, seed=9), RATE, steps, rule, scalars, decaying)
    return Case("optimizer_update", f"{rule}, {name}", arguments, size_class)


def _state(name: str, size: int, seed: int) -> Inout:
    """No negative numbers among the squares."""
    array = random(size, seed=seed)
    return Inout(np.abs(array) + 0.01 if name in ("second_moment", "squares") else array)


_ADAM = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
_LION = {"beta1": 0.9, "beta2": 0.99}
_MOMENTUM = {"momentum": 0.9}
_RMSPROP = {"beta2": 0.9, "epsilon": 1e-3}


def _adagrad(initial_squares: float) -> dict[str, float]:
    return {"initial_squares": initial_squares, "epsilon": 1e-3}


def _usual_updates() -> Iterator[Case]:
    both = (False, True)
    for size, decaying in [(1, 0), (100, 100), (9001, 5000)]:
        for rule, settings, decay, decays_apart, steps in (
            ("sgd", {}, 0.01, both[:1], (7,)),
            ("momentum", _MOMENTUM, 0.01, both, (7,)),
            ("nesterov", _MOMENTUM, 0.01, both, (7,)),
            ("rmsprop", _RMSPROP, 0.05, both, (7,)),
            ("adagrad", _adagrad(0.5), 0.05, both, (7,)),
            ("adam", _ADAM, 0.05, both, (0, 1000)),
            ("lion", _LION, 0.05, both[1:], (7,)),
        ):
            for decoupled in decays_apart:
                for step in steps:
                    name = f"{'decoupled' if decoupled else 'coupled'} decay of {decaying} of {size}, step {step}"
                    yield _update(
                        name, rule, settings, size, decaying, decay, decoupled=decoupled, step=step, size_class="usual"
                    )


def _large_updates() -> Iterator[Case]:
    for rule, settings, decay, decoupled in (
        ("sgd", {}, 0.01, False),
        ("momentum", _MOMENTUM, 0.01, False),
        ("nesterov", _MOMENTUM, 0.01, False),
        ("rmsprop", {"beta2": 0.9, "epsilon": 1e-8}, 0.05, False),
        ("adagrad", {"initial_squares": 0.1, "epsilon": 1e-8}, 0.05, False),
        ("adam", _ADAM, 0.05, True),
        ("lion", _LION, 0.05, True),
    ):
        yield _update("large", rule, settings, 9001, 5000, decay, decoupled=decoupled, step=3, size_class="large")


# Nothing pulls at the first, and a NaN comes through.
_LION_NEITHER_WAY = Case(
    "optimizer_update", "lion, neither way",
    (
        Inout(np.array([1.0, 2.0, 3.0])), (Inout(np.zeros(3)),), np.array([0.0, np.nan, -1e-30]), RATE,
        np.array([7], np.int32), "lion", {**_LION, "decoupled_weight_decay": 0.0}, 0,
    ),
)  # fmt: skip

_OF_OPTIMIZERS = [
    _update("one weight", "sgd", {}, 1, 0),
    _update("decay of some", "sgd", {}, 59, 30),
    _update("one weight", "momentum", _MOMENTUM, 1, 0),
    _update("decay of some", "momentum", _MOMENTUM, 59, 30),
    _update("decoupled", "momentum", _MOMENTUM, 11, 7, decoupled=True),
    _update("decay of all", "nesterov", _MOMENTUM, 11, 11),
    _update("decay of some", "rmsprop", _RMSPROP, 59, 30),
    _update("decoupled", "rmsprop", _RMSPROP, 7, 5, decoupled=True),
    _update("decay of some", "adagrad", _adagrad(0.0), 59, 30),
    _update("decoupled", "adagrad", _adagrad(0.5), 7, 5, decoupled=True),
    _update("first step", "adam", _ADAM, 59, 30, decoupled=True, step=0),
    _update("later", "adam", _ADAM, 7, 0, decoupled=True, step=1000),
    _update("no averages", "adam", {**_ADAM, "beta1": 0.0, "beta2": 0.0}, 7, 7, decoupled=True, step=3),
    _update("decay in the gradient", "adam", _ADAM, 7, 5, step=3),
    _update("decay of some", "lion", _LION, 59, 30, decoupled=True),
    _LION_NEITHER_WAY,
    *_usual_updates(),
    *_large_updates(),
]


# ------------------------------------------------------------------------------------------- what else is done to them


def _clip(name: str, gradient: Array, limit: float, size: Size = "tiny") -> Case:
    return Case("clip_gradient", name, (Out(gradient.shape), gradient, limit), size)


def _noise(
    name: str, size: int, step: int, noise_decay: float = 0.55, seed: int = 5, size_class: Size = "tiny"
) -> Case:
    counts = (np.arange(size // 4) * 7 % 5).astype(np.uint8)
    arguments = (Out((size,)), random(size), counts, seed, 0.25, noise_decay, np.array([step], np.int32))
    return Case("add_noise", name, arguments, size_class)


def _average(name: str, size: int, step: int, size_class: Size = "tiny") -> Case:
    arguments = (Inout(random(size)), random(size, seed=1), np.array([step], np.int32), 0.99)
    return Case("average_update", name, arguments, size_class)


def _accumulate(name: str, size: int, first: bool, size_class: Size = "tiny") -> Case:
    return Case("accumulate", name, (Inout(random(size)), random(size, seed=1), first), size_class)


def _usual_noise() -> Iterator[Case]:
    for size in (4, 100, 90_004):
        for step, decay in [(0, 0.55), (2000, 0.55), (2**31 - 2, 0.0)]:
            yield _noise(f"{size} at step {step}", size, step, decay, seed=2**32 - 1, size_class="usual")


_OF_FLAT_ARRAYS = [
    _clip("one", random(1), 0.125),
    _clip("too long", random(59), 0.5),
    _clip("short enough", random(7), 100.0),
    _clip("zeros", np.zeros(7), 1e-3),
    _clip("not a number", np.where(np.arange(11) == 10, np.nan, 1.0), 0.5),
    *(
        _clip(f"{size} to {limit:g}", random(size), limit, "usual")
        for size in (1, 100, 9001, 300_001)
        for limit in (0.5, 1e6)
    ),
    _clip("large", random(90_001), 2.0, "large"),
    _noise("first step", 4 * 5, 0),
    _noise("several turns", 4 * 61, 2000, seed=2**32 - 1),
    _noise("does not fade", 4 * 3, 2**31 - 2, 0.0),
    *_usual_noise(),
    Case(
        "add_noise", "large",
        (Out((9004,)), random(9004), np.full(2251, 4, np.uint8), 5, 0.1, 0.55, np.array([3], np.int32)), "large",
    ),
    _average("first step", 59, 0),
    _average("later", 5, 10**6),
    _average("5000 at first", 5000, 0, "usual"),
    _average("5000 later", 5000, 10**6, "usual"),
    _average("large", 9001, 3, "large"),
    _accumulate("first", 59, True),
    _accumulate("later", 59, False),
    _accumulate("9001 at first", 9001, True, "usual"),
    _accumulate("9001 later", 9001, False, "usual"),
]  # fmt: skip

CASES = [*_OF_LOSSES, *_OF_OPTIMIZERS, *_OF_FLAT_ARRAYS]
