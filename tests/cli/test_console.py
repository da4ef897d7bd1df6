"""What is told on stderr: of compiling, a line in place on a terminal, lines in a log; of a training, a bar."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partialmethod
from itertools import pairwise

import pytest
from tqdm import tqdm

from facecnn.jobs import stderr
from facecnn.jobs.stderr import StderrConsole
from facecnn.kernels import compilation
from facecnn.kernels.compilation import Compilation
from facecnn.learning.progress import StepReport

METRICS = {
    "train_loss": 0.5,
    "train_accuracy": 0.75,
    "validation_loss": None,
    "validation_accuracy": None,
    "photos_per_second": None,
}

Tell = Callable[[Compilation], None]


class Compiler:
    """Stands for Numba: what a test says is compiled."""

    def __init__(self) -> None:
        self.listeners: list[Tell] = []

    @contextmanager
    def told(self, tell: Tell) -> Iterator[None]:
        self.listeners.append(tell)
        yield
        self.listeners.remove(tell)

    def tell(self, functions: int, seconds: float, *, at_work: bool, waited: float = 0.0) -> None:
        for listener in self.listeners:
            listener(Compilation(functions, seconds, at_work, waited))


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    made = Compiler()
    monkeypatch.setattr(compilation, "told", made.told)
    return made


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_lines_in_a_log(compiler: Compiler, capsys: pytest.CaptureFixture[str]) -> None:
    with StderrConsole(quiet=False, verbose=False) as log:
        log.show_compilation()
        log.show_compilation()  # for another device, or the same once more
        compiler.tell(0, 0.0, at_work=True)
        assert said(capsys) == ""
        compiler.tell(1, 2.0, at_work=True)
        assert said(capsys) == "Compiling for this machine, once, which can take a minute\n"
        compiler.tell(2, 3.0, at_work=True)
        log.info("meanwhile, from another thread")
        compiler.tell(3, 4.0, at_work=False)
        assert said(capsys) == "meanwhile, from another thread\n"
        log.info("next")
        assert said(capsys) == "Compiled 3 functions in 4 s\nnext\n"
        compiler.tell(4, 4.5, at_work=True)  # not worth a line by itself
        compiler.tell(4, 4.5, at_work=False)
        log.info("next")
        assert said(capsys) == "next\n"
        compiler.tell(5, 10.0, at_work=True)
        compiler.tell(6, 11.0, at_work=False)
        log.warning("doubts")
        assert said(capsys) == (
            "Compiling for this machine, once, which can take a minute\nCompiled 3 functions in 7 s\nwarning: doubts\n"
        )
        compiler.tell(7, 13.0, at_work=False)
    assert said(capsys).endswith("Compiled 1 function in 2 s\n")
    assert not compiler.listeners


def test_a_line_on_a_terminal(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stderr, "_is_terminal", lambda: True)
    with StderrConsole(quiet=False, verbose=False) as terminal:
        terminal.show_compilation()
        assert said(capsys) == ""
        compiler.tell(0, 0.0, at_work=True)
        compiler.tell(12, 14.2, at_work=True)
        shown = said(capsys)
        assert "Compiling for this machine, once: 0 functions, 0 s" in shown
        assert "\rCompiling for this machine, once: 12 functions, 14 s" in shown
        assert "\n" not in shown
        compiler.tell(12, 14.3, at_work=True)
        assert said(capsys) == ""  # nothing to see has changed
        compiler.tell(13, 15.0, at_work=False)
        assert set(said(capsys)) == {"\r", " "}  # the line is gone
        terminal.info("next")
        assert said(capsys) == "next\n"


def test_what_is_left_is_shown_on_a_terminal_only(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left: list[int | None] = [None, 30, 1, 0]
    monkeypatch.setattr(stderr, "_is_terminal", lambda: True)
    with StderrConsole(quiet=False, verbose=False) as terminal:
        terminal.show_compilation()
        terminal.show_left(lambda: left.pop(0))
        compiler.tell(1, 1.0, at_work=True)
        assert "Compiling for this machine, once: 1 function, 1 s" in said(capsys)
        compiler.tell(1, 4.2, at_work=True)
        assert "\rCompiling for this machine, once: 30 functions left, 4 s" in said(capsys)
        compiler.tell(12, 14.0, at_work=True, waited=3.0)
        assert "\rCompiling for this machine, once: 1 function left, 17 s" in said(capsys)
        compiler.tell(13, 15.0, at_work=True, waited=3.0)
        assert "\rCompiling for this machine, once: 0 functions left, 18 s" in said(capsys)
        compiler.tell(13, 15.0, at_work=False, waited=3.0)
        assert set(said(capsys)) == {"\r", " "}
    monkeypatch.setattr(stderr, "_is_terminal", lambda: False)
    for quiet, lines in ((False, 2), (True, 0)):
        with StderrConsole(quiet=quiet, verbose=False) as console:
            console.show_compilation()
            console.show_left(lambda: 7)
            compiler.tell(12, 14.0, at_work=True, waited=3.0)
            compiler.tell(13, 15.0, at_work=False, waited=3.0)
        shown = said(capsys)
        assert shown.count("\n") == lines
        assert "7" not in shown


def test_nothing_is_told_with_quiet(compiler: Compiler) -> None:
    with StderrConsole(quiet=True, verbose=False) as quiet:
        quiet.show_compilation()
        assert not compiler.listeners


def test_an_error_ends_it(compiler: Compiler, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(log: StderrConsole) -> None:
        with log:
            log.show_compilation()
            compiler.tell(1, 2.0, at_work=False)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails(StderrConsole(quiet=False, verbose=False))
    assert said(capsys).endswith("Compiled 1 function in 2 s\n")
    assert not compiler.listeners


def test_a_bar_on_a_terminal_shows_trials_and_then_the_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stderr, "_is_terminal", lambda: True)
    monkeypatch.setattr(tqdm, "__init__", partialmethod(tqdm.__init__, mininterval=0))
    report = StepReport(epoch=1, epochs=2, step=1, steps=4, photos=8, loss=0.5, accuracy=0.75)
    with StderrConsole(quiet=False, verbose=False) as shown, shown.training(2, 4) as bar:
        bar.trial_step(0, report)
        bar.trial_step(1, report._replace(epoch=2, loss=0.25))
        trials = said(capsys)
        assert "start 0: epoch 1/2 loss 0.500 acc 75%" in trials
        assert "start 1: epoch 2/2 loss 0.250 acc 75%" in trials
        bar.step(report)
        bar.step(report._replace(step=2, photos=16, loss=0.125))
        training = said(capsys)
    assert "epoch 1/2 loss 0.500 acc 75%  25%" in training
    assert "epoch 1/2 loss 0.125 acc 75%" in training
    assert "/s  50%" in training


def epochs_told(
    planned: int, done: int, capsys: pytest.CaptureFixture[str], *, verbose: bool = False, **options: int
) -> list[int]:
    with StderrConsole(quiet=False, verbose=verbose) as log, log.training(planned, planned, **options) as shown:
        for epoch in range(1, done + 1):
            shown.epoch({**METRICS, "epoch": epoch}, planned)
    lines = said(capsys).splitlines()
    assert all(f"/{planned}  loss 0.5000  accuracy 75.0 %" in line for line in lines)
    return [int(line.split()[1].partition("/")[0]) for line in lines]


@pytest.mark.parametrize("planned", [1, 2, 9, 10, 11, 19, 60, 124, 1600])
def test_a_log_has_ten_epochs_evenly_spaced(planned: int, capsys: pytest.CaptureFixture[str]) -> None:
    told = epochs_told(planned, planned, capsys)
    assert len(told) == min(planned, 10)
    assert (told[0], told[-1]) == (1, planned)
    gaps = {later - earlier for earlier, later in pairwise(told)}
    assert max(gaps, default=0) - min(gaps, default=0) <= 1
    assert epochs_told(planned, planned, capsys, verbose=True) == list(range(1, planned + 1))
    assert len(epochs_told(planned, planned, capsys, lines=3)) == min(planned, 3)


def test_a_log_has_the_last_epoch_of_a_training_that_ends_early(capsys: pytest.CaptureFixture[str]) -> None:
    assert epochs_told(100, 37, capsys) == [1, 12, 23, 34, 37]
    assert epochs_told(100, 34, capsys) == [1, 12, 23, 34]
    assert epochs_told(100, 0, capsys) == []


@pytest.mark.parametrize("columns", [80, 40, 5])
def test_a_terminal_gets_lines_that_it_need_not_break(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    termios = pytest.importorskip("termios", reason="needs a pseudo-terminal")
    text = "the best device here: no NVIDIA driver is installed (libcuda.so.1 wasn't found), and --fail-under isn't met"
    primary, secondary = os.openpty()
    termios.tcsetwinsize(secondary, (24, columns))
    with open(primary, "rb", buffering=0) as screen, open(secondary, "w") as terminal:  # noqa: PTH123
        monkeypatch.setattr("sys.stderr", terminal)
        with StderrConsole(quiet=False, verbose=False) as console_of_it:
            console_of_it.info(text)
            console_of_it.warning(f"{'x' * 200} {text}")
            console_of_it.info("That's it.")
        written = b""
        while b"That's it." not in written:
            written += screen.read(1000)
    shown = written.decode().splitlines()[:-1]
    assert " ".join(shown) == f"{text} warning: {'x' * 200} {text}"  # broken at spaces only
    assert all(len(line) <= max(columns, 20) or " " not in line for line in shown)
    assert len(shown) > 4


def test_a_log_has_messages_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with StderrConsole(quiet=False, verbose=False) as log:
        log.warning("long " * 50)
    assert said(capsys) == f"warning: {'long ' * 50}\n"
