"""Training as a job, stopped after chosen steps."""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from facecnn.config import apply_overrides, load
from facecnn.errors import InterruptedTraining
from facecnn.jobs.train import train
from facecnn.jobs.training_setup import TrainOptions
from facecnn.learning.training import STEPS_BETWEEN_SAVES, StepReport

EPOCHS = 20
STEPS = 2 * EPOCHS


class Stopping:
    """A console whose user presses Ctrl-C after a chosen step."""

    def __init__(self, after_step: int | None = None) -> None:
        self.after_step = after_step

    def info(self, text: str) -> None:
        pass

    def warning(self, text: str) -> None:
        pytest.fail(text)

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: None

    @contextmanager
    def training(self, epochs: int, steps: int, label: str = "") -> Iterator["Stopping"]:
        assert (epochs, steps) == (EPOCHS, STEPS)
        yield self

    def step(self, report: StepReport) -> None:
        if report.step == self.after_step:
            signal.raise_signal(signal.SIGINT)

    def epoch(self, metrics: Mapping[str, Any], epochs: int) -> None:
        pass


def checkpoints(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.glob("*.safetensors")}


@pytest.fixture(scope="module")
def whole(people: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole")
    settings = apply_overrides(load("smoke"), [f"train.epochs={EPOCHS}"])
    train(settings, TrainOptions(photos=people, out=out, name="run"), Stopping())
    kept = checkpoints(out / "run")
    assert set(kept) == {"last.safetensors", "previous.safetensors", "best.safetensors"}
    return kept


@pytest.mark.parametrize(
    "steps",
    # In mid-epoch and at an epoch's end, around the save at the end of epoch 13 (step 26) and just before the last one.
    [[1], [2], [STEPS_BETWEEN_SAVES], [STEPS_BETWEEN_SAVES + 1], [27], [STEPS - 2], [STEPS - 1], [1, 2, 3, 26, 39]],
    ids=str,
)
def test_stopped_after_any_step_and_resumed(
    steps: list[int], whole: dict[str, bytes], people: Path, tmp_path: Path
) -> None:
    settings = apply_overrides(load("smoke"), [f"train.epochs={EPOCHS}"])
    options = TrainOptions(photos=people, out=tmp_path, name="run")
    for step in steps:
        with pytest.raises(InterruptedTraining, match=f"after step {step}, and saved") as stopped:
            train(settings, options, Stopping(step))
        assert stopped.value.exit_code == 130
        options = TrainOptions(resume=tmp_path / "run")
    train(settings, options, Stopping())
    assert checkpoints(tmp_path / "run") == whole
