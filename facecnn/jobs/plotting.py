"""Draws plots in a process of its own, alongside the first one.

It is started when training begins, which keeps one processor busy until the first step: meanwhile another loads
matplotlib, which takes as long as drawing.
"""

import gc
import itertools
import operator
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial

import numpy as np

from facecnn.jobs import further_process
from facecnn.reports.figure import can_draw
from facecnn.reports.plots import draw_confusion

LONGEST = 120.0
"""Seconds that a plot may take, or loading matplotlib, which on its first use looks through all fonts."""

_READY, _DRAWN, _FAILED = b"ready\n", b"drawn\n", b"failed\n"


class Plot(partial[None]):
    """A picture to draw: a function of a module, with the file to write and its other arguments. Raises OutputError."""


class Plotter(AbstractContextManager["Plotter"]):
    """Draws plots in a further process, and here what isn't drawn there: then it fails here, with an error. A process
    that takes longer than ``LONGEST`` is ended."""

    def __init__(self, *, beside: bool = False) -> None:
        """``beside``: whether to start the further process."""
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        self._begun: list[tuple[Plot, bool]] = []
        """Plots, and whether they were sent to the process."""
        if beside:
            with suppress(OSError):  # no more processes
                self._process = further_process.start(__name__, stdout=subprocess.PIPE)

    @property
    def draws_beside(self) -> bool:
        """Whether there is a further process."""
        return self._process is not None

    def can_draw(self) -> bool:
        """Whether matplotlib can be loaded."""
        return self._process_is_ready() or can_draw()

    def begin(self, plots: Sequence[Plot]) -> None:
        """Have plots drawn while the caller goes on; without a process, ``finish`` draws them."""
        is_sent = False
        if self._process_is_ready():
            assert self._process is not None
            assert self._process.stdin is not None
            with suppress(OSError), self._ending_it_if_it_hangs():  # it has ended
                pickle.dump(plots, self._process.stdin)
                self._process.stdin.flush()
                is_sent = True
        self._begun += [(plot, is_sent) for plot in plots]

    def finish(self) -> None:
        """Wait for all plots. Raises OutputError if one can't be written."""
        begun, self._begun = self._begun, []
        is_drawn = [is_sent and self._says(_DRAWN) for _, is_sent in begun]
        for plot in itertools.compress((plot for plot, _ in begun), map(operator.not_, is_drawn)):
            plot()

    def _process_is_ready(self) -> bool:
        """Whether there is a process that can draw; waits until it has loaded what it needs."""
        if self._process is not None and not self._is_ready:
            self._is_ready = self._says(_READY)
            if not self._is_ready:
                self._stop()
        return self._is_ready

    def _says(self, word: bytes) -> bool:
        """Whether the process says this next. If it has ended it says nothing."""
        assert self._process is not None
        assert self._process.stdout is not None
        with self._ending_it_if_it_hangs():
            return self._process.stdout.readline() == word

    @contextmanager
    def _ending_it_if_it_hangs(self) -> Iterator[None]:
        assert self._process is not None
        killer = threading.Timer(LONGEST, self._process.kill)
        with suppress(RuntimeError):  # no more threads
            killer.start()
        try:
            yield
        finally:
            killer.cancel()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __exit__(self, *_: object) -> None:
        self._stop()


def _work() -> None:
    """What the further process does, until its input ends."""
    draw_confusion(None, np.ones((1, 2)), ["a"], ["a", "refused"], "")  # which loads more than an import does
    gc.disable()  # it would go through all that was loaded while plots are drawn
    _say(_READY)
    with suppress(EOFError):
        while True:
            for plot in pickle.load(sys.stdin.buffer):
                try:
                    plot()
                except Exception:  # the first process draws it again, and reports what is wrong
                    _say(_FAILED)
                else:
                    _say(_DRAWN)


def _say(word: bytes) -> None:
    sys.stdout.buffer.write(word)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    _work()
