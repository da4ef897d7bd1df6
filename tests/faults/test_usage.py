"""Arguments that can't be meant, places that can't be written to, and readers that go away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import QUICK, WITHOUT_ROOT, Run

SCRIPTS = Path(__file__).parents[2] / "scripts"
WITH_OUTPUT = sorted(
    script.relative_to(SCRIPTS).as_posix()
    for script in SCRIPTS.rglob("*.py")
    if "parser(__doc__, " in script.read_text("utf-8")  # its second argument is the picture
)
assert {"experiments/linear_neuron.py", "studies/lr_sweep.py"} <= set(WITH_OUTPUT)


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# C40: names of runs and folders


@pytest.mark.fault("C40")
@pytest.mark.parametrize("option", ["--out", "--name", "-m"])
def test_an_empty_name_is_not_the_current_folder(option: str, made_people: Path, tmp_path: Path, run: Run) -> None:
    command = ["predict", made_people] if option == "-m" else ["train", made_people, *QUICK]
    done = run(*command, option, "", cwd=tmp_path)
    assert done.exit_code == 2
    done.one_block()
    assert option in done.stderr
    assert listing(tmp_path) == []


@pytest.mark.fault("C40")
@pytest.mark.parametrize("how", [[], ["--dry-run"], ["--overfit-batch"]], ids=["train", "dry run", "one batch"])
@pytest.mark.parametrize(
    "wrong", [["--name", "../x"], ["--name", "a\nb"], ["--name", "x" * 100_000], ["--out", ""]], ids=lambda wrong: ""
)
def test_what_is_no_name_is_refused_before_any_photo_is_read(
    how: list[str], wrong: list[str], made_people: Path, tmp_path: Path, run: Run
) -> None:
    done = run("train", made_people, *QUICK, *wrong, *how, cwd=tmp_path)
    assert done.exit_code == 2
    done.one_block()
    assert wrong[0] in done.stderr
    assert len(done.stderr) < 500
    assert "photos to train on" not in done.stderr
    assert listing(tmp_path) == []


@pytest.mark.fault("C40")
def test_a_rehearsal_is_refused_where_its_training_would_be(made_people: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "closed").mkdir(mode=0o500)
    for out, why in (
        ("file", "a file, or a link to nothing"),
        ("file/runs", "a part of the path is a file"),
        ("closed/runs", "no permission to write"),
        ("x" * 300, "the name is too long"),
    ):
        prefix = WITHOUT_ROOT if shutil.which("setpriv") else []
        if "closed" in out and not prefix and os.geteuid() == 0:
            continue
        done = run("train", made_people, *QUICK, "--dry-run", "--out", out, cwd=tmp_path, prefix=prefix)
        assert (done.exit_code, why in done.stderr) == (6, True), done.stderr
        done.one_block()
    assert listing(tmp_path) == ["closed", "file"]
    done = run("train", made_people, *QUICK, "--dry-run", "--out", "new/runs", "--name", "one", cwd=tmp_path)
    assert done.exit_code == 0
    assert listing(tmp_path) == ["closed", "file"]


# C30: devices by another name


@pytest.mark.fault("C30")
@pytest.mark.parametrize(
    ("device", "meant"), [("gpu", "cuda"), ("GPU", "cuda"), ("gpu:1", "cuda:1"), ("CUDA", "cuda"), ("cpu0", "cpu")]
)
def test_a_device_by_another_name(device: str, meant: str, made_people: Path, run: Run) -> None:
    done = run("train", made_people, "--device", device, "--dry-run")
    assert done.exit_code == 2
    done.one_block()
    assert f"did you mean {meant}?" in done.stderr


# D21, C35: the folder that a config names


@pytest.mark.fault("D21")
@pytest.mark.parametrize("command", ["train", "train --dry-run", "train --overfit-batch", "cross-validate", "lr-find"])
def test_a_folder_that_isnt_there_is_looked_up_in_the_config(command: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / "my.yaml").write_text("photos:\n  faces: off\n  folder: DATB\n")
    (tmp_path / "DATA").mkdir()
    given = ["DATB"] if command == "cross-validate" else []  # which always takes PHOTOS
    done = run(*command.split(), *given, "-c", "my.yaml", "--device", "cpu", cwd=tmp_path)
    assert done.exit_code == 3
    assert "DATB: no such folder; did you mean DATA?" in done.stderr
    assert ("my.yaml:3:3: photos.folder" in done.stderr) == (not given)


@pytest.mark.fault("C35")
@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("$HOME/faces", "no such folder"),
        ("C:\\faces", "no such folder"),
        ("'faces '", "no such folder"),
        ("~/nosuch", "no such folder"),
        ("~nobody-of-this-name/faces", "~ stands for"),
        ("my.yaml", "a file"),
    ],
)
def test_a_path_in_the_config_is_told_with_its_place(folder: str, why: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / "my.yaml").write_text(f"photos:\n  folder: {folder}\n")
    (tmp_path / "faces").mkdir()
    done = run("train", "-c", "my.yaml", "--device", "cpu", cwd=tmp_path, environment={"HOME": str(tmp_path)})
    assert done.exit_code == 3
    assert "my.yaml:2:" in done.stderr
    assert why in done.stderr
    done = run("train", "--set", f"photos.folder={folder}", "--device", "cpu", cwd=tmp_path)
    assert done.exit_code == 3
    assert f"--set photos.folder={folder}" in done.stderr


# R15: a reader that goes away


@pytest.mark.fault("R15")
@pytest.mark.parametrize("words", [["--help"], ["help", "train"], ["--version"], ["config", "show"]], ids=" ".join)
def test_help_into_a_closed_pipe(words: list[str], run: Run) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run(*words, capture_output=False, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.exit_code, done.stderr) == (141, "")


# Files of a run that are links


@pytest.mark.fault("link-pid")
@pytest.mark.parametrize("name", [".facecnn.pid", ".facecnn.lock"])
def test_a_link_in_a_run_is_not_written_through(name: str, model: Path, tmp_path: Path, run: Run) -> None:
    copied = Path(shutil.copytree(model, tmp_path / "run"))
    (tmp_path / "precious").write_text("mine")
    (copied / name).unlink(missing_ok=True)
    (copied / name).symlink_to(tmp_path / "precious")
    for command in (["report", copied], ["train", "--resume", copied]):
        done = run(*command)
        assert done.exit_code == 6
        assert f"{name}: a symbolic link" in done.stderr
        assert (tmp_path / "precious").read_text() == "mine"
    (copied / name).unlink()
    assert run("report", copied).exit_code == 0


# Scripts


@pytest.mark.fault("script-output")
@pytest.mark.parametrize(
    ("script", "output"),
    [
        *((script, ".") for script in (*WITH_OUTPUT, "benchmark.py")),
        *(("linear_neuron.py", output) for output in ("..", "", "nosuch/picture.png")),
    ],
)
def test_a_script_says_in_one_line_that_its_output_cant_be_written(script: str, output: str, tmp_path: Path) -> None:
    photos = [str(tmp_path)] if script == "studies/lr_sweep.py" else []
    done = subprocess.run(
        [sys.executable, SCRIPTS / script, *photos, "--output", output],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 6, done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert done.stderr.startswith("error: ")
    assert listing(tmp_path) == []


@pytest.mark.fault("script-output")
@pytest.mark.parametrize(
    "words", [["config", "show", "--plot"], ["inspect", "--kernels"], ["lr-find", "--plot"]], ids=" ".join
)
def test_a_folder_where_a_picture_is_wanted(words: list[str], model: Path, tmp_path: Path, run: Run) -> None:
    given = {"inspect": ["-m", model], "lr-find": [*QUICK[:2], "--steps", "20"]}.get(words[0], [])
    done = run(*words, ".", *given, cwd=tmp_path)
    assert done.exit_code == 6
    assert "a folder has this name" in done.stderr
    assert "Traceback" not in done.stderr
    assert listing(tmp_path) == []
