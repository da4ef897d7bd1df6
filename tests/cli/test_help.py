"""What the command line says of itself."""

import re

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

from .running import Facecnn

COMMANDS = {
    (): ["train", "eval", "predict", "sort", "cross-validate", "inspect", "doctor", "data", "config", "lr-find"],
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
    ("predict",): ["--model", "-m", "-0", "--threshold", "--explain", "--device", "--format"],
    ("sort",): ["--model", "-m", "--link", "--threshold", "--device", "--format"],
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
        "--strict",
        "--format",
    ],
    ("inspect",): ["--format"],
    ("doctor",): ["--device", "--format"],
    ("report",): ["--check-background", "--out", "--device", "--threads", "--format"],
    ("data",): ["sample", "check"],
    ("data", "sample"): ["--people", "--strangers", "--format"],
    ("data", "check"): ["--strict", "--format"],
    ("config",): ["show", "schema", "check"],
    ("config", "show"): ["--config", "--set", "--plot"],
    ("config", "schema"): [],
    ("config", "check"): [],
}
GROUPS = [(), ("data",), ("config",)]


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
