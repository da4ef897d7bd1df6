"""Where a step's time goes."""

from types import SimpleNamespace
from typing import Any

import pytest

from facecnn.kernels import profiling
from facecnn.kernels.profiling import Profiler


def backend() -> Any:
    """Its kernels take as many milliseconds as they are told to, and nothing else takes any."""
    now = 0.0

    def kernel(milliseconds: float, workspace: Any) -> None:
        nonlocal now
        now += milliseconds

    return SimpleNamespace(
        conv_forward=kernel,
        conv_backward_weight=kernel,
        conv_backward_input=kernel,
        sgd_update=kernel,
        hold_up=lambda at_least, workspace: None,
        mark=lambda workspace: now,
        milliseconds=lambda start, stop: stop - start,
        synchronise=lambda: None,
    )


def test_a_profile_has_the_milliseconds_of_one_step_and_each_profile_starts_anew() -> None:
    profiler = Profiler(backend())
    profiler.announce("conv1", "forward")
    profiler.conv_forward(5.0, None)
    profiler.conv_forward(3.0, None)
    profiler.announce("conv1", "backward")
    profiler.conv_backward_weight(2.0, None)
    profiler.conv_backward_input(1.0, None)
    profiler.announce("update", "")
    profiler.sgd_update(4.0, None)
    assert profiler.take(4) == {
        "conv1 forward": 2.0, "conv1 backward_weight": 0.5, "conv1 backward": 0.25, "update": 1.0,
    }  # fmt: skip
    assert profiler.take(4) == {}


def test_the_device_is_held_up_before_it_could_wait_for_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first kernel, before one that comes so late that the device may be done, and when it has been waited
    for."""
    seconds = 0.0
    monkeypatch.setattr(profiling, "time", SimpleNamespace(perf_counter=lambda: seconds))
    done: list[str] = []

    def dense_forward(workspace: Any) -> None:
        done.append("kernel")

    def to_host(array: Any) -> None:
        done.append("wait")

    profiler = Profiler(
        SimpleNamespace(
            dense_forward=dense_forward,
            to_host=to_host,
            hold_up=lambda at_least, workspace: done.append(f"{at_least:.0f} ms"),
            mark=lambda workspace: done.append("mark"),
        )
    )
    timed, held_up = ["mark", "kernel", "mark"], ["10 ms", "mark", "kernel", "mark"]
    profiler.dense_forward(None)
    seconds += 0.0049
    profiler.dense_forward(None)
    seconds += 0.0002
    profiler.dense_forward(None)
    profiler.to_host(None)
    profiler.dense_forward(None)
    assert done == [*held_up, *timed, *held_up, "wait", *held_up]
