"""Schedules: where they begin and end, and that they never rise but in the warm-up."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.learning.schedules import SCHEDULES, Constant, Cosine, Schedule, Step

warmups = st.floats(0, 1)
schedules = st.one_of(
    st.builds(Constant, warmup=warmups),
    st.builds(Step, warmup=warmups, drops=st.integers(1, 12), factor_each=st.floats(0.01, 0.99)),
    st.builds(Cosine, warmup=warmups, floor=st.floats(0, 1)),
)


def course(schedule: Schedule, steps: int) -> list[float]:
    return [schedule.factor(step, steps) for step in range(steps)]


@settings(deadline=None, derandomize=True, max_examples=200)
@given(schedule=schedules, steps=st.integers(1, 300))
def test_factors_rise_through_the_warmup_and_then_never_again(schedule: Schedule, steps: int) -> None:
    factors = course(schedule, steps)
    assert all(0 <= factor <= 1 for factor in factors)
    assert all(factor > 0 for factor in factors[:-1])
    warm = round(schedule.warmup * steps)
    rising, falling = factors[:warm], factors[warm:]
    assert all(later > earlier for earlier, later in pairwise(rising))
    assert all(later <= earlier for earlier, later in pairwise(falling))
    if falling:
        assert falling[0] == 1


def test_warmup_is_linear_and_reaches_the_full_rate_right_after() -> None:
    assert course(Constant(warmup=0.4), 10) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1])


def test_step_falls_at_equal_distances() -> None:
    factors = course(Step(drops=2, factor_each=0.5), 9)
    assert factors == pytest.approx([1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25])


@pytest.mark.parametrize("floor", [0.0, 0.25])
def test_cosine_is_half_way_in_the_middle_and_ends_at_its_floor(floor: float) -> None:
    cosine = Cosine(floor=floor)
    assert cosine.factor(0, 1000) == 1
    assert cosine.factor(500, 1000) == pytest.approx((1 + floor) / 2)
    assert cosine.factor(999, 1000) == pytest.approx(floor, abs=1e-5)


def test_schedules_go_by_their_names() -> None:
    assert {name: schedule().name for name, schedule in SCHEDULES.items()} == {
        "constant": "constant", "step": "step", "cosine": "cosine",
    }  # fmt: skip
