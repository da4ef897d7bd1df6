"""Training as a job, stopped after chosen steps."""

import gc
import json
import signal
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from facecnn.config import apply_overrides, load
from facecnn.errors import InterruptedTraining
from facecnn.jobs.console import Console, TrainingDisplay
from facecnn.jobs.training import train as training
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.train import train
from facecnn.learning.progress import StepReport
from facecnn.runs.checkpoint import load_checkpoint, save_checkpoint

EPOCHS = 20
STEPS = 2 * EPOCHS
BETWEEN_SAVES = 25
pytestmark = pytest.mark.usefixtures("module_saves")


class Stopping(Console, TrainingDisplay):
    """A console whose user presses Ctrl-C after a chosen step."""

    def __init__(self, after_step: int | None = None) -> None:
        self.after_step = after_step

    def warning(self, text: str) -> None:
        pytest.fail(text)

    @contextmanager
    def training(self, epochs: int, steps: int, label: str = "", lines: int = 0) -> Iterator["Stopping"]:
        assert (epochs, steps) == (EPOCHS, STEPS)
        yield self

    def step(self, report: StepReport) -> None:
        if report.step == self.after_step:
            signal.raise_signal(signal.SIGINT)


PICTURES = ("kernels.gif", "kernels.png", "watching.png")


def results(run: Path) -> dict[str, bytes]:
    """The checkpoints, and the pictures of the kernels over the whole training."""
    return {path.name: path.read_bytes() for path in [*run.glob("*.safetensors"), *(run / name for name in PICTURES)]}


@pytest.mark.parametrize(("epochs", "profile"), [(EPOCHS, False), (1, False), (2, True)])
def test_the_trainings_memory_is_free_before_the_model_is_judged(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, profile: bool
) -> None:
    """Without Python's garbage collector, which takes a twentieth of a second. In one epoch no step comes twice, and
    with a profile none is recorded."""
    trained, alive = [], []
    make, finish = training.make_any_trainer, training.finish

    def made(*arguments: Any, **options: Any) -> Any:
        trainer = make(*arguments, **options)
        trained.append(weakref.ref(trainer.network))
        return trainer

    def finished(*arguments: Any) -> dict[str, Any]:
        alive.append(trained[0]())
        return finish(*arguments)

    monkeypatch.setattr(training, "make_any_trainer", made)
    monkeypatch.setattr(training, "finish", finished)
    settings = apply_overrides(load("smoke"), [f"train.epochs={epochs}"])
    gc.disable()
    try:
        train(settings, TrainOptions(photos=people, out=tmp_path, name="run", profile=profile), Console())
    finally:
        gc.enable()
    assert alive == [None]


@pytest.fixture(scope="module")
def whole(people: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole")
    settings = apply_overrides(load("smoke"), [f"train.epochs={EPOCHS}"])
    train(settings, TrainOptions(photos=people, out=out, name="run"), Stopping())
    kept = results(out / "run")
    assert set(kept) == {"last.safetensors", "previous.safetensors", "best.safetensors", *PICTURES}
    return kept


@pytest.mark.parametrize(
    "steps",
    # In mid-epoch and at an epoch's end, around the save at the end of epoch 13 (step 26) and just before the last one.
    [
        [1],
        *(pytest.param([step], marks=pytest.mark.slow) for step in (2, 27, STEPS - 2)),
        [BETWEEN_SAVES],
        [BETWEEN_SAVES + 1],
        [STEPS - 1],
        [1, 2, 3, 26, 39],
    ],
    ids=str,
)
def test_stopped_after_any_step_and_resumed(
    steps: list[int], whole: dict[str, bytes], people: Path, tmp_path: Path, pictures: None
) -> None:
    settings = apply_overrides(load("smoke"), [f"train.epochs={EPOCHS}"])
    options = TrainOptions(photos=people, out=tmp_path, name="run")
    for step in steps:
        with pytest.raises(InterruptedTraining, match=f"after step {step}, and saved") as stopped:
            train(settings, options, Stopping(step))
        assert stopped.value.exit_code == 130
        options = TrainOptions(resume=tmp_path / "run")
    train(settings, options, Stopping())
    assert results(tmp_path / "run") == whole


def test_a_run_begun_before_kernels_were_watched_can_be_gone_on_with(people: Path, tmp_path: Path) -> None:
    settings = apply_overrides(load("smoke"), [f"train.epochs={EPOCHS}"])
    run = tmp_path / "run"
    with pytest.raises(InterruptedTraining):
        train(settings, TrainOptions(photos=people, out=tmp_path, name="run"), Stopping(26))
    # What the older version wrote: no frames, no figures of each kernel, a setting fewer.
    (run / "kernels.frames").unlink()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        for key in ("kernels", "asleep_kernels"):
            row.pop(key, None)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    checkpoint = load_checkpoint(run, which="last")
    del checkpoint.settings["train"]["initialisation"]
    save_checkpoint(run / "last.safetensors", checkpoint)
    lines = (run / "config.yaml").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.strip().startswith("initialisation:")]
    assert len(kept) == len(lines) - 1
    (run / "config.yaml").write_text("\n".join(kept) + "\n", encoding="utf-8")

    done = train(settings, TrainOptions(resume=run), Stopping())
    assert done["epochs"] == EPOCHS
    with Image.open(run / "kernels.gif") as film:
        # Before the first step, and the seven epochs after the thirteenth.
        assert getattr(film, "n_frames", 1) == 1 + EPOCHS - 13
    assert (run / "watching.png").exists()

    # It has ended since, and only the pictures are made anew.
    for name in PICTURES:
        (run / name).unlink()
    assert train(settings, TrainOptions(resume=run), Stopping())["dead_kernels"] == done["dead_kernels"]
    assert all((run / name).exists() for name in PICTURES)


class Listening(Stopping):
    """A console that keeps its warnings."""

    def __init__(self, after_step: int | None = None) -> None:
        super().__init__(after_step)
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def test_dead_kernels_are_named_once_even_after_a_resume(people: Path, tmp_path: Path) -> None:
    settings = apply_overrides(load("smoke"), [f"train.epochs={EPOCHS}", "network.0.conv.activation=relu"])
    run = tmp_path / "run"
    with pytest.raises(InterruptedTraining):
        train(settings, TrainOptions(photos=people, out=tmp_path, name="run"), Stopping(1))
    checkpoint = load_checkpoint(run, which="last")
    bias = checkpoint.arrays["model.conv1.bias"].copy()
    bias[2:4] = -1000  # of a relu, which no photo opens
    save_checkpoint(
        run / "last.safetensors", replace(checkpoint, arrays={**checkpoint.arrays, "model.conv1.bias": bias})
    )

    first, second = Listening(STEPS - 5), Listening()
    with pytest.raises(InterruptedTraining):
        train(settings, TrainOptions(resume=run), first)
    result = train(settings, TrainOptions(resume=run), second)
    (warning,) = [text for text in first.warnings if "dead" in text]
    assert "conv1[2], conv1[3] (never active)" in warning
    assert "leaky_relu" in warning
    assert second.warnings == []
    assert result["dead_kernels"] == ["conv1[2]", "conv1[3]"]


def test_a_network_without_conv_layers_has_no_pictures_of_kernels(people: Path, tmp_path: Path) -> None:
    settings = apply_overrides(load("smoke"), [f"train.epochs={EPOCHS}", "network=[{dense: people}]"])
    result = train(settings, TrainOptions(photos=people, out=tmp_path, name="run"), Stopping())
    assert result["kernel_change"] == {}
    assert not any((tmp_path / "run" / name).exists() for name in PICTURES)


@pytest.mark.parametrize("how", ["xavier", "lecun", "orthogonal", "lsuv", "zca_patches"])
def test_a_training_begins_with_the_initialisation_that_is_chosen(how: str, people: Path, tmp_path: Path) -> None:
    start = {}
    for name in ("he", how):
        settings = apply_overrides(load("smoke"), [f"train.epochs={EPOCHS}", f"train.initialisation={name}"])
        options = TrainOptions(photos=people, out=tmp_path, name=name)
        with pytest.raises(InterruptedTraining):
            train(settings, options, Stopping(1))
        with (tmp_path / name / "kernels.frames").open("rb") as stream:
            stream.readline()
            start[name] = stream.read()
    assert start[how] != start["he"]


def test_held_out_photos_that_are_judged_in_blocks_calibrate_the_same_model(
    people: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facecnn.jobs.training.finish.MOST_NUMBERS", 0)
    monkeypatch.setattr("facecnn.network.inference.MOST_NUMBERS", 1)
    settings = apply_overrides(load("smoke"), [f"train.epochs={EPOCHS}"])
    result = train(settings, TrainOptions(photos=people, out=tmp_path, name="run"), Stopping())
    assert result["photos"]["validation"] > 1
    for name in ("best.safetensors", "last.safetensors", "previous.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == whole[name], name


@pytest.mark.slow
def test_a_tracked_training_that_was_stopped_has_every_epoch_once(people: Path, tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = apply_overrides(load("smoke"), [f"train.epochs={EPOCHS}"])
    options = TrainOptions(photos=people, out=tmp_path, name="run", track=True)
    for step in (3, 26, 27, STEPS - 1):
        with pytest.raises(InterruptedTraining):
            train(settings, options, Stopping(step))
        options = TrainOptions(resume=tmp_path / "run")  # it goes on tracking without being told
    train(settings, options, Stopping())
    events = accumulators.EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
    losses = [(event.step, event.value) for event in events.Scalars("loss/train")]
    assert losses == [(row["epoch"], pytest.approx(row["train_loss"], rel=1e-6)) for row in rows]
