"""``facecnn predict``."""

import csv
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from .contract import check
from .running import Facecnn, Trained, call_and_see_imports

BOX = [int]
ANSWER = {
    "path": str,
    "label": (str, None),
    "confidence": (float, None),
    "probabilities": (dict, None),
    "unknown_score": (float, None),
    "also_like": (str, None),
    "box": (BOX, None),
    "faces": [
        {
            "box": BOX,
            "landmarks": (list, None),
            "label": str,
            "confidence": float,
            "probabilities": dict,
            "unknown_score": float,
            "also_like": (str, None),
        }
    ],
    "error": (str, None),
}


def test_the_json_is_as_promised(trained_with_strangers: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    (tmp_path / "empty.jpg").touch()
    photos = [trained_with_strangers.photos / "ann" / "00.png", tmp_path / "empty.jpg", tmp_path / "nosuch.jpg"]
    done = facecnn("predict", *photos, "-m", trained_with_strangers.path, "--format", "json")
    assert done.exit_code == 3
    assert "2 of 3 photos" in done.stderr
    answers = done.json()
    check(answers, [ANSWER])
    assert [answer["path"] for answer in answers] == list(map(str, photos))
    good, empty, missing = answers
    assert good["error"] is None
    assert set(good["probabilities"]) == {"ann", "bob"}
    assert sum(good["probabilities"].values()) == pytest.approx(1)
    assert 0 <= good["unknown_score"] <= 1
    for key in ("label", "confidence", "probabilities", "unknown_score", "box"):
        assert good["faces"][0][key] == good[key]
        assert empty[key] is None
        assert missing[key] is None
    assert "empty file" in empty["error"]
    assert "no such file" in missing["error"]
    assert empty["faces"] == missing["faces"] == []


def test_all_formats_say_the_same(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    arguments = ["predict", trained.photos, tmp_path / "nosuch.jpg", "-m", trained.path]
    answers = facecnn(*arguments, "--format", "json").json()
    assert len(answers) == 21
    lines = facecnn(*arguments, "--format", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == answers
    rows = list(csv.DictReader(facecnn(*arguments, "--format", "csv").stdout.splitlines()))
    assert len(rows) == 21
    for row, answer in zip(rows, answers, strict=True):
        assert row["path"] == answer["path"]
        assert row["label"] == (answer["label"] or "")
        assert row["error"] == (answer["error"] or "")
        if answer["error"] is None:
            assert float(row["p(ann)"]) == answer["probabilities"]["ann"]
            assert [float(row[corner]) for corner in ("x0", "y0", "x1", "y1")] == answer["box"]
            assert float(row["confidence"]) == answer["confidence"], "somebody is named"
        else:
            assert {row[name] for name in ("x0", "y0", "x1", "y1", "confidence", "p(ann)")} == {""}
    text = facecnn(*arguments).stdout.splitlines()
    assert len(text) == 21
    assert all(line.startswith(answer["path"]) for line, answer in zip(text, answers, strict=True))


def test_a_row_of_a_stranger_has_no_confidence(trained_with_strangers: Trained, facecnn: Facecnn) -> None:
    arguments = ["predict", trained_with_strangers.photos, "-m", trained_with_strangers.path, "--threshold", "0"]
    rows = list(csv.DictReader(facecnn(*arguments, "--format", "csv").stdout.splitlines()))
    assert {row["label"] for row in rows} == {"unknown"}
    assert {row["confidence"] for row in rows} == {""}
    assert all(0 < float(row["unknown_score"]) <= 1 for row in rows)


def test_it_knows_the_people_it_learned(trained_with_strangers: Trained, facecnn: Facecnn) -> None:
    arguments = ["predict", trained_with_strangers.photos, "-m", trained_with_strangers.path, "--format", "json"]
    right = 0
    for answer in facecnn(*arguments, "--threshold", "0.5").json():
        right += Path(answer["path"]).parent.name == answer["label"]
    assert right >= 27


def test_the_threshold_decides_who_is_unknown(trained_with_strangers: Trained, facecnn: Facecnn) -> None:
    arguments = ["predict", trained_with_strangers.photos, "-m", trained_with_strangers.path, "--format", "json"]
    for threshold in ("off", "0", "0.25", "0.5", "1"):
        limit = 2.0 if threshold == "off" else float(threshold)
        for answer in facecnn(*arguments, "--threshold", threshold).json():
            best = max(answer["probabilities"], key=answer["probabilities"].get)
            assert answer["label"] == ("unknown" if answer["unknown_score"] > limit else best)
    # Of fewer than twenty held-out photos no threshold could be made: where a stranger is likelier, a face is refused.
    assert facecnn(*arguments).json() == facecnn(*arguments, "--threshold", "0.5").json()


def test_the_model_has_a_threshold_of_its_own(
    write_people: Callable[..., Path], tmp_path: Path, facecnn: Facecnn
) -> None:
    photos = write_people({"ann": 26, "bob": 26, "unknown": 20})
    options = ["-c", "smoke", "--epochs", "12", "--set", "photos.validation=0.4", "--out", tmp_path, "--name", "run"]
    assert facecnn("train", photos, *options).exit_code == 0
    arguments = ["predict", photos, "-m", tmp_path / "run", "--format", "json"]
    automatic = facecnn(*arguments).json()
    assert automatic == facecnn(*arguments, "--threshold", "auto").json()
    strangers = [answer for answer in automatic if Path(answer["path"]).parent.name == "unknown"]
    known = [answer for answer in automatic if Path(answer["path"]).parent.name != "unknown"]
    assert sum(answer["label"] == "unknown" for answer in strangers) >= 18
    assert sum(answer["label"] == "unknown" for answer in known) <= 3


@pytest.mark.parametrize("threshold", ["-0.1", "1.1", "nan", "inf", "x", ""])
def test_no_such_threshold(threshold: str, trained: Trained, facecnn: Facecnn) -> None:
    done = facecnn("predict", trained.photos, "-m", trained.path, "--threshold", threshold)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--threshold" in done.stderr


def test_a_model_without_strangers_names_everybody(trained: Trained, facecnn: Facecnn) -> None:
    done = facecnn("predict", trained.photos, "-m", trained.path, "--format", "json")
    assert "no threshold" in done.stderr
    assert {answer["label"] for answer in done.json()} <= {"ann", "bob"}


def test_folders_globs_and_lists(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(trained.photos / "ann", photos / "sub")
    shutil.copy(trained.photos / "bob" / "00.png", photos / "[odd] name?.png")
    inside = sorted(map(str, (photos / "sub").iterdir()))

    def paths(*arguments: str | Path, stdin: bytes | None = None) -> list[str]:
        done = facecnn("predict", *arguments, "-m", trained.path, "--format", "json", stdin=stdin)
        assert done.exit_code == 0, done.stderr
        return [answer["path"] for answer in done.json()]

    assert paths(photos / "sub") == inside
    assert paths(photos) == [str(photos / "[odd] name?.png"), *inside]
    assert paths(str(photos / "sub" / "0[0-2].png")) == inside[:3]
    assert paths(str(photos / "**" / "0*.png")) == inside
    assert paths(photos / "[odd] name?.png") == [str(photos / "[odd] name?.png")]
    assert paths(inside[3], inside[1]) == [inside[3], inside[1]]
    assert paths("-", stdin="\n".join(inside).encode()) == inside
    assert paths("-", stdin="\r\n".join(inside).encode() + b"\r\n") == inside
    assert paths("-0", "-", stdin="\0".join([*inside, ""]).encode()) == inside
    assert paths("-", inside[0], stdin=os.fsencode(inside[5])) == [inside[5], inside[0]]


def test_any_name_survives(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    names = [b"li\nne.png", b"e\x1b[31m.png", b"\xff\xfe.png", "имя.png".encode(), b"-rf.png"]
    made = [os.fsencode(tmp_path) + b"/" + name for name in names]
    try:
        for path in made:
            shutil.copy(os.fsencode(trained.photos / "ann" / "00.png"), path)
    except OSError:
        pytest.skip("this file system takes no such names")
    for form in ("json", "jsonl", "csv", "text"):
        done = facecnn("predict", "-0", "-", "-m", trained.path, "--format", form, stdin=b"\0".join(made))
        assert done.exit_code == 0
        assert "\x1b" not in done.stdout + done.stderr
        if form == "json":
            assert [os.fsencode(answer["path"]) for answer in done.json()] == made
        elif form != "csv":
            assert len(done.stdout.splitlines()) == len(made)


def test_no_photos_at_all(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    done = facecnn("predict", "-m", trained.path)
    assert done.exit_code == 2
    for stdin in (b"", b"\n\n"):
        done = facecnn("predict", "-", "-m", trained.path, stdin=stdin)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "no photos given" in done.stderr
    done = facecnn("predict", tmp_path, "-m", trained.path, "--format", "json")
    assert done.exit_code == 3
    assert done.json()[0]["error"] == "no photos in it"
    done = facecnn("predict", tmp_path / "*.jpg", "-m", trained.path, "--format", "json")
    assert done.exit_code == 3


def test_a_photo_on_stdin_is_no_list(trained: Trained, facecnn: Facecnn) -> None:
    done = facecnn("predict", "-", "-m", trained.path, stdin=(trained.photos / "ann" / "00.png").read_bytes())
    assert (done.exit_code, done.stdout) == (2, "")
    assert "list of paths" in done.stderr


def test_models_that_are_none(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    photo = trained.photos / "ann" / "00.png"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    model = (trained.path / "best.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(model[: len(model) // 2])
    (tmp_path / "flipped.safetensors").write_bytes(model[:-5] + bytes([model[-5] ^ 64]) + model[-4:])
    for name in ("nosuch", "empty", "cut.safetensors", "flipped.safetensors", photo):
        done = facecnn("predict", photo, "-m", name)
        assert (done.exit_code, done.stdout) == (4, "")
        assert str(name) in done.stderr
    assert facecnn("predict", photo).exit_code == 4


def test_a_copied_model_works_alone(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    shutil.copy(trained.path / "best.safetensors", tmp_path / "model.safetensors")
    photo = trained.photos / "ann" / "00.png"
    moved, there = (
        facecnn("predict", photo, "-m", model, "--format", "json").json()
        for model in (tmp_path / "model.safetensors", trained.path)
    )
    assert moved == there


def test_the_reference_agrees(trained: Trained, facecnn: Facecnn) -> None:
    arguments = ["predict", trained.photos, "-m", trained.path, "--format", "json", "--device"]
    cpu, reference = (facecnn(*arguments, device).json() for device in ("cpu", "reference"))
    for one, other in zip(cpu, reference, strict=True):
        assert one["label"] == other["label"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)


def predict_in_a_process(photo: Path, model: Path) -> tuple[dict[str, Any], set[str]]:
    """The answer for a photo, and which packages that take long to load were loaded for it."""
    answer, loaded = call_and_see_imports("predict", photo, "-m", model, "--format", "jsonl")
    return json.loads(answer), loaded


def test_a_single_photo_is_answered_without_numba(trained: Trained, facecnn: Facecnn) -> None:
    """Which takes longer to load than NumPy takes for the answer; that is the same."""
    alone, loaded = predict_in_a_process(trained.photos / "ann" / "00.png", trained.path)
    assert loaded == set()
    among_others = facecnn("predict", trained.photos / "ann", "-m", trained.path, "--format", "json").json()[0]
    assert alone["path"] == among_others["path"]
    assert alone["label"] == among_others["label"]
    assert alone["probabilities"] == pytest.approx(among_others["probabilities"], abs=1e-5)
    assert alone["unknown_score"] == pytest.approx(among_others["unknown_score"], abs=1e-5)


def test_so_is_a_single_face_that_has_to_be_found(finding: Path, sample: Path, facecnn: Facecnn) -> None:
    alone, loaded = predict_in_a_process(sample / "s1" / "1.pgm", finding)
    assert loaded == set()
    among_others = facecnn("predict", sample / "s1", "-m", finding, "--format", "json").json()[0]
    assert alone["path"] == among_others["path"]
    assert alone["box"] == pytest.approx(among_others["box"], abs=0.1)
    assert alone["label"] == among_others["label"]
    assert alone["probabilities"] == pytest.approx(among_others["probabilities"], abs=0.01)


def test_the_text_says_where_each_face_is(finding: Path, sample: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    faces = [Image.open(sample / name / "1.pgm") for name in ("s1", "s2")]
    both = Image.new("L", (92 * 4, 112 * 2), 128)
    both.paste(faces[0].resize((184, 224)), (0, 0))
    both.paste(faces[1].resize((184, 224)), (184, 0))
    both.save(tmp_path / "both.png")
    arguments = ["predict", tmp_path / "both.png", "-m", finding]
    found = facecnn(*arguments, "--format", "json").json()[0]["faces"]
    assert len(found) == 2
    lines = facecnn(*arguments).stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'both.png'}: ")
    assert lines[1].startswith("  and ")
    for line, face in zip(lines, found, strict=True):
        place = re.search(r"at left (-?\d+), top (-?\d+), width (\d+), height (\d+)$", line)
        assert place is not None
        left, top, width, height = map(int, place.groups())
        box = [left, top, left + width, top + height]
        assert box == pytest.approx(face["box"], abs=1)
