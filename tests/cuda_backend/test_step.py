"""What a training step asks a card for: always the same kernels, and nothing that makes it wait for the host.

Steps are planned, not run, so this needs neither card nor simulator.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from facecnn.kernels import cuda
from facecnn.kernels.cuda import memory
from facecnn.kernels.cuda.planning import PlannedArray, planning
from facecnn.learning.progress import Recorder
from facecnn.network.size import card_bytes, measure
from machine.cuda_roofline import planned_trainer

WAITING = ("copy_to_device", "to_device", "to_host", "empty", "resident", "synchronise")


@pytest.mark.parametrize("config", ["seed", "deep", "default"])
def test_a_step_allocates_copies_and_waits_for_nothing(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = False
    calls: list[str] = []

    def watched(name: str) -> Any:
        function = getattr(memory, name)

        def call(*arguments: Any) -> Any:
            if inside:
                calls.append(name)
            return function(*arguments)

        return call

    for name in WAITING:
        monkeypatch.setattr(memory, name, watched(name))  # the workspace's allocations, too
    backend = SimpleNamespace(**{**vars(cuda), **{name: getattr(memory, name) for name in WAITING}})
    steps: list[list[Any]] = []

    def step(function: Any, workspace: Any) -> Any:
        def run() -> None:
            nonlocal inside
            before, inside = len(launches), bool(steps)  # the first step makes the workspace grow
            function()
            inside = False
            made = launches[before:]
            if made[0].kernel.py_func.__name__ == "_take_batch":  # not the copies that the kernels' watch makes
                steps.append(made)

        return run

    backend.record = step
    with planning() as launches:
        trainer = planned_trainer(config, backend, epochs=3)
        trainer.run(Recorder())
    assert len(steps) == 3
    assert not calls
    as_asked = [[(launch.kernel, launch.grid, launch.threads) for launch in launched] for launched in steps]
    assert as_asked[0] == as_asked[1] == as_asked[2]
    assert len(as_asked[0]) < 80


@pytest.mark.parametrize("batch_size", [2, 60, 500])
@pytest.mark.parametrize("config", ["smoke", "seed", "deep", "default", "many"])
def test_scratch_memory_is_counted(config: str, batch_size: int) -> None:
    """What a card has room for is reckoned with as much scratch memory, at least, as the workspace grows to."""
    with planning():
        trainer = planned_trainer(config, batch_size=batch_size)
        trainer.run(Recorder())
        trainer.answers(trainer.data.photos)
    workspace, stages = trainer.network.workspace, trainer.network.stages
    grown = sum(array.nbytes for array in [*workspace._memory.values(), *workspace._given_up])
    assert grown > 0
    normalise = trainer.settings.photos.normalise
    counted = card_bytes(stages, batch_size, normalise) - measure(stages, batch_size).training_bytes
    assert grown <= counted


@pytest.mark.parametrize(("units", "inputs"), [(3, 70_000 * 64), (70_000 * 64, 3)])
def test_a_dense_layer_may_have_millions_of_inputs_or_units(units: int, inputs: int) -> None:
    """A grid's second and third sides are at most 65,535 blocks, its first 2^31 - 1."""
    x, weight, out, bias = (
        PlannedArray(shape, np.float32) for shape in ((2, inputs), (units, inputs), (2, units), (units,))
    )
    with planning() as launches:
        workspace = cuda.Workspace()
        cuda.dense_forward(out, x, weight, bias, workspace)
        cuda.dense_backward_weight(weight, bias, out, x, workspace)
        cuda.dense_backward_input(x, out, weight, workspace)
    assert len(launches) >= 3
    for launch in launches:
        first, *others = launch.grid
        assert first < 2**31
        assert all(side < 65536 for side in others)
