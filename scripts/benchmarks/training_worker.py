"""The worker process of benchmark.py that trains as ``facecnn train`` does, with photos from the cache, augmentation,
metrics, a progress bar and a run folder. It waits between the questions that it is asked.

Its photos are made up, and their cache is in a temporary folder; the kernels' cache is the user's.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.work import memory, serve
from facecnn.config import apply_overrides, load
from facecnn.jobs.console import LINES, TrainingDisplay
from facecnn.jobs.stderr import StderrConsole
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.train import train
from facecnn.kernels import open_device
from facecnn.learning.progress import StepReport
from facecnn.photos.cache_folder import CACHE_VARIABLE

LONG = 100_000
"""Epochs: more than anyone waits for."""


class Terminal(io.StringIO):
    """A terminal that shows nothing, so that the progress bar is drawn as it is for a user."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("it takes text")  # which tells click that it isn't binary
        return len(text)


class Clock:
    """Passes the reports of training on to the display, and notes when they came. Training waits there."""

    def __init__(self, shown: TrainingDisplay, wait: Callable[[Clock, int], None]) -> None:
        self._shown = shown
        self._wait = wait
        self._reports = [(time.perf_counter(), 0)]
        """When a turn began, and when steps and epochs in it ended; with the photos of the epoch seen by then (0 at its
        end)."""
        self._epochs: list[Mapping[str, Any]] = []
        self._steps = 0
        """Steps of the training so far."""
        self.step: Callable[[StepReport], None] = self._noted_step

    def start_turn(self, *, by_epochs: bool) -> None:
        """Forget the notes so far. With ``by_epochs`` steps are not noted, since that takes time of its own, and a step
        of a small network less than 0.1 ms."""
        _, seen = self._reports[-1]
        self._reports, self._epochs = [(time.perf_counter(), seen)], []
        self.step = self._shown.step if by_epochs else self._noted_step

    def _noted_step(self, report: StepReport) -> None:
        self._shown.step(report)
        self._reports.append((time.perf_counter(), report.photos))
        made, self._steps = report.step - self._steps, report.step
        self._wait(self, made)

    def trial_step(self, start: int, report: StepReport) -> None:
        self._shown.trial_step(start, report)

    def epoch(self, metrics: Mapping[str, Any], epochs: int) -> None:
        self._shown.epoch(metrics, epochs)
        self._reports.append((time.perf_counter(), 0))
        self._epochs.append(metrics)
        self._wait(self, 0)

    def batch(self) -> int:
        """Photos per step; only known in the first epoch."""
        _, seen = self._reports[-1]
        return seen // self._steps

    def turn_of_steps(self) -> dict[str, Any]:
        """``photos`` of the turn and its ``seconds``, display included; and the same ``within`` epochs.

        The latter leave out an epoch's first fused steps, because the end of the epoch before (metrics, validation,
        checkpoint) and the order of this one come before them.
        """
        turn = {"photos": 0, "seconds": 0.0}
        within = dict(turn)
        for (last, before), (now, seen) in itertools.pairwise(self._reports):
            for sums in (turn, within) if 0 < before < seen else (turn,):
                sums["photos"] += max(0, seen - before)
                sums["seconds"] += now - last
        return {**turn, "within": within}

    def turn_of_epochs(self) -> dict[str, Any]:
        """``seconds`` of the turn, the ends of epochs included; and for each epoch its photos per second, as `facecnn
        train` shows them (``rates``), with the seconds that they were computed from (``within``)."""
        return {
            "seconds": self._reports[-1][0] - self._reports[0][0],
            "rates": [epoch["photos_per_second"] for epoch in self._epochs],
            "within": [epoch["seconds"] for epoch in self._epochs],
        }


class ClockedConsole(StderrConsole):
    """The command line's console, with a clock in front of the display of training."""

    def __init__(self, wait: Callable[[Clock, int], None]) -> None:
        super().__init__(quiet=False, verbose=False)
        self._pause = wait

    @contextlib.contextmanager
    def training(self, epochs: int, steps: int, label: str = "", lines: int = LINES) -> Iterator[Any]:
        with super().training(epochs, steps, label, lines) as shown:
            yield Clock(shown, self._pause)


class Training:
    """Training. Options: config, overrides (as for --set), photos, folder (for run and cache), device, threads."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        open_device(options["device"], options["threads"])  # finds the kernels' folder before the cache is another one
        os.environ[CACHE_VARIABLE] = str(Path(options["folder"]) / "cache")
        self._goes_on, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._clock: Clock | None = None
        self._left, self._counts_epochs = 1, False
        """Steps or epochs until it waits."""
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._train, daemon=True)

    def start(self) -> dict[str, int]:
        """Read the photos and train the first step. Returns the batch size."""
        sys.stderr = Terminal()
        self._thread.start()
        clock = self._waited()
        return {"batch": clock.batch()}

    def steps(self, count: int) -> dict[str, Any]:
        """Train for some steps, and to the end of the fused steps that the last of them belongs to."""
        return self._turn(count, epochs=False).turn_of_steps()

    def epochs(self, count: int) -> dict[str, Any]:
        """Train to the end of this epoch, or of ``count`` epochs without a break between them."""
        return self._turn(count, epochs=True).turn_of_epochs()

    def memory(self) -> int | None:
        """Bytes of this process's memory that no file backs, so that they can't be dropped."""
        return memory("RssAnon")

    def _turn(self, count: int, *, epochs: bool) -> Clock:
        self._left, self._counts_epochs = count, epochs
        self._goes_on.release()
        return self._waited()

    def _waited(self) -> Clock:
        self._waits.acquire()
        if self._failure is not None:
            raise self._failure
        assert self._clock is not None
        return self._clock

    def _pause(self, clock: Clock, made: int) -> None:
        """Called in the training thread after ``made`` steps, or with 0 after an epoch."""
        if (made == 0) != self._counts_epochs:
            return
        self._left -= made or 1
        if self._left <= 0:
            self._clock = clock
            self._waits.release()
            self._goes_on.acquire()
            clock.start_turn(by_epochs=self._counts_epochs)

    def _train(self) -> None:
        options = self._options
        try:
            overrides = [*options["overrides"], "photos.faces=off", "train.stop_when_worst_loss_below=null"]
            loaded = apply_overrides(load(options["config"]), overrides, {"--epochs": ("train.epochs", LONG)})
            chosen = TrainOptions(
                photos=Path(options["photos"]),
                out=Path(options["folder"]),
                name=f"run-{os.getpid()}",
                device=options["device"],
                threads=options["threads"],
            )
            train(loaded, chosen, ClockedConsole(self._pause))
            raise RuntimeError("training ended too early")
        except BaseException as error:
            self._failure = error
            self._waits.release()


if __name__ == "__main__":
    serve(Training)
