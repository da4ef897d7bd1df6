"""The three networks of MTCNN (Zhang et al. 2016, arXiv:1604.02878) in the project's own layers, and their threads.

A network's heads (the box's corrections, the landmarks, the logits "no face" and "face") are one layer here, with their
kernels or units side by side.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from queue import LifoQueue
from typing import Any, TypeVar

import numpy as np

from facecnn.arrays import Float32Array, UInt8Array
from facecnn.errors import CheckpointError
from facecnn.kernels import Device, available_threads, open_device
from facecnn.kernels.backend import Backend
from facecnn.network.layers import Conv, Dense, Layer, Pool, PRelu
from facecnn.network.network import Network
from facecnn.network.stages import Stage, plan

_T = TypeVar("_T")

BOX, LANDMARKS, CLASSES = 4, 10, 2
"""Outputs of the heads: shifts of left, top, right and bottom; five x and five y; two logits."""

CELL, STRIDE = 12, 2
"""The P-Net's receptive field and its stride, in pixels."""


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
    """Outputs of each head; together they are the last layer."""
    side: int
    """Side in pixels of its input here. The P-Net would take any size."""
    batch_size: int

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The layers with their names and shapes."""
        return plan(self.layers, (self.side, self.side, 3))


NETS: dict[str, Net] = {
    # Proposes candidates: fully convolutional, face or no face at every second pixel.
    "pnet": Net(
        layers=(
            *_conv(10, 3), _pool(2), *_conv(16, 3), *_conv(32, 3),
            Conv(kernels=BOX + CLASSES, size=1, activation="identity"),
        ),
        heads=(BOX, CLASSES),
        side=112,
        batch_size=8,
    ),
    # Refines a candidate's box.
    "rnet": Net(
        layers=(
            *_conv(28, 3), _pool(3), *_conv(48, 3), _pool(3), *_conv(64, 2), *_dense(128),
            Dense(units=BOX + CLASSES),
        ),
        heads=(BOX, CLASSES),
        side=24,
        batch_size=32,
    ),
    # Outputs a face's box and landmarks.
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

    - A photo alone is best searched by one thread whose team shares every kernel's loop. That is a thread of this
      object: Numba has a number of threads for each calling thread, and OpenMP starts a team of threads for each. With
      several teams OpenMP has more threads than processors and lets them sleep between loops, which doubles the time
      that training takes: hence ``rest``.
    - With many photos, each, or a few together, are best searched on one processor, beside others: ``beside_others``.
      No thread waits for the slowest of a team, and work outside the kernels runs on all processors, too. The calling
      thread does the search itself, as it needs no team: handing it to another, and the result back, would take a
      tenth of the time.
    """

    def __init__(self, arrays: Mapping[str, Float32Array], threads: int | None = None, device: str = "cpu") -> None:
        """
        Args:
            arrays: see ``facecnn.faces.weights.installed_arrays``.
            threads: number of threads of the kernels; None: one for each processor.

        Raises:
            CheckpointError: names or shapes differ, or a number isn't finite.
        """
        self._arrays, self._threads, self._device = arrays, threads, device
        self._lock = threading.Lock()
        self._own = _Own()
        self._team: ThreadPoolExecutor | None
        self._team, opened = _started(device, threads)
        self._backend: Backend = opened.result().backend
        self._spare: LifoQueue[dict[str, Network] | None] | None = None
        """Networks for threads that search on one processor, as many as may do so at a time; None: not made yet."""
        self._networks = _networks(arrays, self._backend)
        known = {f"{name}.{key}" for name, network in self._networks.items() for key in network.weights.to_host()}
        if more := sorted(arrays.keys() - known):
            raise _unfitting(f"there is no place for {more[0]}")
        if broken := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
            raise _unfitting(f"{broken[0]} holds a number that isn't finite")

    def run(self, name: str, pictures: UInt8Array) -> tuple[Float32Array, ...]:
        """The outputs of a network's heads, (n, ..., outputs) each, for pictures (n, side, side, 3)."""
        if self._own.networks is not None:
            output = _outputs(self._own.networks[name], pictures)
        else:
            with self._lock:
                if self._team is None:
                    self._team, _ = _started(self._device, self._threads)
                answer = self._team.submit(_outputs, self._networks[name], pictures)
            output = answer.result()
        return tuple(np.split(output, np.cumsum(NETS[name].heads)[:-1], axis=-1))

    def beside_others(self, work: Callable[[], _T]) -> _T:
        """Do ``work``, which may call ``run``, on one processor, when few enough others do theirs."""
        with self._lock:
            if self._spare is None:
                self._spare = LifoQueue()
                for _ in range(self._beside()):
                    self._spare.put(None)
            spare = self._spare
        networks = spare.get()
        try:
            if networks is None:
                networks = _networks(self._arrays, self._backend)
            self._own.networks = networks
            with self._one_thread():
                return work()
        finally:
            self._own.networks = None
            spare.put(networks)

    def rest(self) -> None:
        """End this object's thread and OpenMP's team after the work at hand, and let networks go; they are started
        again when needed."""
        with self._lock:
            team, self._team, self._spare = self._team, None, None
        if team is not None:
            team.shutdown()

    def _beside(self) -> int:
        """How many threads may call kernels at the same time: not every threading layer of Numba supports several."""
        if self._device != "cpu":
            return 1
        from facecnn.kernels.cpu.jit import loops_may_overlap

        return (self._threads or available_threads()) if loops_may_overlap() else 1

    def _one_thread(self) -> AbstractContextManager[None]:
        """Within the context, kernels that the calling thread launches run on it alone."""
        if self._device != "cpu":
            return nullcontext()
        from facecnn.kernels.cpu.jit import one_thread

        return one_thread()


class _Own(threading.local):
    """What each thread has for itself."""

    networks: dict[str, Network] | None = None


def _started(device: str, threads: int | None) -> tuple[ThreadPoolExecutor, Future[Device]]:
    """A thread whose first task is to set how many threads its kernels use."""
    worker = ThreadPoolExecutor(1, "face-finder")
    return worker, worker.submit(open_device, device, threads)


def _networks(arrays: Mapping[str, Float32Array], backend: Backend) -> dict[str, Network]:
    """New networks with these weights. Raises CheckpointError where names or shapes differ."""
    networks = {}
    for name, net in NETS.items():
        shape = (net.side, net.side, 3)
        network = Network(net.layers, shape, backend, net.batch_size, keep="last_output")
        own = {key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.startswith(f"{name}.")}
        try:
            network.weights.from_host(own)
        except (KeyError, ValueError) as error:
            raise _unfitting(f"{name}: {error}") from error
        networks[name] = network
    return networks


def _outputs(network: Network, pictures: UInt8Array) -> Float32Array:
    output = np.empty((len(pictures), *network.output.shape[1:]), np.float32)
    for start in range(0, len(pictures), network.batch_size):
        part = pictures[start : start + network.batch_size]
        x: Any = network.input[: len(part)]
        np.subtract(part, np.float32(127.5), out=x, dtype=np.float32)
        np.multiply(x, np.float32(1 / 128), out=x)
        network.infer(len(part))
        output[start : start + len(part)] = network.output[: len(part)]
    return output


def _unfitting(problem: str) -> CheckpointError:
    return CheckpointError(f"The face finder's weights don't fit its networks ({problem}): train the model anew")


def face_probability(logits: Float32Array) -> Float32Array:
    """Softmax probability of a face (...) from logits (..., 2) for "no face" and "face"."""
    return np.asarray(np.exp(-np.logaddexp(np.float32(0), logits[..., 0] - logits[..., 1])))
