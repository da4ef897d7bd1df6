"""Schedules: where they begin and end, what they never do, and that plateau hears the losses and goes on exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.learning.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    Exponential,
    OneCycle,
    Plateau,
    Polynomial,
    Schedule,
    Step,
)

from .trainings import HELD_OUT, Recorder, make_trainer, photos_of, trained

shares = st.floats(0, 1)
above_0 = st.floats(1e-6, 1)
falling_schedules = st.one_of(
    st.builds(Constant, warmup=shares),
    st.builds(Step, warmup=shares, drops=st.integers(1, 12), factor_each=st.floats(0.01, 0.99)),
    st.builds(Exponential, warmup=shares, end=above_0),
    st.builds(Cosine, warmup=shares, floor=shares),
    st.builds(Polynomial, warmup=shares, power=st.floats(0.1, 10), floor=shares),
    st.builds(Plateau, warmup=shares),
)
restarting = st.builds(Cosine, warmup=shares, floor=shares, restarts=st.integers(1, 20), stretch=st.floats(1, 4))
one_cycles = st.builds(OneCycle, warmup=shares, start=above_0, end=above_0, shape=st.sampled_from(["cosine", "linear"]))
quickly = settings(deadline=None, derandomize=True, max_examples=200)


def course(schedule: Schedule, steps: int) -> list[float]:
    return [schedule.factor(step, steps) for step in range(steps)]


@quickly
@given(schedule=st.one_of(falling_schedules, restarting, one_cycles), steps=st.integers(1, 300))
def test_factors_are_above_0_and_at_most_1(schedule: Schedule, steps: int) -> None:
    assert all(0 < factor <= 1 for factor in course(schedule, steps))


@quickly
@given(schedule=st.one_of(falling_schedules, restarting), steps=st.integers(1, 300))
def test_the_warmup_rises_and_the_full_rate_follows(schedule: Schedule, steps: int) -> None:
    factors = course(schedule, steps)
    warm = round(schedule.warmup * steps)
    assert all(later > earlier for earlier, later in pairwise(factors[:warm]))
    assert factors[warm:][:1] in ([], [1])


@quickly
@given(schedule=falling_schedules, steps=st.integers(1, 300))
def test_after_the_warmup_the_rate_never_rises(schedule: Schedule, steps: int) -> None:
    falling = course(schedule, steps)[round(schedule.warmup * steps) :]
    assert all(later <= earlier for earlier, later in pairwise(falling))


def test_warmup_is_linear_and_reaches_the_full_rate_right_after() -> None:
    assert course(Constant(warmup=0.4), 10) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1])


def test_step_falls_at_equal_distances() -> None:
    factors = course(Step(drops=2, factor_each=0.5), 9)
    assert factors == pytest.approx([1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25])


@quickly
@given(drops=st.integers(1, 20), length=st.integers(1, 20))
def test_each_stretch_of_step_is_as_long_as_the_others(drops: int, length: int) -> None:
    factors = course(Step(drops=drops, factor_each=0.5), (drops + 1) * length)
    assert factors == [0.5 ** (step // length) for step in range(len(factors))]


@pytest.mark.parametrize("end", [0.5, 0.01])
def test_exponential_falls_by_the_same_factor_each_step_to_its_end(end: float) -> None:
    factors = course(Exponential(end=end), 1000)
    assert [later / earlier for earlier, later in pairwise(factors)] == pytest.approx([end**0.001] * 999)
    assert factors[-1] == pytest.approx(end, rel=0.01)


@pytest.mark.parametrize("floor", [0.0, 0.25])
def test_cosine_is_half_way_in_the_middle_and_ends_at_its_floor(floor: float) -> None:
    cosine = Cosine(floor=floor)
    assert cosine.factor(0, 1000) == 1
    assert cosine.factor(500, 1000) == pytest.approx((1 + floor) / 2)
    assert cosine.factor(999, 1000) == pytest.approx(floor, abs=1e-5)


@quickly
@given(
    restarts=st.integers(0, 6),
    stretch=st.floats(1, 4),
    steps=st.integers(1, 300),
    floor=st.floats(0, 0.9),
)
def test_cosine_restarts_at_most_so_often_each_cycle_no_shorter(
    restarts: int, stretch: float, steps: int, floor: float
) -> None:
    factors = course(Cosine(restarts=restarts, stretch=stretch, floor=floor), steps)
    starts = [0, *(step for step in range(1, steps) if factors[step] > factors[step - 1])]
    assert all(factors[start] == 1 for start in starts)
    assert len(starts) <= restarts + 1
    if steps >= 3 * 4**restarts:  # no cycle is so short that rounding swallows it
        assert len(starts) == restarts + 1
        lengths = [stop - start for start, stop in pairwise([*starts, steps])]
        assert all(later >= earlier - 1 for earlier, later in pairwise(lengths))


def test_each_cycle_of_cosine_is_so_many_times_as_long_as_the_last() -> None:
    factors = course(Cosine(restarts=2, stretch=2, floor=0), 70)
    assert [step for step in range(1, 70) if factors[step] > factors[step - 1]] == [10, 30]


@quickly
@given(schedule=one_cycles, steps=st.integers(2, 300))
def test_one_cycle_rises_to_the_full_rate_and_ends_as_told(schedule: OneCycle, steps: int) -> None:
    factors = course(schedule, steps)
    peak = max(0, round(schedule.warmup * steps) - 1)
    assert factors[peak] == 1
    assert all(later >= earlier for earlier, later in pairwise(factors[: peak + 1]))
    assert all(later <= earlier for earlier, later in pairwise(factors[peak:]))
    if peak > 0:
        assert factors[0] == pytest.approx(schedule.start)
    if peak < steps - 1:
        assert factors[-1] == pytest.approx(schedule.end)


def test_polynomial_of_power_1_is_a_line() -> None:
    assert course(Polynomial(power=1), 4) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert course(Polynomial(power=2, floor=0.2), 2) == pytest.approx([1, 0.2 + 0.8 * 0.25])


def heard(schedule: Schedule, losses: list[float]) -> list[float]:
    """The factor after each epoch; what is remembered goes through JSON, as through a checkpoint."""
    memory: dict[str, float] = {}
    factors = []
    for loss in losses:
        memory = json.loads(json.dumps(schedule.after_epoch(memory, loss)))
        factors.append(schedule.factor(5, 10, memory))
    return factors


def test_plateau_falls_when_the_loss_has_not_for_longer_than_its_patience() -> None:
    plateau = Plateau(patience=1, factor_each=0.5, threshold=0.1, floor=0.25)
    assert heard(plateau, [1.0, 0.8, 0.79, 0.78, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]) == [
        1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25,
    ]  # fmt: skip


def test_plateau_wants_a_share_of_the_loss_and_not_an_amount() -> None:
    plateau = Plateau(patience=0, factor_each=0.5, threshold=0.1)
    assert heard(plateau, [100.0, 95.0, 89.0]) == [1, 0.5, 0.5]
    assert heard(plateau, [0.01, 0.005]) == [1, 1]


def test_plateau_does_not_count_epochs_while_it_cools_down() -> None:
    assert heard(Plateau(patience=0, factor_each=0.5, cooldown=2), [1.0] * 7) == [1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_the_others_remember_nothing() -> None:
    for schedule in SCHEDULES.values():
        if schedule is not Plateau:
            assert heard(schedule(), [1.0] * 30)[-1] == schedule().factor(5, 10)


PLATEAU = Plateau(patience=0, factor_each=0.5, threshold=0.9)
"""Only a miracle counts as gain."""


def test_a_training_lowers_its_rate_where_the_loss_of_held_out_photos_does_not_fall() -> None:
    """The training loss falls from epoch to epoch; that of photos under the wrong names rises."""
    falling = {"schedule": Plateau(patience=0, factor_each=0.5, threshold=0.01), "train": {"epochs": 4}}
    right = photos_of(HELD_OUT, seed=9)
    for validation, factors in (
        (replace(right, labels=1 - right.labels), [1, 1, 0.5, 0.25]),
        (right, [1, 1, 1, 1]),
        (photos_of(np.zeros(0, np.int64)), [1, 1, 1, 1]),  # none: the training loss counts
    ):
        epochs = trained(make_trainer(validation=validation, **falling)).epochs
        assert [epoch["learning_rate"] / 0.01 for epoch in epochs] == pytest.approx(factors)


def test_without_held_out_photos_the_training_loss_counts() -> None:
    training = make_trainer(schedule=PLATEAU, train={"epochs": 4}, validation=photos_of(np.zeros(0, np.int64)))
    assert [epoch["learning_rate"] / 0.01 for epoch in trained(training).epochs] == pytest.approx([1, 1, 0.5, 0.25])


def test_plateau_goes_on_after_an_interrupt_as_if_there_had_been_none() -> None:
    training = {"schedule": PLATEAU, "train": {"epochs": 5}}
    whole = trained(make_trainer(**training))
    for stop in (7, 9, 10, 13):
        recorder = Recorder()
        first = make_trainer(**training)
        assert not first.run(recorder, lambda: first.progress.step == stop)  # noqa: B023
        assert recorder.saved is not None
        arrays, progress = recorder.saved
        second = make_trainer(**training)
        second.restore(arrays, json.loads(json.dumps(progress)))
        assert second.run(recorder)
        assert recorder.figures() == whole.figures()
        assert recorder.lasts[-1] == whole.lasts[-1]


def test_schedules_go_by_their_names() -> None:
    names = ["constant", "step", "exponential", "cosine", "one_cycle", "polynomial", "plateau"]
    assert [(name, schedule().name) for name, schedule in SCHEDULES.items()] == [(name, name) for name in names]
