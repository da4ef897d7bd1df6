"""Photos with several faces, from training to report: names given at most once, and counted by the names given."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facecnn.photos.folder import UNKNOWN

from .running import Facecnn, Trained, call
from .squares import SIDE, find_squares, verdict, write_album

OPTIONS = ("-c", "smoke", "--epochs", "8", "--set", "photos.validation=0.4")


@pytest.fixture(autouse=True)
def _squares(monkeypatch: pytest.MonkeyPatch) -> None:
    find_squares(monkeypatch)


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people and strangers, several faces in a good third of the photos. Not to be written to."""
    return write_album(tmp_path_factory.mktemp("several") / "album", people=3, photos=26, strangers=26, groups=0.4)


@pytest.fixture(scope="module")
def run(album: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run on the album. Not to be written to."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        find_squares(patch)
        done = call("train", album, *OPTIONS, "--out", out, "--name", "run", "--format", "json")
    assert done.exit_code == 0, done.stderr
    return Trained(out / "run", done.json(), album)


def groups(album: Path) -> list[Path]:
    """The photos with several faces."""
    found = []
    for path in sorted(album.rglob("*.png")):
        with Image.open(path) as image:
            found += [path] * (image.width > SIDE)
    return found


def beside_each_other(photos: Sequence[Path], path: Path) -> Path:
    Image.fromarray(np.hstack([np.asarray(Image.open(photo)) for photo in photos])).save(path)
    return path


def test_a_name_is_given_to_the_best_match_in_a_photo(run: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    alone = [path for path in sorted((run.photos / "person0").iterdir()) if path not in groups(run.photos)]
    arguments = ["-m", run.path, "--threshold", "off", "--format", "json"]
    scores = {
        answer["path"]: answer["unknown_score"]
        for answer in facecnn("predict", *alone, *arguments).json()
        if answer["label"] == "person0"
    }
    first, *_, last = sorted(scores, key=scores.__getitem__)
    photos = [Path(last), Path(first), Path(last)]
    picture = beside_each_other(photos, tmp_path / "three.png")
    (answer,) = facecnn("predict", picture, *arguments).json()
    faces = sorted(answer["faces"], key=lambda face: face["box"][0])
    assert [face["label"] for face in faces] == [UNKNOWN, "person0", UNKNOWN]
    assert [face["also_like"] for face in faces] == ["person0", None, "person0"]
    assert all(max(face["probabilities"], key=face["probabilities"].get) == "person0" for face in faces)
    for key in ("label", "also_like", "unknown_score", "box"):
        assert answer[key] == answer["faces"][0][key], "the top level repeats the main face"

    rows = list(csv.DictReader(facecnn("predict", picture, *arguments[:-1], "csv").stdout.splitlines()))
    assert [row["also_like"] for row in rows] == [face["also_like"] or "" for face in answer["faces"]]
    assert [row["confidence"] == "" for row in rows] == [face["label"] == UNKNOWN for face in answer["faces"]]
    (line,) = facecnn("predict", picture, *arguments[:-1], "jsonl").stdout.splitlines()
    assert json.loads(line) == answer
    text = facecnn("predict", picture, *arguments[:-2]).stdout
    assert text.count("unknown (like person0, who is another face here) at left ") == 2
    # Each alone in its photo, all three are named.
    assert {row["label"] for row in facecnn("predict", *photos, *arguments).json()} == {"person0"}


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_the_counts_can_be_had_from_the_predictions(
    suffix: str, run: Trained, tmp_path: Path, facecnn: Facecnn
) -> None:
    file = tmp_path / f"answers.{suffix}"
    figures = facecnn("eval", "-m", run.path, "--predictions", file, "--format", "json").json()
    if suffix == "json":
        rows = json.loads(file.read_text())
        for row in rows:
            # The top level is the main face's.
            assert {key: row[key] for key in row.get("faces", [row])[0] if key != "box"}.items() <= row.items()
            named = [face["label"] for face in row.get("faces", [row]) if face["label"] != UNKNOWN]
            assert row["names"] == named
            assert len(set(named)) == len(named)
            if "faces" in row:
                assert len(row["faces"]) > 1
                assert verdict(row["truth"], row["faces"]) in [*named, UNKNOWN]
    else:
        rows = [row | {"names": json.loads(row["names"])} for row in csv.DictReader(file.open(encoding="utf-8"))]
    known = [row for row in rows if row["truth"] != UNKNOWN]
    assert sum(row["truth"] in row["names"] for row in known) == figures["known"]["named_right"]
    assert sum(not row["names"] for row in known) == figures["known"]["refused"]
    strange = [row for row in rows if row["truth"] == UNKNOWN]
    assert sum(bool(row["names"]) for row in strange) == figures["unknown"]["named"]


def test_folds_are_judged_by_any_face_where_nobody_is_refused(album: Path, facecnn: Facecnn) -> None:
    options = ["-c", "smoke", "--epochs", "3", "--folds", "2", "--format", "json"]
    figures = facecnn("cross-validate", album, *options).json()
    shows_several = {path.relative_to(album).as_posix() for path in groups(album)}
    right: Counter[int] = Counter()
    for row in figures["predictions"]:
        assert ("faces" in row) == (row["path"] in shows_several)
        faces = row.get("faces", [row])
        assert faces[0]["probabilities"] == row["probabilities"], "the main face's"
        likeliest = {max(face["probabilities"], key=face["probabilities"].get) for face in faces}
        right[row["fold"]] += row["truth"] in likeliest
    for number, fold in enumerate(figures["folds"], 1):
        assert fold["closed_set_accuracy"] == fold["accuracy"] == right[number] / fold["photos"]
        alone = [
            row["probabilities"][row["truth"]]
            for row in figures["predictions"]
            if row["fold"] == number and "faces" not in row
        ]
        assert fold["log_loss"] == pytest.approx(-np.mean(np.log(alone)))


def test_calibrated_folds_count_photos_with_several_faces_apart(album: Path, facecnn: Facecnn) -> None:
    options = ["-c", "smoke", "--epochs", "3", "--folds", "2", "--calibrate", "--set", "photos.validation=0.4"]
    figures = facecnn("cross-validate", album, *options, "--format", "json").json()
    known = [path for path in groups(album) if path.parent.name != UNKNOWN]
    assert figures["several"]["photos"] == len(known) == sum(fold["several"]["photos"] for fold in figures["folds"])
    for told in (figures, *figures["folds"]):
        several = told["several"]
        assert several["photos"] == sum(several[key] for key in ("named_right", "named_wrong", "refused"))
        assert all(several[key] <= told["known"][key] for key in several)


def test_what_people_read_says_what_became_of_them(run: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    several = run.figures["validation"]["several"]
    says = (
        f"show several faces: {several['named_right']} named right, {several['named_wrong']} wrong, "
        f"{several['refused']} refused"
    )
    evaluated = facecnn("eval", "-m", run.path).stdout
    trained = facecnn("train", run.photos, *OPTIONS, "--out", tmp_path, "--name", "again").stdout
    assert f"  {several['photos']} of these {says}\n" in evaluated
    assert f"  {several['photos']} held out {says}\n" in trained
    assert max(map(len, evaluated.splitlines())) <= 80
    for arguments in (["show", "again"], ["compare", "again", run.path]):
        listed = facecnn("runs", *arguments, "--out", tmp_path).stdout
        (row,) = re.findall(r"with several faces, named right(.*)", listed)
        assert row.split("  ")[-1].strip() == f"{several['named_right']} of {several['photos']}"


def test_spectators_are_told_of(run: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    boxes = json.loads((run.path / "split.json").read_text())["spectators"]
    count = sum(map(len, boxes.values()))
    assert count > 1
    trained = facecnn("train", run.photos, *OPTIONS, "--out", tmp_path, "--name", "again")
    assert f"{count} faces beside the people, like none of them: trained on as strangers" in trained.stderr
    for name in ("report.html", "MODEL_CARD.md"):
        text = " ".join((run.path / name).read_text().split())
        assert f"of strangers and {count} faces beside the people that are like none of them" in text


def test_a_report_made_anew_says_the_same(run: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "figures.json").unlink()
    done = facecnn("report", "-m", tmp_path / "run", "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert done.json()["photos"]["missing"] == 0
    before, after = (
        re.findall(r"(\d+ of these show several faces: .*?\.|this one of \d faces)", (path / "report.html").read_text())
        for path in (run.path, tmp_path / "run")
    )
    assert before == after
    assert len(before) > 2, "the sentence twice, and photos"


def test_held_out_photos_may_all_show_several_faces(run: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    for path in groups(run.photos):
        copy = tmp_path / "held out" / path.relative_to(run.photos)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    options = ["--validation", tmp_path / "held out", "--out", tmp_path, "--name", "run", "--format", "json"]
    done = facecnn("train", run.photos, "-c", "smoke", "--epochs", "1", *options)
    assert done.exit_code == 0, done.stderr
    held_out: dict[str, Any] = done.json()["validation"]
    assert held_out["loss"] is None
    assert held_out["known"] == held_out["several"]
    assert held_out["several"]["photos"] > 0
    assert "| log loss | - | 0 |" in (tmp_path / "run" / "MODEL_CARD.md").read_text()
    figures = facecnn("eval", "-m", tmp_path / "run", "--format", "json").json()
    assert figures["several"] == held_out["several"]
    assert "photos with one face" in facecnn("eval", "-m", tmp_path / "run").stdout
