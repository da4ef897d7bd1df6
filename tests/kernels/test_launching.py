"""Steps that are recorded on the CPU, and played back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest

from facecnn.kernels import cpu
from facecnn.kernels.cpu.launching import launch
from learning.trainings import RICH, Recorder, make_trainer, trained

STEPS = 5


def test_a_recorded_training_has_the_bits_of_one_that_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def plainly(function: Callable[[], None], workspace: cpu.Workspace) -> Callable[[], None]:
        return function

    settings: dict[str, Any] = {"train": {"epochs": STEPS, "average_weights": 0.9}}
    recorded: Recorder = trained(make_trainer(RICH, **settings))
    monkeypatch.setattr(cpu, "record", plainly)
    plain = trained(make_trainer(RICH, **settings))
    assert recorded.lasts == plain.lasts
    assert recorded.figures() == plain.figures()


def test_what_is_recorded_is_called_twice_and_then_played() -> None:
    calls, counts = [], []
    array = np.zeros(1)

    def kernel(into: Any, threads: int) -> None:
        into += 1
        counts.append(numba.get_num_threads())

    def step() -> None:
        calls.append(1)
        launch(kernel, array, 1, operations=1)
        launch(kernel, array, 2)

    run = cpu.record(step, cpu.Workspace())
    for _ in range(STEPS):
        run()
    assert len(calls) == 2
    assert array == 2 * STEPS
    assert counts == [1, numba.get_num_threads()] * STEPS


def test_after_an_error_nothing_is_recorded_any_more() -> None:
    calls = 0
    launched = []

    def step() -> None:
        nonlocal calls
        calls += 1
        launch(launched.append, calls)
        if calls == 2:
            raise KeyboardInterrupt

    run = cpu.record(step, cpu.Workspace())
    run()
    with pytest.raises(KeyboardInterrupt):
        run()
    launch(launched.append, 0)
    run()
    run()
    assert launched == [1, 2, 0, 3, 3]
