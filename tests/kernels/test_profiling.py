"""Where a step's time goes."""

from types import SimpleNamespace
from typing import Any

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
