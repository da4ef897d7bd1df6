"""Trainings that are stopped or killed, and resumed; two at once."""

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from .running import COMMAND, Facecnn, killed_at_the_end

EPOCHS = "200"
BETWEEN_SAVES = 100
SAVE_OFTEN = f"from facecnn.learning import loop; loop.MOST_STEPS_BETWEEN_SAVES = {BETWEEN_SAVES}"
CHECKPOINTS = ("last.safetensors", "best.safetensors", "previous.safetensors")
PIPE_SIZE = 4096

pytestmark = [
    pytest.mark.usefixtures("module_saves"),
    pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="needs pipes of a chosen size, as Linux has"),
]


class Running:
    """A command in a process of its own that waits, once its stderr is full, until somebody reads on.

    So whoever has seen the line of an epoch can send a signal before the training is more than some 60 lines ahead.
    """

    def __init__(self, arguments: Sequence[str | Path], ignored: Sequence[int] = ()) -> None:
        def ignore() -> None:
            for number in ignored:
                signal.signal(number, signal.SIG_IGN)

        self.process = subprocess.Popen(
            [*COMMAND[:2], f"{SAVE_OFTEN}; {COMMAND[2]}", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            preexec_fn=ignore,
        )
        assert self.process.stderr is not None
        self.stderr = b""
        fcntl.fcntl(self.process.stderr, fcntl.F_SETPIPE_SZ, PIPE_SIZE)

    def read_until(self, text: str) -> None:
        """Read stderr up to the line that starts so."""
        assert self.process.stderr is not None
        line = b""
        while not (line.endswith(b"\n") and line.startswith(text.encode())):
            if line.endswith(b"\n"):
                line = b""
            byte = self.process.stderr.read(1)
            if not byte:
                pytest.fail(f"ended before {text!r}: {self.stderr.decode()}")
            line += byte
            self.stderr += byte

    def end(self, *signals: int) -> tuple[int, str, str]:
        """Exit code, stdout and stderr after these signals."""
        for number in signals:
            self.process.send_signal(number)
        stdout, stderr = self.process.communicate(timeout=120)
        return self.process.returncode, stdout.decode(), (self.stderr + stderr).decode()


@contextmanager
def running(*arguments: str | Path, ignored: Sequence[int] = ()) -> Iterator[Running]:
    command = Running(arguments, ignored)
    with killed_at_the_end(command.process):
        yield command


@pytest.fixture(scope="module")
def whole(people: Path, tmp_path_factory: pytest.TempPathFactory, facecnn: Facecnn) -> Path:
    """A run that nobody interrupted."""
    out = tmp_path_factory.mktemp("whole")
    done = facecnn("train", people, "-c", "smoke", "--epochs", EPOCHS, "--out", out, "--name", "run", "--quiet")
    assert done.exit_code == 0
    return out / "run"


def training(people: Path, out: Path, *options: str) -> list[str | Path]:
    return ["train", people, "-v", "-c", "smoke", "--epochs", EPOCHS, "--out", out, "--name", "run", *options]


def assert_resumes_to(whole: Path, run: Path, facecnn: Facecnn) -> None:
    done = facecnn("train", "--resume", run, "--quiet")
    assert done.exit_code == 0, done.stderr
    for name in CHECKPOINTS:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    epochs = [line.split(",")[0] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert epochs == [line.split(",")[0] for line in (whole / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("number", "exit_code", "epoch"),
    [
        (signal.SIGINT, 130, 1),
        pytest.param(signal.SIGTERM, 143, 20, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, 33, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_training_ends_like_one_that_was_not(
    number: int, exit_code: int, epoch: int, whole: Path, people: Path, tmp_path: Path, facecnn: Facecnn
) -> None:
    with running(*training(people, tmp_path)) as command:
        command.read_until(f"epoch {epoch}/")
        code, stdout, stderr = command.end(number)
    assert (code, stdout) == (exit_code, "")
    assert f"facecnn train --resume {tmp_path / 'run'}" in stderr
    assert "Traceback" not in stderr
    assert not list((tmp_path / "run").glob("*.png"))
    answer = facecnn("predict", people / "ann" / "00.png", "-m", tmp_path / "run", "--format", "json")
    assert answer.exit_code == 0
    assert "hasn't ended" in answer.stderr
    assert_resumes_to(whole, tmp_path / "run", facecnn)


@pytest.mark.slow
def test_stopped_twice_in_a_row(whole: Path, people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    with running(*training(people, tmp_path)) as command:
        command.read_until("epoch 20/")
        code, stdout, stderr = command.end(signal.SIGINT, signal.SIGTERM)
    assert code in (130, 143)  # the second may come when the first has done its work
    assert stdout == ""
    assert "--resume" in stderr
    assert "Traceback" not in stderr
    assert_resumes_to(whole, tmp_path / "run", facecnn)


@pytest.mark.slow
def test_stopped_again_and_again(whole: Path, people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    arguments: list[str | Path] = training(people, tmp_path)
    for epoch in (2, 70, 140):
        with running(*arguments) as command:
            command.read_until(f"epoch {epoch}/")
            assert command.end(signal.SIGINT)[0] == 130
        arguments = ["train", "-v", "--resume", tmp_path / "run"]
    assert_resumes_to(whole, tmp_path / "run", facecnn)


@pytest.mark.parametrize("epoch", [pytest.param(1, marks=pytest.mark.slow), 30])
def test_a_killed_training_can_be_resumed(
    epoch: int, whole: Path, people: Path, tmp_path: Path, facecnn: Facecnn
) -> None:
    with running(*training(people, tmp_path)) as command:
        command.read_until(f"epoch {epoch}/")
        assert command.end(signal.SIGKILL)[0] == -signal.SIGKILL
    assert facecnn("predict", people / "ann" / "00.png", "-m", tmp_path / "run").exit_code == 0
    assert_resumes_to(whole, tmp_path / "run", facecnn)


def test_stopped_before_the_first_step(people: Path, tmp_path: Path) -> None:
    with running(*training(people, tmp_path)) as command:
        command.read_until("Device:")
        code, stdout, stderr = command.end(signal.SIGTERM)
    assert (code, stdout) == (143, "")
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_cross_validation_stops_at_once(number: int, exit_code: int, people: Path) -> None:
    with running("cross-validate", people, "-c", "smoke", "--epochs", EPOCHS) as command:
        command.read_until("Fold 1 of 5, epoch 1/")
        code, stdout, stderr = command.end(number)
    assert (code, stdout) == (exit_code, "")
    assert stderr.endswith("Stopped.\n")


@pytest.mark.slow
def test_nohup_survives_a_hangup(whole: Path, people: Path, tmp_path: Path) -> None:
    with running(*training(people, tmp_path), ignored=[signal.SIGHUP]) as command:
        command.read_until("epoch 3/")
        code, stdout, _ = command.end(signal.SIGHUP)
    assert code == 0
    assert stdout.startswith(f"Trained {EPOCHS} epochs")
    assert (tmp_path / "run" / "best.safetensors").read_bytes() == (whole / "best.safetensors").read_bytes()


@pytest.mark.slow
def test_two_trainings_never_share_a_run(whole: Path, people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    with running(*training(people, tmp_path)) as command:
        command.read_until("epoch 1/")
        for second in (
            training(people, tmp_path),
            training(people, tmp_path, "--overwrite"),
            ["train", "--resume", tmp_path / "run"],
        ):
            done = facecnn(*second)
            assert done.exit_code == 6
            assert f"in use by process {command.process.pid}" in done.stderr
        code, _, _ = command.end()
    assert code == 0
    for name in CHECKPOINTS:
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()


def test_a_run_folder_deleted_in_mid_training(people: Path, tmp_path: Path) -> None:
    with running(*training(people, tmp_path)) as command:
        command.read_until("epoch 1/")
        command.process.send_signal(signal.SIGSTOP)  # so that nothing is written while files are deleted
        os.waitpid(command.process.pid, os.WUNTRACED)
        shutil.rmtree(tmp_path / "run")
        command.process.send_signal(signal.SIGCONT)
        code, stdout, stderr = command.end()
    assert (code, stdout) == (6, "")
    assert str(tmp_path / "run") in stderr
    assert list(tmp_path.iterdir()) == []
