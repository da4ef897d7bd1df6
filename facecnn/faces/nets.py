"""The three networks of MTCNN (Zhang et al. 2016, "Joint Face Detection and Alignment Using Multitask Cascaded
Convolutional Networks", arXiv:1604.02878) in the project's own layers, and the thread that they run on.

Each network has several heads. They are one layer here, whose kernels (or units) stand side by side: the box's
corrections, the landmarks, and the two logits "no face" and "face".
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.errors import CheckpointError
from facecnn.kernels import Device, open_device
from facecnn.kernels.backend import Backend
from facecnn.network.layers import Conv, Dense, Layer, Pool, PRelu
from facecnn.network.network import Network, Stage, plan

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

BOX, LANDMARKS, CLASSES = 4, 10, 2
"""Numbers that the heads give: shifts of left, top, right and bottom; five x and five y; two logits."""

CELL, STRIDE = 12, 2
"""Pixels a side that each of the P-Net's outputs looks at, and from one output's pixels to the next one's."""


def _conv(kernels: int, size: int) -> tuple[Layer, ...]:
    return Conv(kernels=kernels, size=size, activation="identity"), PRelu()


def _dense(units: int) -> tuple[Layer, ...]:
    return Dense(units=units), PRelu()


def _pool(size: int) -> Layer:
    return Pool(size=size, stride=2, edges="keep")


@dataclass(frozen=True)
class Net:
    """One of the three networks."""

    layers: tuple[Layer, ...]
    heads: tuple[int, ...]
    """Outputs of each head, which are one layer, the last."""
    side: int
    """Pixels a side of the pictures that it is given here. The P-Net takes any size."""
    batch_size: int

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The layers with their names and shapes."""
        return plan(self.layers, (self.side, self.side, 3))


NETS: dict[str, Net] = {
    # Proposes: fully convolutional, a face or not at every second pixel.
    "pnet": Net(
        layers=(
            *_conv(10, 3), _pool(2), *_conv(16, 3), *_conv(32, 3),
            Conv(kernels=BOX + CLASSES, size=1, activation="identity"),
        ),
        heads=(BOX, CLASSES),
        side=112,
        batch_size=8,
    ),
    # Refines: one candidate, its box.
    "rnet": Net(
        layers=(
            *_conv(28, 3), _pool(3), *_conv(48, 3), _pool(3), *_conv(64, 2), *_dense(128),
            Dense(units=BOX + CLASSES),
        ),
        heads=(BOX, CLASSES),
        side=24,
        batch_size=32,
    ),
    # Outputs: one face, its box and landmarks.
    "onet": Net(
        layers=(
            *_conv(32, 3), _pool(3), *_conv(64, 3), _pool(3), *_conv(64, 3), _pool(2), *_conv(128, 2), *_dense(256),
            Dense(units=BOX + LANDMARKS + CLASSES),
        ),
        heads=(BOX, LANDMARKS, CLASSES),
        side=48,
        batch_size=16,
    ),
}  # fmt: skip


class Nets:
    """The three networks with weights. Any thread may call ``run``.

    Kernels run on one thread of this object's own (and on those that Numba starts for it), one call after the other:
    Numba counts threads per caller, starts OpenMP's anew for each, and not all of its threading layers may be entered
    from two threads at once. While OpenMP has threads for two callers, more than there are processors, it lets all of
    them sleep between two loops, which a training takes twice as long by: hence ``rest``.
    """

    def __init__(self, arrays: Mapping[str, Floats], threads: int | None = None) -> None:
        """``arrays``: as ``facecnn.faces.weights.installed_arrays`` gives them. ``threads`` None: all there are.

        Raises CheckpointError where names or shapes are others, or a number isn't finite.
        """
        self._threads = threads
        self._lock = threading.Lock()
        self._worker: ThreadPoolExecutor | None
        self._worker, opened = _started(threads)
        backend: Backend = opened.result().backend
        self._networks: dict[str, Network] = {}
        known: set[str] = set()
        for name, net in NETS.items():
            network = Network(net.layers, (net.side, net.side, 3), backend, net.batch_size, training=False)
            own = {key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.startswith(f"{name}.")}
            known |= {f"{name}.{key}" for key in network.weights.to_host()}
            try:
                network.weights.from_host(own)
            except (KeyError, ValueError) as error:
                raise _unfitting(f"{name}: {error}") from error
            self._networks[name] = network
        if more := sorted(arrays.keys() - known):
            raise _unfitting(f"there is no place for {more[0]}")
        if broken := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
            raise _unfitting(f"{broken[0]} holds a number that isn't finite")

    def run(self, name: str, pictures: Pixels) -> tuple[Floats, ...]:
        """What a network's heads say about pictures (n, side, side, 3), each head's output as (n, ..., its numbers)."""
        with self._lock:
            if self._worker is None:
                self._worker, _ = _started(self._threads)
            answer = self._worker.submit(self._run, name, pictures)
        output = answer.result()
        return tuple(np.split(output, np.cumsum(NETS[name].heads)[:-1], axis=-1))

    def rest(self) -> None:
        """End this object's thread, and OpenMP's with it, after what it was asked for; ``run`` starts it anew."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.shutdown()

    def _run(self, name: str, pictures: Pixels) -> Floats:
        network = self._networks[name]
        output = np.empty((len(pictures), *network.output.shape[1:]), np.float32)
        for start in range(0, len(pictures), network.batch_size):
            part = pictures[start : start + network.batch_size]
            x: Any = network.input[: len(part)]
            np.subtract(part, np.float32(127.5), out=x, dtype=np.float32)
            np.multiply(x, np.float32(1 / 128), out=x)
            # Not infer, which would record each of the counts that come up.
            network.forward(len(part), for_backward=False)
            output[start : start + len(part)] = network.output[: len(part)]
        return output


def _started(threads: int | None) -> tuple[ThreadPoolExecutor, Future[Device]]:
    """A thread, the first work of which is to set how many threads kernels run on that it calls."""
    worker = ThreadPoolExecutor(1, "face-finder")
    return worker, worker.submit(open_device, "cpu", threads)


def _unfitting(problem: str) -> CheckpointError:
    return CheckpointError(f"The face finder's weights don't fit its networks ({problem}): train the model anew")


def face_probability(logits: Floats) -> Floats:
    """Softmax of the logits (..., 2), of which the second is for a face: (...)."""
    return np.asarray(np.exp(-np.logaddexp(np.float32(0), logits[..., 0] - logits[..., 1])))
