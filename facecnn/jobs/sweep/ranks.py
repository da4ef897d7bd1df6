"""Runs a sweep's trials on several ranks, which all work on its journal."""

from dataclasses import replace

from facecnn.jobs.console import Console
from facecnn.jobs.sharing import warn_of_lost
from facecnn.jobs.sweep.trial import Task, run_trials
from facecnn.jobs.sweep.worker import known_to_work
from facecnn.jobs.training.options import TrainOptions
from facecnn.kernels import Device
from facecnn.parallel.ranks import Ranks, Silent


class _Messages(Console):
    """A console that keeps messages for rank 0."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        self.lines.append(text)


def run_on_ranks(task: Task, device: Device, console: Console, ranks: Ranks) -> None:
    """On rank 0: run all trials, with the others, and then those left by a rank that fell silent."""
    ranks.broadcast(task)
    ranks.busy()
    run_trials(task, device, console)
    found: list[list[str] | Silent] = ranks.collect([])
    for lines in found:
        for line in [] if isinstance(lines, Silent) else lines:
            console.info(line)
    ranks.busy()
    if ranks.lost:
        warn_of_lost(ranks, console)
        trials = task.open_trials()
        for part in task.parts:
            trials.requeue_lost(part.name)
        run_trials(task, device, console)


def follow(options: TrainOptions, device: Device, ranks: Ranks) -> None:
    """On other ranks: run trials until there are none left to start."""
    given: Task = ranks.broadcast(None, patiently=True)
    ranks.busy()
    task, messages = replace(given, device=options.device, threads=options.threads), _Messages()
    with known_to_work(task.journal, ranks.rank):
        run_trials(task, device, messages)
    ranks.collect(messages.lines)
