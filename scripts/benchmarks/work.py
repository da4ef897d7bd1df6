"""The work that benchmark.py gives to both sides (networks, weights, pictures), and the loop of a worker process.

A worker reads a question as a line of JSON from stdin, and prints the answer as a line of JSON.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from facecnn.config import load
from facecnn.errors import FacecnnError
from facecnn.kernels import reference
from facecnn.learning.optimizers import AdamW, Momentum
from facecnn.network.layers import Body, Dropout, Layer, Shape, UnitLength, with_outputs
from facecnn.network.loss import CrossEntropy
from facecnn.network.network import Network
from facecnn.network.stages import Stage

BODY = "body"
"""Stands for the pretrained body, which isn't a config: from a face to its embedding, of unit length."""
PEOPLE = 2
CHECKED_STEPS = 3
WARM_UP_STEPS = 4
BLOCKS_A_TURN = 4
"""Blocks of steps in a turn, where steps aren't timed one by one."""

TIMED_LEARNING_RATE = 1e-5
"""So low that the weights, and with them the work, hardly change."""


@dataclass(frozen=True)
class Case:
    """What is timed."""

    network: str
    """A shipped config, or BODY."""
    channels: int
    size: int
    """Pixels a side."""
    batch: int
    work: Literal["train", "predict"]


@dataclass(frozen=True)
class Work:
    """A case, with everything that its results depend on."""

    stages: tuple[Stage, ...]
    layers: tuple[Layer, ...]
    shape: Shape
    """(rows, columns, maps)"""
    loss: CrossEntropy
    optimizer: Momentum | AdamW
    average_weights: float | None
    embeds: bool
    """Whether the answers are the outputs as they are, and not the probabilities that softmax makes of them."""
    weights: dict[str, npt.NDArray[np.float32]]
    """Weights by their names in facecnn."""
    pictures: npt.NDArray[np.float32]
    """(batch, rows, columns, maps): mean 0 and standard deviation 1, as after standardisation."""
    labels: npt.NDArray[np.int32]


def work_of(case: Case, *, dropout: bool = True) -> Work:
    """Make a case's work, from the same seeds in every process. Leave out ``dropout`` to compare results, since both
    sides draw other masks."""
    settings = load("default" if case.network == BODY else case.network).settings
    layers = layers_of(case.network)
    if not dropout:
        layers = tuple(replace(layer, rate=0.0) if isinstance(layer, Dropout) else layer for layer in layers)
    loss = settings.loss
    if not isinstance(loss, CrossEntropy) or loss.class_weights is not None:
        raise NotImplementedError(f"the benchmark has no {loss}")
    shape = (case.size, case.size, case.channels)
    network = Network(layers, shape, reference, 1, keep="outputs")
    network.initialise(0)
    pictures = np.random.default_rng(1).standard_normal((case.batch, *shape), np.float32)
    return Work(
        stages=network.stages,
        layers=layers,
        shape=shape,
        loss=loss,
        optimizer=known(settings.optimizer),
        average_weights=settings.train.average_weights,
        embeds=case.network == BODY,
        weights=network.weights.to_host(),
        pictures=pictures,
        labels=np.arange(case.batch, dtype=np.int32) % PEOPLE,
    )


def layers_of(network: str) -> tuple[Layer, ...]:
    """The layers of a shipped config, or of the body."""
    return (Body(), UnitLength()) if network == BODY else with_outputs(load(network).settings.network, PEOPLE)


def known(rule: object) -> Momentum | AdamW:
    """The optimizer, if both sides have it. Raises NotImplementedError for others, and for other settings of it."""
    for kind, settings in (
        (Momentum, ("learning_rate", "weight_decay", "momentum")),
        (AdamW, ("learning_rate", "weight_decay", "beta1", "beta2", "epsilon")),
    ):
        if isinstance(rule, kind) and rule == kind(**{name: getattr(rule, name) for name in settings}):
            return rule
    raise NotImplementedError(f"the benchmark has no {rule}")


class Side(Protocol):
    """One implementation, in a process of its own."""

    @property
    def note(self) -> str | None:
        """A remark on the figures of the last work."""

    @property
    def device(self) -> str:
        """The device's name."""

    @property
    def waits_for_device(self) -> bool:
        """Whether a step returns before it is done, so that steps must be timed in blocks."""

    def training(self, work: Work, learning_rate: float) -> Callable[[], object]:
        """Return a function that runs a training step: forward, loss, backward and update."""

    def loss(self) -> float:
        """The loss of the last training step."""

    def predicting(self, work: Work) -> Callable[[], npt.NDArray[np.floating[Any]]]:
        """Return a function that computes the answers on the host: probabilities (batch, people) or embeddings."""

    def milliseconds(self, step: Callable[[], object], steps: int) -> float:
        """Time ``steps`` steps, one after another."""


class Worker:
    """Answers questions with one side: each method is one."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._step: Callable[[], object] = lambda: None

    def hello(self) -> dict[str, Any]:
        """The device's name."""
        return {"device": self._side.device}

    def check(self, case: dict[str, Any]) -> dict[str, Any]:
        """Compute losses of a few steps, if the case is training, and answers, to compare the sides by."""
        self._forget()
        work = work_of(Case(**case), dropout=False)
        losses = []
        if case["work"] == "train":
            step = self._side.training(work, work.optimizer.learning_rate)
            for _ in range(CHECKED_STEPS):
                step()
                losses.append(self._side.loss())
        predict = self._side.predicting(work)
        for _ in range(CHECKED_STEPS):  # a recording is replayed from the third call on, at the latest
            answers = predict()
        return {"losses": losses, "answers": answers.tolist()}

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        """Set up a case, and run it until it is warm."""
        self._forget()
        chosen = Case(**case)
        work = work_of(chosen)
        if chosen.work == "train":
            self._step = self._side.training(work, TIMED_LEARNING_RATE)
        else:
            self._step = self._side.predicting(work)
        del work  # whose pictures each side has a copy of, to whose memory they would be added
        for _ in range(WARM_UP_STEPS):
            self._step()
        return {"note": self._side.note}

    def turn(self, seconds: float) -> list[float]:
        """Time steps for about so many seconds. Returns milliseconds of each step, or means over blocks of steps."""
        # The first ones aren't counted: the other processes have emptied the processor's caches.
        started = self._side.milliseconds(self._step, 1)
        block = 1
        if self._side.waits_for_device:
            started = self._side.milliseconds(self._step, WARM_UP_STEPS) / WARM_UP_STEPS
            block = max(1, round(1000 * seconds / BLOCKS_A_TURN / max(started, 1e-3)))
        found: list[float] = []
        end = time.perf_counter() + seconds
        while not found or time.perf_counter() < end:
            found.append(self._side.milliseconds(self._step, block) / block)
        return found

    def peak_memory(self) -> int | None:
        """This process's peak memory in bytes."""
        return memory("VmHWM")

    def _forget(self) -> None:
        self._step = lambda: None
        gc.collect()


def memory(what: str, process: int | str = "self") -> int | None:
    """A figure of a process's /proc/…/status, in bytes; None where there is no such file."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))
    except (OSError, StopIteration, ValueError):
        return None


def serve(make_worker: Callable[[dict[str, Any]], Any]) -> None:
    """Answer questions to the end of stdin: names of the worker's methods, or ``get_ready``, which only makes the
    worker, with options in JSON from the command line."""
    # Libraries and compilers may write to stdout, which is for answers only.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker: Any = None
    for line in sys.stdin:
        question = json.loads(line)
        try:
            worker = worker or make_worker(json.loads(sys.argv[1]))
            do = question.pop("do")
            answer = {"result": None if do == "get_ready" else getattr(worker, do)(**question)}
        except FacecnnError as error:
            answer = {"error": str(error), "exit_code": error.exit_code}
        except Exception as error:  # the benchmark says so in the row, and goes on
            lines = str(error).strip().splitlines() or [""]
            answer = {"error": f"{type(error).__name__}: {lines[0]}", "exit_code": 1}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def question(do: str, **arguments: Any) -> str:
    """A line for a worker: the name of a method, and its arguments."""
    plain = {name: asdict(value) if isinstance(value, Case) else value for name, value in arguments.items()}
    return json.dumps({"do": do, **plain})
