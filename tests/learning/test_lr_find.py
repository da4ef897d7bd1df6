"""The range test: what it measures, when it ends, and that its suggestion is a rate to train with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.learning.loop import Trainer
from facecnn.learning.lr_find import (
    DIVERGED,
    HIGHEST,
    LOWEST,
    Losses,
    Ramp,
    gather,
    range_test,
    smoothed,
    suggested_rate,
)
from facecnn.learning.optimizers import AdamW, Momentum
from facecnn.learning.progress import StepReport

from .trainings import Recorder, make_trainer, photos_of

STEPS = 60


def rising(optimizer: Any, **changes: Any) -> Trainer:
    train = {"epochs": STEPS, "seed": changes.pop("seed", 0)}
    return make_trainer(
        optimizer=optimizer, schedule=Ramp(length=STEPS), train=train, validation=photos_of(np.zeros(0, int)), **changes
    )


def test_the_ramp_goes_from_the_lowest_to_the_highest_by_equal_factors() -> None:
    ramp = Ramp(length=STEPS)
    rates = [HIGHEST * ramp.factor(step, 2 * STEPS) for step in range(2 * STEPS)]
    assert rates[0] == pytest.approx(LOWEST)
    assert rates[STEPS - 1 :] == pytest.approx([HIGHEST] * (STEPS + 1))
    assert np.diff(np.log(rates[:STEPS])) == pytest.approx(np.log(HIGHEST / LOWEST) / (STEPS - 1))


def test_a_range_test_sees_the_losses_of_training_at_its_rates() -> None:
    done: list[int] = []
    seen = range_test(rising(AdamW(learning_rate=HIGHEST)), STEPS, done.append)
    trainer, objectives = rising(AdamW(learning_rate=HIGHEST)), []

    class Objectives(Recorder):
        def step(self, step: StepReport) -> None:
            objectives.append(trainer.objective())

    trainer.run(Objectives(), lambda: len(objectives) == len(seen.losses))
    assert seen.losses.tolist() == objectives
    assert done == list(range(1, len(done) + 1))


@pytest.mark.parametrize("optimizer", [Momentum(learning_rate=HIGHEST), AdamW(learning_rate=HIGHEST)], ids=repr)
def test_the_middle_is_a_rate_that_learns(optimizer: Any) -> None:
    test = gather([range_test(rising(optimizer, seed=seed), STEPS) for seed in range(2)], STEPS)
    assert test.low is not None
    assert test.middle is not None
    assert test.low[0] <= test.middle * 1.05
    assert test.middle <= test.low[1] * 1.05

    def loss_at(rate: float) -> float:
        trainer = make_trainer(optimizer=type(optimizer)(learning_rate=rate), train={"epochs": 12})
        recorder = Recorder()
        trainer.run(recorder)
        return float(recorder.epochs[-1]["train_loss"])

    suggested = loss_at(test.middle)
    assert suggested < 0.35
    assert suggested < loss_at(test.middle / 300)


def test_it_ends_when_the_loss_has_grown_too_large() -> None:
    seen = range_test(rising(Momentum(learning_rate=HIGHEST, momentum=0.99)), STEPS)
    assert seen.diverged
    assert len(seen.losses) < STEPS
    assert np.isfinite(seen.losses).all()


def fall_and_rise(reached: int, left: int, noise: float, seed: int, steps: int = 150) -> Losses:
    """A loss that falls from 1 to a floor of 0.2, which it reaches and leaves at these steps."""
    step = np.arange(steps)
    down = np.clip((reached - step) / 30, 0, 1)
    up = np.clip((step - left) / 12, 0, 3)
    random = np.random.default_rng(seed)
    losses = (0.2 + 0.8 * down + 0.8 * up) * (1 + noise * random.standard_normal(steps))
    ended = int(np.flatnonzero(losses > DIVERGED)[0]) if (losses > DIVERGED).any() else steps
    return Losses(losses[:ended], ended < steps)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    reached=st.integers(35, 80),
    length=st.integers(10, 50),
    noise=st.floats(0, 0.2),
    seed=st.integers(0, 1000),
)
def test_the_middle_of_the_floor_is_found(reached: int, length: int, noise: float, seed: int) -> None:
    tests = [fall_and_rise(reached, reached + length, noise, seed + number) for number in range(3)]
    found = gather(tests, 150)
    assert found.middle is not None
    middle = found.rates[reached + length // 2]
    assert abs(np.log10(found.middle / middle)) < 0.4


def test_one_explosion_does_not_hide_the_others() -> None:
    tests = [fall_and_rise(60, 100, 0.05, seed) for seed in range(3)]
    exploded = [Losses(np.append(tests[0].losses[:95], 1e30), True), *tests[1:]]
    calm, wild = gather(tests, 150).middle, gather(exploded, 150).middle
    assert calm is not None
    assert wild == pytest.approx(calm, rel=0.5)


def test_without_a_fall_there_is_no_suggestion() -> None:
    test = gather([Losses(np.ones(150), False)], 150)
    assert (test.middle, test.low, test.diverged) == (None, None, False)
    rising_only = gather([Losses(np.linspace(1, 1.9, 150), False)], 150)
    assert rising_only.middle is None


def test_the_suggestion_is_the_middle_but_no_longer_than_the_curvature_allows() -> None:
    test = gather([fall_and_rise(60, 100, 0.0, 0)], 150)
    assert test.middle is not None
    for no_limit in (None, -3.0, 0.0, 0.9 / test.middle):
        assert suggested_rate(test, no_limit) == test.middle
    assert suggested_rate(test, 3 / test.middle) == pytest.approx(test.middle / 3, rel=0.05)
    assert suggested_rate(gather([Losses(np.ones(150), False)], 150), 7.0) is None


@settings(deadline=None, derandomize=True, max_examples=60)
@given(losses=st.lists(st.floats(0, 10), min_size=1, max_size=60), keep=st.floats(0, 0.99))
def test_smoothing_stays_within_the_losses_and_keeps_what_is_even(losses: list[float], keep: float) -> None:
    smooth = smoothed(np.array(losses), keep)
    assert len(smooth) == len(losses)
    assert min(losses) - 1e-9 <= smooth.min()
    assert smooth.max() <= max(losses) + 1e-9
    assert smoothed(np.full(len(losses), 3.0), keep) == pytest.approx(3)
    assert smoothed(np.array(losses[::-1]), keep) == pytest.approx(smooth[::-1])
