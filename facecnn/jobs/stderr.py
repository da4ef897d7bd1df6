"""Messages and progress on stderr: bars on a terminal, lines in a log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from textwrap import fill
from typing import TYPE_CHECKING, Any

import typer

from facecnn.jobs.console import LINES, Console, TrainingDisplay
from facecnn.reports.findings import counted

if TYPE_CHECKING:
    from facecnn.kernels.compilation import Compilation
    from facecnn.learning.progress import StepReport

_COMPILING = "Compiling for this machine, once"

WORTH_A_LINE = 1.0
"""Seconds of compiling before a log mentions it."""


class StderrConsole(Console):
    """The console of a command, as a context manager."""

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self._echo: Callable[[str], None] = partial(typer.echo, err=True)
        self._compilation: _CompilationLine | _CompilationLog | None = None
        self._shows_compilation = False
        self._shown = ExitStack()

    def __enter__(self) -> StderrConsole:
        return self

    def __exit__(self, *error: object) -> None:
        self._shown.close()

    def info(self, text: str) -> None:
        if not self.quiet:
            self._end_compilation()
            self._echo(fitted(text))

    def warning(self, text: str) -> None:
        self._end_compilation()
        self._echo(fitted(f"warning: {text}"))

    def show_compilation(self) -> None:
        if self._shows_compilation:
            return
        self._shows_compilation = True
        from facecnn.kernels.notes import slow

        self._shown.enter_context(slow.told(self.warning))
        if self.quiet:
            return
        from facecnn.kernels.code_cache import notes_told
        from facecnn.kernels.compilation import told

        self._compilation = _CompilationLine() if _is_terminal() else _CompilationLog(self._echo)
        self._shown.callback(self._end_compilation)
        self._shown.enter_context(told(self._compilation.show))
        self._shown.enter_context(notes_told(self.info))

    def show_left(self, left: Callable[[], int | None]) -> None:
        if isinstance(self._compilation, _CompilationLine):
            self._compilation.left = left

    def _end_compilation(self) -> None:
        """Finish the message about compiling, before another message."""
        if self._compilation is not None:
            self._compilation.end()

    @contextmanager
    def counting(self, what: str, unit: str = "photos") -> Iterator[Callable[[int, int], None]]:
        if self.quiet or not _is_terminal():
            yield lambda done, total: None
            return
        from tqdm import tqdm

        with tqdm(desc=what, leave=False, unit=f" {unit}", dynamic_ncols=True, delay=0.5) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield progress

    @contextmanager
    def training(self, epochs: int, steps: int, label: str = "", lines: int = LINES) -> Iterator[_Lines | _Bar]:
        if self.quiet:
            yield _Lines(None, label, epochs)
        elif self.verbose or not _is_terminal():
            shown = _Lines(self.info, label, epochs if self.verbose else lines)
            yield shown
            shown.end()
        else:
            from tqdm import tqdm

            layout = "{desc} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
            with tqdm(total=steps, bar_format=layout, dynamic_ncols=True, leave=False, miniters=0) as bar:
                echo, self._echo = self._echo, partial(bar.write, file=sys.stderr)  # above the bar, not into it
                try:
                    yield _Bar(bar, label)
                finally:
                    self._echo = echo


def fitted(text: str) -> str:
    """A message for stderr, wrapped between words on a terminal. In a log it stays one line, to be searchable."""
    if not _is_terminal():
        return text
    try:
        width = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):  # not a real terminal
        width = 0
    if width <= 0:
        return text
    return "\n".join(paragraph(line, max(width, 20)) for line in text.splitlines())


def paragraph(text: str, columns: int = 80, *, first: str = "", below: str = "") -> str:
    """Text wrapped between words only, with ``first`` before the first line and ``below`` before the others."""
    return fill(
        text, columns, initial_indent=first, subsequent_indent=below, break_long_words=False, break_on_hyphens=False
    )


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()  # None if the caller closed it


class _CompilationLine:
    """A line on a terminal while something is compiled, below the progress bar if there is one."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._shown = (0, 0)
        self.left: Callable[[], int | None] = lambda: None
        """How many functions are still to be compiled, by whichever process."""

    def show(self, compilation: Compilation) -> None:
        if not compilation.at_work:
            self.end()
            return
        now = compilation.functions, round(compilation.seconds + compilation.waited)
        if self._bar is not None and now == self._shown:
            return
        self._shown = functions, seconds = now
        left = self.left()
        done = counted(functions, "function") if left is None else f"{counted(left, 'function')} left"
        text = f"{_COMPILING}: {done}, {seconds} s"
        if self._bar is None:
            from tqdm import tqdm

            # A bar of length 0: without one, tqdm doesn't cut the text to the terminal's width.
            self._bar = tqdm(desc=text, bar_format="{desc}{bar:0}", dynamic_ncols=True, leave=False)
        else:
            self._bar.set_description_str(text)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _CompilationLog:
    """A line in a log when compiling begins to take time, and one when it is done.

    It counts as done when the next message comes, since one function is often compiled right after another.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._functions, self._seconds = 0, 0.0
        self._told_functions, self._told_seconds = 0, 0.0
        self._announced = self._at_work = False

    def show(self, compilation: Compilation) -> None:
        self._functions, self._seconds = compilation.functions, compilation.seconds
        self._at_work = compilation.at_work
        if not self._announced and self._seconds - self._told_seconds >= WORTH_A_LINE:
            self._announced = True
            self._say(f"{_COMPILING}, which can take a minute")

    def end(self) -> None:
        if not self._announced or self._at_work:  # another thread may be compiling while this one has a message
            return
        functions, seconds = self._functions - self._told_functions, self._seconds - self._told_seconds
        self._say(f"Compiled {counted(functions, 'function')} in {seconds:.0f} s")
        self._told_functions, self._told_seconds, self._announced = self._functions, self._seconds, False


class _Lines(TrainingDisplay):
    """The display of training in a log: a line for evenly spaced epochs, including the first and the last."""

    def __init__(self, say: Callable[[str], None] | None, label: str, lines: int) -> None:
        self._say = say
        self._label = f"{label}, " if label else ""
        self._lines = lines
        self._held_back: str | None = None
        self._held_out: Mapping[str, Any] = {}
        """Figures of the last epoch after which the held-out photos were judged."""

    def epoch(self, metrics: Mapping[str, Any], epochs: int) -> None:
        if self._say is None or not self._lines:
            return
        line = (
            f"{self._label}epoch {metrics['epoch']}/{epochs}  loss {metrics['train_loss']:.4f}  "
            f"accuracy {100 * metrics['train_accuracy']:.1f} %"
        )
        if metrics["validation_loss"] is not None:
            self._held_out = metrics
        if self._held_out:
            epoch, accuracy = self._held_out["epoch"], self._held_out["validation_accuracy"]
            after = "" if epoch == metrics["epoch"] else f" after epoch {epoch}"
            line += f"  held out{after}: {self._held_out['validation_loss']:.4f}"
            line += "" if accuracy is None else f", {100 * accuracy:.1f} %"
        rate = metrics["photos_per_second"]
        self._held_back = line if rate is None else f"{line}  {rate:.0f} photos/s"
        if self._is_due(metrics["epoch"], epochs):
            self.end()

    def _is_due(self, epoch: int, epochs: int) -> bool:
        """Whether the epoch is one of those that divide the training into equal intervals."""
        intervals = max(min(self._lines, epochs) - 1, 1)
        return (epoch - 1) * intervals % (epochs - 1) < intervals if epochs > 1 else True

    def end(self) -> None:
        """Log the last epoch, too, where the training ended earlier than planned."""
        if self._say is not None and self._held_back is not None:
            self._say(self._held_back)
        self._held_back = None


class _Bar(TrainingDisplay):
    """The display of training on a terminal: one bar over all steps."""

    def __init__(self, bar: Any, label: str) -> None:
        self._bar = bar
        self._label = f"{label}, " if label else ""
        self._held_out = ""
        self._photos_in_epoch = 0
        self._photos = 0
        self._first_step_ended = 0.0
        self._trying = False

    def trial_step(self, start: int, report: StepReport) -> None:
        self._trying = True
        if self._is_due(time.time()):
            figures = f"loss {report.loss:.3f} acc {100 * report.accuracy:.0f}%"
            text = f"{self._label}start {start}: epoch {report.epoch}/{report.epochs} {figures}"
            self._bar.set_description_str(text, refresh=False)
            self._bar.update(0)

    def step(self, report: StepReport) -> None:
        bar = self._bar
        if self._trying:
            bar.reset()  # the trials' time isn't part of training
            self._trying = False
        now = time.time()
        if self._first_step_ended:
            self._photos += report.photos - self._photos_in_epoch
        else:
            self._first_step_ended = now  # most of that step is spent on compiling or loading kernels
            bar.initial = bar.n = report.step - 1  # resumed: earlier steps don't count for the speed
        self._photos_in_epoch = report.photos
        if self._is_due(now):
            bar.set_description_str(self._text(report, now - self._first_step_ended), refresh=False)
            bar.update(report.step - bar.n)

    def _is_due(self, now: float) -> bool:
        """Whether tqdm will draw the bar at the next update, so that a new text is worth making."""
        return now - self._bar.last_print_t >= self._bar.mininterval or not self._bar.desc

    def _text(self, report: StepReport, seconds: float) -> str:
        speed = f" {self._photos / seconds:.0f}/s" if seconds > 0 else ""
        figures = f"loss {report.loss:.3f} acc {100 * report.accuracy:.0f}%{self._held_out}{speed}"
        return f"{self._label}epoch {report.epoch}/{report.epochs} {figures}"

    def epoch(self, metrics: Mapping[str, Any], epochs: int) -> None:
        self._photos_in_epoch = 0
        if metrics["validation_accuracy"] is not None:
            self._held_out = f" held out {100 * metrics['validation_accuracy']:.0f}%"
