"""``facecnn train --init-from``."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facecnn.config import load
from facecnn.errors import InterruptedTraining
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.train import train
from facecnn.learning.progress import StepReport
from facecnn.runs.checkpoint import load_checkpoint

from .contract import check
from .running import Facecnn, Outcome, Trained

FIGURES = {"init_from": {"model": str, "taken": [str], "fresh": [str]}}
SMOKE = ["conv1", "conv2", "neuron1", "dense1"]
CHECKPOINTS = ("last.safetensors", "best.safetensors")

Begin = Callable[..., Outcome]


@pytest.fixture
def begin(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> Begin:
    """Train for an epoch from the weights of ``trained``, on the same photos unless others are given."""

    def run(*options: str | Path, photos: Path | None = None, model: Path | None = None) -> Outcome:
        arguments = ["-c", "smoke", "--epochs", "1", "--out", tmp_path, "--name", "run", "--format", "json"]
        return facecnn("train", photos or trained.photos, *arguments, "--init-from", model or trained.path, *options)

    return run


def weights(model: Path) -> dict[str, np.ndarray]:
    arrays = load_checkpoint(model).arrays
    return {name.removeprefix("model."): array for name, array in arrays.items() if name.startswith("model.")}


def start_of(run: Path) -> dict[str, np.ndarray]:
    """What a run took over, as its checkpoint holds it."""
    arrays = load_checkpoint(run, which="last").arrays
    return {name.removeprefix("taken."): array for name, array in arrays.items() if name.startswith("taken.")}


@pytest.mark.parametrize("file", ["", "best.safetensors"])
def test_all_that_fits_is_taken(file: str, begin: Begin, trained: Trained, tmp_path: Path) -> None:
    model = trained.path / file
    done = begin(model=model)
    assert done.exit_code == 0, done.stderr
    check(done.json(), FIGURES)
    best = trained.path / "best.safetensors"
    assert done.json()["init_from"] == {"model": str(best), "taken": SMOKE, "fresh": []}
    assert f"Initial weights: conv1, conv2, neuron1, dense1 of {best}" in done.stderr
    assert "fresh" not in done.stderr
    assert "warning" not in done.stderr
    before = weights(best)
    begun = start_of(tmp_path / "run")
    assert begun.keys() == before.keys()
    assert all(np.array_equal(begun[name], array) for name, array in before.items())
    # It goes on from there: one epoch from nothing is far behind.
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    first = json.loads((trained.path / "metrics.jsonl").read_text().splitlines()[0])
    assert rows[0]["train_loss"] < first["train_loss"] / 2


def test_without_it_json_has_null(trained: Trained) -> None:
    assert trained.figures["init_from"] is None


def test_other_people_get_a_last_layer_of_their_own(
    begin: Begin, write_people: Callable[..., Path], tmp_path: Path
) -> None:
    for counts in ({"ann": 6, "carl": 6}, {"ann": 6, "bob": 6, "carl": 6}, {"ann": 6, "unknown": 6}):
        done = begin("--overwrite", photos=write_people(counts, start=50))
        assert done.exit_code == 0, done.stderr
        figures = done.json()["init_from"]
        assert (figures["taken"], figures["fresh"]) == (SMOKE[:-1], ["dense1"])
        assert "Starting fresh: dense1 (other people)" in done.stderr
        assert not [name for name in start_of(tmp_path / "run") if name.startswith("dense1")]


def test_layers_of_another_shape_or_name_start_fresh(begin: Begin, trained: Trained, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "configs" / "smoke.yaml").read_text(encoding="utf-8")
    config = tmp_path / "mine.yaml"
    changed = text.replace("per_kernel: 2", "per_kernel: 3").replace(
        "  - dense: {units: people}", "  - batch_norm: {}\n  - dense: {units: people}"
    )
    config.write_text(changed, encoding="utf-8")
    done = begin("-c", config)
    assert done.exit_code == 0, done.stderr
    assert done.json()["init_from"]["taken"] == ["conv1", "conv2"]
    reasons = "neuron1 (another shape), batch_norm1 (not in it), dense1 (another shape)"
    assert f"Starting fresh: {reasons}" in done.stderr


def test_frozen_layers_keep_what_was_taken(begin: Begin, trained: Trained, tmp_path: Path) -> None:
    done = begin("--set", "train.freeze=2")
    assert done.exit_code == 0, done.stderr
    before, after = weights(trained.path), weights(tmp_path / "run")
    same = {name.split(".")[0] for name, array in after.items() if np.array_equal(array, before[name])}
    assert same == {"conv1", "conv2"}
    assert done.json()["kernel_change"] == {"conv1": 0, "conv2": 0}


def test_a_frozen_layer_that_starts_fresh_is_warned_of(begin: Begin) -> None:
    done = begin("--set", "train.freeze=3", "--set", "network.2.neuron.per_kernel=3")
    assert done.exit_code == 0, done.stderr
    assert "warning: train.freeze 3: neuron1 will stay as they start" in done.stderr


def test_another_preparation_is_warned_of(begin: Begin) -> None:
    done = begin("--set", "photos.normalise=none", "--set", "photos.size=12")
    assert done.exit_code == 0, done.stderr
    assert done.json()["init_from"]["fresh"] == ["neuron1"]
    assert "photos.size 24 instead of 12" in done.stderr
    assert "photos.normalise standardise instead of none" in done.stderr


def test_an_alignment_that_plays_no_part_is_not_warned_of(begin: Begin) -> None:
    """No faces are looked for."""
    done = begin("--set", "photos.align=dlib")
    assert done.exit_code == 0, done.stderr
    assert "prepared in another way" not in done.stderr


def test_held_out_photos_that_the_model_was_trained_on_are_warned_of(
    begin: Begin, trained: Trained, tmp_path: Path, facecnn: Facecnn
) -> None:
    done = begin("--seed", "3")
    assert done.exit_code == 0, done.stderr
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    before = json.loads((trained.path / "split.json").read_text())
    seen = set(split["validation"]) & set(before["train"])
    assert seen
    assert f"{len(seen)} of the 4 held-out photos were trained on by" in done.stderr
    # What it was trained on, at whatever time, is never judged by.
    assert len(load_checkpoint(tmp_path / "run").arrays["trained_on"]) == len({*split["train"], *before["train"]})
    judged = facecnn("eval", "-m", tmp_path / "run", "--format", "json")
    assert judged.json()["photos"] == 4 - len(seen)
    strict = begin("--seed", "3", "--strict", "--overwrite")
    assert strict.exit_code == 6


# --------------------------------------------------------------------------------------------------------------- resume


class Stopping:
    """A console whose user presses Ctrl-C after the third step."""

    def __getattr__(self, name: str) -> object:
        return lambda *arguments, **options: None

    def counting(self, what: str) -> "Stopping":
        return self

    def training(self, epochs: int, steps: int, label: str = "", lines: int = 0) -> "Stopping":
        return self

    def __enter__(self) -> "Stopping":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __call__(self, done: int, total: int) -> None:
        pass

    def step(self, report: StepReport) -> None:
        if report.step == 3:
            signal.raise_signal(signal.SIGINT)


def test_resuming_does_not_need_the_model_any_more(
    people: Path, trained: Trained, tmp_path: Path, facecnn: Facecnn
) -> None:
    model = tmp_path / "model"
    shutil.copytree(trained.path, model)
    whole = facecnn(
        "train", people, "-c", "smoke", "--init-from", model, "--out", tmp_path, "--name", "whole", "--format", "json"
    )
    assert whole.exit_code == 0, whole.stderr
    options = TrainOptions(photos=people, out=tmp_path, name="run", init_from=model / "best.safetensors")
    with pytest.raises(InterruptedTraining):
        train(load("smoke"), options, Stopping())  # type: ignore[arg-type]
    shutil.rmtree(model)
    done = facecnn("train", "--resume", tmp_path / "run", "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert done.json()["init_from"] == whole.json()["init_from"]
    assert done.json()["kernel_change"] == whole.json()["kernel_change"]
    for name in (*CHECKPOINTS, "kernels.gif"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_run_may_take_the_place_of_its_own_model(
    people: Path, trained: Trained, tmp_path: Path, begin: Begin
) -> None:
    shutil.copytree(trained.path, tmp_path / "run")
    assert begin("--overwrite", model=tmp_path / "run").exit_code == 0
    plain = begin("--overwrite", model=trained.path)
    assert plain.exit_code == 0
    assert plain.json()["init_from"]["taken"] == SMOKE


# --------------------------------------------------------------------------------------------------------------- errors


def test_a_model_that_is_none_is_refused(begin: Begin, trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "damaged.safetensors").write_bytes((trained.path / "best.safetensors").read_bytes()[:-1])
    (tmp_path / "empty").mkdir()
    for model in (tmp_path / "nosuch", tmp_path / "empty", tmp_path / "damaged.safetensors", trained.photos):
        done = begin(model=model)
        assert (done.exit_code, done.stdout) == (4, "")
        assert str(model) in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_model_of_which_nothing_fits_is_refused(begin: Begin, tmp_path: Path) -> None:
    done = begin("-c", "default", "--set", "network=[{dense: {units: people}}]")
    assert done.exit_code == 4
    assert "none of its layers fits this network: dense1 (another shape)" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [["--resume"], ["--overfit-batch"]])
def test_where_there_is_no_start_it_is_refused(options: list[str], trained: Trained, facecnn: Facecnn) -> None:
    given = ["--resume", trained.path] if options == ["--resume"] else [trained.photos, "-c", "smoke", *options]
    done = facecnn("train", *given, "--init-from", trained.path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--init-from" in done.stderr


def test_folds_are_not_begun_with_a_model_that_may_have_seen_them(trained: Trained, facecnn: Facecnn) -> None:
    done = facecnn("cross-validate", trained.photos, "--init-from", trained.path)
    assert done.exit_code == 2


def test_looking_ahead_says_what_would_be_taken(begin: Begin, tmp_path: Path) -> None:
    done = begin("--dry-run")
    assert done.exit_code == 0
    assert done.json()["init_from"]["taken"] == SMOKE
    assert not (tmp_path / "run").exists()
