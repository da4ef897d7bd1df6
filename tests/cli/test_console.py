"""What is told on stderr: of compiling, a line in place on a terminal, lines in a log; of a training, a bar."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partialmethod

import pytest
from tqdm import tqdm

from facecnn.cli import console
from facecnn.cli.console import StderrConsole
from facecnn.kernels import compilation
from facecnn.kernels.compilation import Compilation
from facecnn.learning.training import StepReport

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

    def tell(self, functions: int, seconds: float, *, at_work: bool) -> None:
        for listener in self.listeners:
            listener(Compilation(functions, seconds, at_work))


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
        assert said(capsys) == "Compiling for this processor, once, which can take a minute\n"
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
            "Compiling for this processor, once, which can take a minute\n"
            "Compiled 3 functions in 7 s\n"
            "warning: doubts\n"
        )
        compiler.tell(7, 13.0, at_work=False)
    assert said(capsys).endswith("Compiled 1 function in 2 s\n")
    assert not compiler.listeners


def test_a_line_on_a_terminal(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_is_terminal", lambda: True)
    with StderrConsole(quiet=False, verbose=False) as terminal:
        terminal.show_compilation()
        assert said(capsys) == ""
        compiler.tell(0, 0.0, at_work=True)
        compiler.tell(12, 14.2, at_work=True)
        shown = said(capsys)
        assert "Compiling for this processor, once: 0 functions, 0 s" in shown
        assert "\rCompiling for this processor, once: 12 functions, 14 s" in shown
        assert "\n" not in shown
        compiler.tell(12, 14.3, at_work=True)
        assert said(capsys) == ""  # nothing to see has changed
        compiler.tell(13, 15.0, at_work=False)
        assert set(said(capsys)) == {"\r", " "}  # the line is gone
        terminal.info("next")
        assert said(capsys) == "next\n"


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
    monkeypatch.setattr(console, "_is_terminal", lambda: True)
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
