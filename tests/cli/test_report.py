"""``facecnn report``: a run's report and model card, made anew from what the run's folder and its photos hold."""

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from facecnn.photos.sample import write_sample
from facecnn.runs.folder import RunFolder

from .contract import NUMBER, check
from .running import Facecnn, Trained

JSON = {
    "run": str,
    "finished": bool,
    "report": str,
    "model_card": str,
    "photos": {"shown": int, "missing": int},
    "background": (
        None,
        {"photos": int, "plain": NUMBER, "hidden": NUMBER, "trained_hidden": (None, NUMBER), "largest_class": NUMBER},
    ),
    "missing": [str],
}
BOTH = ("report.html", "MODEL_CARD.md")
LARGEST = 3_000_000  # bytes that a report may have


@pytest.fixture
def run(trained: Trained, tmp_path: Path) -> Path:
    """A finished run, to be written to."""
    return Path(shutil.copytree(trained.path, tmp_path / trained.path.name))


def read(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in BOTH}


def test_a_training_writes_both(trained: Trained) -> None:
    page, card = (content.decode("utf-8") for content in read(trained.path).values())
    assert len(page) < LARGEST
    for text in (page, card):
        assert "ann" in text
        assert "bob" in text
    assert page.count("data:image/png") == 5  # curves, confusion, kernels, what excites them, what was watched
    assert page.count("data:image/gif") == 1
    assert page.count("data:image/jpeg") == 4  # all of the held-out photos: wrong or among the least certain
    assert str(trained.photos) not in page + card  # where the photos lie is nobody's business


def test_they_are_made_anew_just_as_the_training_wrote_them(run: Path, facecnn: Facecnn) -> None:
    before = read(run)
    for name in BOTH:
        (run / name).unlink()
    done = facecnn("report", run, "--format", "json")
    assert done.exit_code == 0, done.stderr
    result = done.json()
    check(result, JSON)
    assert result["finished"]
    assert result["photos"] == {"shown": 4, "missing": 0}
    assert result["missing"] == []
    assert [Path(result[key]) for key in ("report", "model_card")] == [run / name for name in BOTH]
    assert read(run) == before


def test_the_newest_run_is_taken_and_named(run: Path, facecnn: Facecnn) -> None:
    done = facecnn("report", "--out", run.parent)
    assert done.exit_code == 0, done.stderr
    assert f"Run: {run}" in done.stderr
    assert done.stdout.splitlines() == [f"Report: {run / BOTH[0]}", f"Model card: {run / BOTH[1]}"]


def test_strangers_are_told_of(trained_with_strangers: Trained) -> None:
    page, card = (content.decode("utf-8") for content in read(trained_with_strangers.path).values())
    strangers = trained_with_strangers.figures["photos"]["validation"]
    assert "besides 8 photos of strangers" in page
    assert "photos of strangers" in card
    assert strangers > 0


def test_without_its_photos_it_is_made_of_what_was_noted(
    write_people: Callable[..., Path], tmp_path: Path, facecnn: Facecnn
) -> None:
    photos = write_people({"ann": 10, "bob": 10}, folder=tmp_path / "photos")
    arguments = ["-c", "smoke", "--epochs", "2", "--out", tmp_path, "--name", "run"]
    assert facecnn("train", photos, *arguments).exit_code == 0
    shutil.rmtree(photos)
    done = facecnn("report", tmp_path / "run", "--format", "json")
    assert done.exit_code == 0, done.stderr
    (why,) = done.json()["missing"]
    assert "no such folder" in why
    assert why in done.stderr
    assert done.json()["photos"]["shown"] == 0
    page, card = (content.decode("utf-8") for content in read(tmp_path / "run").values())
    assert "photo not there" in page
    assert "The photos couldn&#x27;t be read" in page
    assert "Held-out photos:" in card  # the figures are those that the training noted


def count_as_before(run: Path) -> None:
    """As figures.json was when accuracy was that of the likeliest person."""
    figures = json.loads((run / "figures.json").read_text())
    held_out = figures["held_out"]
    held_out["known"] = {"photos": 4, "named": 4, "refused": 0}
    held_out["confusion"] = [row[:2] for row in held_out["confusion"]]
    for key in ("closed_set_accuracy", "closed_set_interval", "alike"):
        del held_out[key]
    for row in held_out["per_class"]:
        for key in ("named_right", "named_wrong", "refused"):
            del row[key]
    del figures["calibration"]["highest_confidence"]
    (run / "figures.json").write_text(json.dumps(figures))


def test_a_run_of_a_version_that_counted_otherwise_is_judged_anew(run: Path, facecnn: Facecnn) -> None:
    before = read(run)
    count_as_before(run)
    done = facecnn("report", run)
    assert done.exit_code == 0, done.stderr
    says = re.compile(r"Of 4 photos of these people.*?named right", re.DOTALL)
    for name, content in read(run).items():
        assert says.findall(content.decode()) == says.findall(before[name].decode()) != []


def test_a_photo_with_other_contents_is_not_judged(
    run: Path, trained: Trained, tmp_path: Path, facecnn: Facecnn
) -> None:
    photos = shutil.copytree(trained.photos, tmp_path / "photos")
    config = run / "config.yaml"
    config.write_text(config.read_text("utf-8").replace(str(trained.photos), str(photos)), "utf-8")
    (run / "figures.json").unlink()
    split = json.loads((run / "split.json").read_text())
    shutil.copy(photos / next(iter(split["train"])), photos / next(iter(split["validation"])))
    done = facecnn("report", run, "--format", "json")
    assert done.exit_code == 0, done.stderr
    (told,) = done.json()["missing"]
    assert told.startswith("1 held-out photo")
    assert "other contents" in told
    assert "Of 3 photos of these people" in (run / "MODEL_CARD.md").read_text()


def test_where_its_photos_are_gone_too_its_figures_are_left_out(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    shutil.copytree(people, tmp_path / "photos")
    assert (
        facecnn(
            "train", tmp_path / "photos", "-c", "smoke", "--epochs", "1", "--out", tmp_path, "--name", "run"
        ).exit_code
        == 0
    )
    shutil.rmtree(tmp_path / "photos")
    count_as_before(tmp_path / "run")
    done = facecnn("report", tmp_path / "run", "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert any("earlier version, which counted otherwise" in sentence for sentence in done.json()["missing"])
    assert "named right" not in (tmp_path / "run" / "MODEL_CARD.md").read_text()


def test_a_run_that_has_not_ended_is_told_as_it_stands(run: Path, facecnn: Facecnn) -> None:
    # What an interrupted training leaves: no model that was calibrated, and nothing that only the end makes.
    (run / "best.safetensors").unlink()
    for name in (*BOTH, "figures.json", "curves.png", "confusion.png", "kernels.png", "patches.png", "watching.png",
                 "kernels.gif"):  # fmt: skip
        (run / name).unlink()
    done = facecnn("report", run, "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert not done.json()["finished"]
    page, card = (content.decode("utf-8") for content in read(run).values())
    assert "This training isn&#x27;t finished" in page
    assert "isn't finished" in card
    assert page.count("data:image/png") == 5
    text = facecnn("report", run)
    assert "isn't finished" in text.stdout


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda run: shutil.rmtree(run), "no such run"),
        (lambda run: [file.unlink() for file in run.iterdir()], "not a run"),
        (lambda run: (run / "figures.json").write_text("{"), "figures.json: damaged"),
        (lambda run: (run / "figures.json").write_text('{"answers": [{"path": 1}]}'), "delete figures.json"),
        (lambda run: (run / "best.safetensors").write_bytes(b"x" * 100), "best.safetensors"),
    ],
)
def test_what_is_no_run_or_damaged_is_refused_and_nothing_written(
    damage: Callable[[Path], object], told: str, run: Path, facecnn: Facecnn
) -> None:
    before = read(run)
    damage(run)
    done = facecnn("report", run)
    assert done.exit_code == 4
    assert told in done.stderr
    if all((run / name).exists() for name in BOTH):
        assert read(run) == before


def test_a_run_in_use_is_left_alone(run: Path, facecnn: Facecnn) -> None:
    before = read(run)
    with RunFolder(run):
        done = facecnn("report", run)
    assert done.exit_code == 6
    assert "in use" in done.stderr
    assert read(run) == before


# --check-background


@pytest.fixture
def aligned(tmp_path: Path, face_finding: None, facecnn: Facecnn) -> Path:
    """A run on aligned faces."""
    sample = write_sample(tmp_path / "people").folder
    options = ["-c", "smoke", "--set", "photos.faces=auto", "--out", tmp_path, "--name", "run"]
    done = facecnn("train", sample, *options)
    assert done.exit_code == 0, done.stderr
    return tmp_path / "run"


def test_a_training_with_hidden_faces_is_told_of(aligned: Path, facecnn: Facecnn) -> None:
    before = json.loads((aligned / "background.json").read_text())
    model = (aligned / "best.safetensors").read_bytes()
    assert before["trained_hidden"] is None
    done = facecnn("report", aligned, "--check-background", "--device", "cpu", "--threads", "1", "--format", "json")
    assert done.exit_code == 0, done.stderr
    check(done.json(), JSON)
    measured = done.json()["background"]
    assert measured == {**before, "trained_hidden": measured["trained_hidden"]}
    assert 0 <= measured["trained_hidden"] <= 1
    assert measured == json.loads((aligned / "background.json").read_text())
    page, card = (content.decode("utf-8") for content in read(aligned).values())
    assert "a training with hidden faces" in page
    assert "a training that never saw a face is right in" in card
    assert (aligned / "best.safetensors").read_bytes() == model
    again = facecnn("report", aligned)  # it isn't forgotten
    assert "by a training with hidden faces" in again.stdout
    assert read(aligned) == {BOTH[0]: page.encode("utf-8"), BOTH[1]: card.encode("utf-8")}


def test_surroundings_that_do_as_well_are_warned_of(
    aligned: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    monkeypatch.setattr("facecnn.jobs.report.train_on_background", lambda *arguments: 1.0)
    done = facecnn("report", aligned, "--check-background")
    assert done.exit_code == 0, done.stderr
    assert "goes by hair, clothes and walls" in done.stderr
    assert "The surroundings do nearly as well as the faces" in (aligned / BOTH[0]).read_text(encoding="utf-8")
    assert "The surroundings do nearly as well as the faces" in (aligned / BOTH[1]).read_text(encoding="utf-8")


def test_faces_that_were_not_found_cannot_be_hidden(run: Path, facecnn: Facecnn) -> None:
    before = read(run)
    done = facecnn("report", run, "--check-background")
    assert done.exit_code == 2
    assert "photos.faces" in done.stderr
    assert read(run) == before


def test_a_run_that_has_not_ended_is_not_checked(run: Path, facecnn: Facecnn) -> None:
    (run / "best.safetensors").unlink()
    done = facecnn("report", run, "--check-background")
    assert done.exit_code == 4
    assert "train --resume" in done.stderr


def test_a_device_is_only_for_the_check(run: Path, facecnn: Facecnn) -> None:
    done = facecnn("report", run, "--threads", "1")
    assert done.exit_code == 2
    assert "--check-background" in done.stderr


# The photos that are shown


def test_photos_are_shown_in_colour_and_sharper_than_the_network_sees_them(
    write_people: Callable[..., Path], tmp_path: Path, facecnn: Facecnn
) -> None:
    photos = write_people({"Ann": 5, "李 小龙": 5}, folder=tmp_path / "people")
    for file in photos.glob("*/*.png"):
        with Image.open(file) as picture:
            grey = np.asarray(picture.resize((400, 400)))
        Image.fromarray(np.stack([grey, grey // 2, grey // 4], axis=2)).save(file)
    options = ["-c", "smoke", "--epochs", "2", "--out", tmp_path / "runs", "--name", "run"]
    assert facecnn("train", photos, *options).exit_code == 0
    source = (tmp_path / "runs" / "run" / "report.html").read_text(encoding="utf-8")
    cards = re.findall(r'<a href="([^"#]+)"><img [^>]*src="data:image/jpeg;base64,([^"]+)"', source)
    assert len(cards) == 2  # the held-out ones
    for link, data in cards:
        assert (tmp_path / "runs" / "run" / unquote(link)).is_file()
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.size == (192, 192)
            red, green, blue = np.asarray(picture, float).mean(axis=(0, 1))
        assert red > 1.5 * green > 2 * blue
    # A photo with other contents than when it was judged isn't the one that was judged.
    for changed in photos.glob("*/*.png"):
        Image.new("RGB", (50, 50), "green").save(changed)
    again = facecnn("report", tmp_path / "runs" / "run", "--format", "json")
    assert again.exit_code == 0
    assert again.json()["photos"] == {"shown": 0, "missing": 2}
