"""Trying several initial weights as a part of the job: what is written and said, and stops in the trials."""

import json
import signal
from pathlib import Path

import pytest

from facecnn.config import Loaded, apply_overrides, load
from facecnn.errors import InterruptedTraining
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.train import train
from facecnn.learning.progress import StepReport
from facecnn.runs.checkpoint import load_checkpoint

from .test_train import EPOCHS, Stopping, results

STARTS, TRIAL = 3, 4
TRIAL_STEPS = 2 * TRIAL


def settings(*others: str) -> Loaded:
    overrides = [f"train.epochs={EPOCHS}", f"train.restarts={STARTS}", f"train.restart_epochs={TRIAL}"]
    return apply_overrides(load("smoke"), [*overrides, *others])


class Trying(Stopping):
    """A console that keeps what is said, and whose user presses Ctrl-C after a step of a trial, or of the training."""

    def __init__(self, after_step: int | None = None, of_start: int | None = None) -> None:
        super().__init__(after_step if of_start is None else None)
        self._of_trial = None if of_start is None else (of_start, after_step)
        self.said: list[str] = []

    def info(self, text: str) -> None:
        self.said.append(text)

    def trial_step(self, start: int, report: StepReport) -> None:
        assert (report.epochs, report.steps) == (TRIAL, TRIAL_STEPS)
        if (start, report.step) == self._of_trial:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def whole(people: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], dict[str, object], Path]:
    out = tmp_path_factory.mktemp("whole")
    console = Trying()
    figures = train(settings(), TrainOptions(photos=people, out=out, name="run"), console)
    assert f"Restarts: {STARTS} different initial weights are tried for {TRIAL} epochs each" in "\n".join(console.said)
    losses = [row["loss"] for row in figures["restarts"]]
    for start, loss in enumerate(losses):
        assert f"start {start}: training loss {loss:.4f}" in console.said
    assert f"start {losses.index(min(losses))} has learned best, and is trained" in console.said
    return results(out / "run"), figures, out / "run"


def test_metrics_hold_the_epochs_of_the_chosen_start_only(whole: tuple[object, dict[str, object], Path]) -> None:
    _, figures, run = whole
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
    assert isinstance(figures["restarts"], list)
    assert [row["start"] for row in figures["restarts"]] == list(range(STARTS))
    assert rows[TRIAL - 1]["train_loss"] == min(row["loss"] for row in figures["restarts"])


def test_without_restarts_there_are_none_to_tell_of(people: Path, tmp_path: Path) -> None:
    console = Trying()
    figures = train(settings("train.restarts=1"), TrainOptions(photos=people, out=tmp_path, name="run"), console)
    assert figures["restarts"] is None
    assert not [text for text in console.said if text.lower().startswith(("start", "restarts"))]


@pytest.mark.parametrize(
    "stops",
    [
        [(1, 0)],
        [(TRIAL_STEPS, 0)],
        pytest.param([(3, STARTS - 1)], marks=pytest.mark.slow),
        pytest.param([(TRIAL_STEPS, STARTS - 1)], marks=pytest.mark.slow),
        [(1, 1), (2, 1), (TRIAL_STEPS - 1, 2), (1, None), (2, None), (30, None)],
        [(2 * EPOCHS - 1, None)],
    ],
    ids=str,
)
def test_stopped_after_any_step_and_resumed(
    stops: list[tuple[int, int | None]],
    whole: tuple[dict[str, bytes], dict[str, object], Path],
    people: Path,
    tmp_path: Path,
    pictures: None,
) -> None:
    bytes_of, figures, _ = whole
    options = TrainOptions(photos=people, out=tmp_path, name="run")
    for step, start in stops:
        trials_are_over = start is None or (start, step) == (STARTS - 1, TRIAL_STEPS)
        message = (
            "Stopped in epoch" if trials_are_over else r"Stopped with \d of 3 initial weights left to try, and saved"
        )
        with pytest.raises(InterruptedTraining, match=message):
            train(settings(), options, Trying(step, start))
        options = TrainOptions(resume=tmp_path / "run")
        if start is not None:
            assert load_checkpoint(tmp_path / "run", which="last").state["progress"]["epoch"] == 0
    again = train(settings(), options, Trying())
    assert again["restarts"] == figures["restarts"]
    assert results(tmp_path / "run") == bytes_of
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == EPOCHS
