"""What the command line says of itself."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import facecnn
from facecnn.errors import (
    CheckpointError,
    DeviceError,
    DivergedError,
    FacecnnError,
    OutputError,
    PhotoError,
    UsageError,
)

from .running import COMMAND, Facecnn

COMMANDS = {
    (): [
        "train",
        "eval",
        "predict",
        "sort",
        "cross-validate",
        "inspect",
        "doctor",
        "data",
        "config",
        "lr-find",
        "help",
        "runs",
    ],
    ("train",): [
        "--config",
        "-c",
        "--set",
        "--device",
        "--epochs",
        "--seed",
        "--threads",
        "--out",
        "--name",
        "--overwrite",
        "--resume",
        "--init-from",
        "--validation",
        "--overfit-batch",
        "--dry-run",
        "--strict",
        "--format",
    ],
    ("eval",): ["--model", "-m", "--split", "--predictions", "--fail-under", "--device", "--format"],
    ("predict",): ["--model", "-m", "-0", "--threshold", "--explain", "--draw", "--device", "--format"],
    ("sort",): ["--model", "-m", "--several", "--link", "--threshold", "--device", "--format"],
    ("cross-validate",): [
        "--folds",
        "--config",
        "-c",
        "--set",
        "--device",
        "--epochs",
        "--seed",
        "--threads",
        "--strict",
        "--format",
    ],
    ("lr-find",): [
        "--config",
        "-c",
        "--set",
        "--model",
        "-m",
        "--device",
        "--seed",
        "--threads",
        "--steps",
        "--write",
        "--plot",
        "--out",
        "--strict",
        "--format",
    ],
    ("inspect",): ["--model", "-m", "--format"],
    ("doctor",): ["--device", "--format"],
    ("report",): ["--model", "-m", "--check-background", "--out", "--device", "--threads", "--format"],
    ("sweep",): [
        "--trials",
        "--folds",
        "--outer-folds",
        "--processes",
        "--out",
        "--name",
        "--resume",
        "--set",
        "--epochs",
        "--seed",
        "--device",
        "--threads",
        "--strict",
        "--format",
    ],
    ("export",): ["--model", "-m", "--to", "--out", "--overwrite", "--format"],
    ("data",): ["sample", "check"],
    ("data", "sample"): ["--people", "--strangers", "--format"],
    ("data", "check"): ["--strict", "--format"],
    ("config",): ["show", "schema", "check"],
    ("config", "show"): ["--config", "--set", "--plot"],
    ("config", "schema"): [],
    ("config", "check"): [],
    ("help",): [],
    ("runs",): ["list", "show", "compare", "pin", "prune"],
    ("runs", "list"): ["--out", "--format"],
    ("runs", "show"): ["--out", "--format"],
    ("runs", "compare"): ["--out", "--format"],
    ("runs", "pin"): ["--none", "--out", "--format"],
    ("runs", "prune"): ["--keep", "--unfinished", "--yes", "--out", "--format"],
}
GROUPS = [(), ("runs",), ("data",), ("config",)]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(command: tuple[str, ...], option: str, facecnn: Facecnn) -> None:
    done = facecnn(*command, option)
    assert (done.exit_code, done.stderr) == (0, "")
    usage, *lines = map(str.rstrip, done.stdout.splitlines())
    assert max(map(len, [usage, *lines])) <= 80
    assert not [line for line in lines if line.endswith(("-", "..."))]  # words parted, and sentences cut off
    assert "\x1b" not in done.stdout
    words = set(re.findall(r"-{0,2}[\w-]+", done.stdout))
    everywhere = [] if command in GROUPS else ["--quiet", "--verbose", "--traceback", "--help"]
    assert {*COMMANDS[command], *everywhere} <= words


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_as_a_command_says_the_same(command: tuple[str, ...], facecnn: Facecnn) -> None:
    done = facecnn("help", *command)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == facecnn(*command, "--help").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "error: facecnn trian: no such command: did you mean train?"),
        (["data", "chek"], "error: facecnn data chek: no such command: did you mean check?"),
        (["train", "x"], "error: facecnn train x: no such command: facecnn train -h lists what there is"),
    ],
)
def test_help_about_what_there_isnt(words: list[str], message: str, facecnn_process: Facecnn) -> None:
    done = facecnn_process("help", *words, prog="facecnn")
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", f"{message}\n")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("tr", {"train"}), ("data ", {"check", "crop", "sample"}), ("train --over", {"--overwrite", "--overfit-batch"})],
)
def test_a_shell_completes(typed: str, offered: set[str], facecnn_process: Facecnn) -> None:
    words = f"facecnn {typed}"
    environment = {"_FACECNN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = facecnn_process(environment=environment, prog="facecnn")
    assert (done.exit_code, done.stderr) == (0, "")
    assert set(done.stdout.split()) == offered


def test_completion_is_installed_for_the_shell(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    program = f"import sys; sys.argv[0] = 'facecnn'; {COMMAND[-1]}"
    script = '"$@" --install-completion; echo "exit code $?"'  # not the last command, so that bash stays the parent
    words = [bash, "-c", script, "bash", *COMMAND[:-1], program]
    done = subprocess.run(words, env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60)
    assert "exit code 0" in done.stdout, done.stderr
    assert "_FACECNN_COMPLETE" in (tmp_path / ".bash_completions" / "facecnn.sh").read_text()
    assert "facecnn.sh" in (tmp_path / ".bashrc").read_text()


def test_version(facecnn_process: Facecnn) -> None:
    done = facecnn_process("--version")
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"facecnn {facecnn.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["train", "--nam", "x"], "--name"),
        (["train", "--out"], "--out"),
        (["predict"], "photos"),
        (["data", "chek"], "Did you mean 'check'?"),
        ([], "Usage:"),
    ],
)
def test_usage_errors_go_to_stderr(arguments: list[str], message: str, facecnn: Facecnn) -> None:
    done = facecnn(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr


def test_exit_codes() -> None:
    kinds = [FacecnnError, UsageError, PhotoError, CheckpointError, DeviceError, OutputError, DivergedError]
    assert [kind.exit_code for kind in kinds] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("error", [RuntimeError("surprise"), MemoryError("12 GB")])
def test_an_unforeseen_error(error: Exception, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("facecnn.config.load", fail)
    done = facecnn("config", "show")
    assert (done.exit_code, done.stdout) == (1, "")
    assert str(error) in done.stderr
