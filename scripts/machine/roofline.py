"""What can this machine's processor do at best, and what do the networks ask of it (roofline)?

Measured, on all threads or ``--threads``:

* the peak: float32 multiply-adds (two operations each) of independent sums that all stay in registers;
* the bandwidth: the faster of reading one array and of a = b + 2 c (three arrays, as STREAM counts them), all of them
  far larger than the caches.

Counted, for a network and a batch:

* operations: two for each multiply-add of the convolutions, neurons and dense layers. Training counts as three times
  forward (forward, weights' gradient, input's gradient), twice for the first layer, whose input needs no gradient. All
  are dense-equivalent operations: backward through a max-pool really visits the winners only, a quarter of the places
  with 2x2, and minimal filtering (Winograd) multiplies 8 times where 20 are counted. So the result may exceed the peak.
* bytes that must at least be moved: the pictures, the maps between those layers (whatever is between two of them might
  be computed in passing), weights, and in training the winners' places, gradients and the optimizer's state.

The roofline time is the larger of operations / peak and bytes / bandwidth (Williams, Waterman and Patterson 2009).
Maps of small networks stay in the caches, and may be moved faster than the bandwidth says.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numba import prange

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.work import known, layers_of
from common.command import at_least, parser
from facecnn.arrays import Array
from facecnn.config import load
from facecnn.kernels import available_threads, processor_name
from facecnn.kernels.cpu.jit import compiled, set_threads
from facecnn.kernels.cpu.vector_ir.emit import Emitter, Pointer, emitted
from facecnn.kernels.cpu.vector_ir.lanes import of_processor, registers
from facecnn.learning.optimizers import Optimizer
from facecnn.network.layers import Conv, Dense, Neuron, Shape
from facecnn.network.size import parameter_count
from facecnn.network.stages import Stage, all_layers, plan

RUN_SECONDS, PEAK_RUNS = 0.04, 50
"""Short, so that some run has the processors to itself even while other programs are at work."""
BANDWIDTH_RUNS = 12
PIECES_A_THREAD = 8
LEAST_ARRAY, LARGEST_ARRAY = 64 << 20, 768 << 20
"""Bytes; three arrays are needed."""


@dataclass(frozen=True)
class Roof:
    """What a device can do at best."""

    peak: float
    """float32 operations per second."""
    bandwidth: float
    """Bytes per second."""

    def seconds(self, operations: float, moved: float) -> float:
        """The least time for these operations and bytes."""
        return max(operations / self.peak, moved / self.bandwidth)

    def bound(self, operations: float, moved: float) -> str:
        """What limits that time."""
        return "arithmetic" if operations / self.peak > moved / self.bandwidth else "memory"


# -------------------------------------------------------------------------------------------------------- measurement


@emitted
def _turns_of_sums(width: int, count: int, fused: bool) -> Callable[..., None]:
    """Compute sum = sum * a + b ``turns`` times, for ``count`` independent vectors of ``width`` floats.

    Their sum is written to ``out``, so that none is optimised away.
    """

    def emit(e: Emitter, out: Pointer, turns: Any) -> None:
        a, b = e.constant(0.75, width), e.constant(0.25, width)

        def step(total: Any) -> Any:
            if fused:
                return e.multiply_add(total, a, b)
            return e.fadd(e.fmul(total, a, flags=["contract"]), b, flags=["contract"])

        start = [e.constant(1.0 + number / 64, width) for number in range(count)]
        total, *others = e.loop(turns, 1, start, lambda i, totals: [step(total) for total in totals])
        for other in others:
            total = e.fadd(total, other)
        e.store(total, out)

    return emit


def peak(threads: int) -> float:
    """Measure float32 operations per second on some threads: the best of several runs."""
    vector = of_processor()
    width, fused = (vector, True) if vector else (4, False)
    # A multiply-add takes four cycles, and two begin in each, so eight sums are needed; more cost nothing as long as
    # registers are left for a and b.
    count = 3 * registers(width) // 4
    out = np.zeros((threads, 64), np.float32)
    turns_of_sums = _turns_of_sums(width, count, fused)

    @compiled(parallel=True)
    def run(out: Array, turns: int) -> None:
        for thread in prange(len(out)):
            turns_of_sums(out, np.int64(thread * 64), np.int64(turns))

    set_threads(threads)
    turns = 10_000
    while (seconds := _seconds(run, out, turns)) < RUN_SECONDS:
        turns = int(turns * min(100.0, 1.2 * RUN_SECONDS / max(seconds, 1e-6))) + 1
    return 2.0 * width * count * turns * threads / min(_seconds(run, out, turns) for _ in range(PEAK_RUNS))


@compiled(parallel=True, reorder=True)
def _read(sums: Array, x: Array) -> None:
    for piece in prange(len(x)):
        part = x[piece]
        total = np.float32(0)
        for i in range(len(part)):
            total += part[i]
        sums[piece] = total


@compiled(parallel=True)
def _triad(a: Array, b: Array, c: Array) -> None:
    for piece in prange(len(a)):
        into, first, second = a[piece], b[piece], c[piece]
        for i in range(len(into)):
            into[i] = first[i] + np.float32(2) * second[i]


def bandwidth(threads: int) -> float:
    """Measure bytes per second between memory and some threads: the best of several runs."""
    pieces = PIECES_A_THREAD * threads
    length = array_bytes() // 4 // pieces
    a, b, c = (np.full((pieces, length), value, np.float32) for value in (0, 1, 2))  # written, so that the pages exist
    sums = np.zeros(pieces, np.float32)
    set_threads(threads)
    _read(sums, a[:, :1])  # compiles
    _triad(a[:, :1], b[:, :1], c[:, :1])
    _read(sums, a), _triad(a, b, c)
    reading = min(_seconds(_read, sums, a) for _ in range(BANDWIDTH_RUNS))
    adding = min(_seconds(_triad, a, b, c) for _ in range(BANDWIDTH_RUNS))
    return max(a.nbytes / reading, 3 * a.nbytes / adding)


def array_bytes() -> int:
    """The size of an array several times as large as the caches, within limits."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        try:
            sizes.append(int(path.read_text(encoding="ascii").strip().removesuffix("K")) * 1024)
        except (OSError, ValueError):
            continue
    return min(LARGEST_ARRAY, max(LEAST_ARRAY, 3 * max(sizes, default=0)))


def _seconds(function: Callable[..., None], *arguments: Any) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def measure_roof(threads: int) -> Roof:
    """Measure peak and bandwidth; takes about five seconds."""
    return Roof(peak(threads), bandwidth(threads))


# ----------------------------------------------------------------------------------------------------------- counting


@dataclass(frozen=True)
class Cost:
    """What a network asks for with one batch."""

    operations: int
    bytes: int


def cost(config: str, shape: Shape, batch: int, *, training: bool) -> Cost:
    """Count a network's training step or prediction, on pictures of ``shape`` (rows, columns, maps): a shipped one's,
    or, without training, that of the body."""
    stages = all_layers(plan(layers_of(config), shape))
    if not training:
        return Cost(2 * batch * sum(_multiply_adds(stages)), _moved_forward(stages, batch))
    settings = load(config).settings
    rule = known(settings.optimizer)
    assert isinstance(rule, Optimizer)
    averages = 0 if settings.train.average_weights is None else 1
    # Weights read for the input's gradient; the gradient written and read; weights, state and average read and written.
    copies = 1 + 2 + 2 * (1 + len(rule.state_names) + averages)
    first, *others = _multiply_adds(stages)
    return Cost(
        2 * batch * (2 * first + 3 * sum(others)),
        _moved_forward(stages, batch) + _moved_backward(stages, batch) + 4 * copies * _parameters(stages),
    )


def _with_products(stages: Sequence[Stage]) -> list[Stage]:
    return [stage for stage in stages if isinstance(stage.layer, Conv | Neuron | Dense)]


def _multiply_adds(stages: Sequence[Stage]) -> list[int]:
    return [stage.layer.multiply_adds(stage.shape) for stage in _with_products(stages)]


def _parameters(stages: Sequence[Stage]) -> int:
    return sum(parameter_count(stage) for stage in stages)


def _maps(stages: Sequence[Stage]) -> list[int]:
    """Sizes of one photo's maps: the input of each layer with products, and the last output."""
    return [prod(stage.shape) for stage in _with_products(stages)] + [prod(stages[-1].out_shape)]


def _moved_forward(stages: Sequence[Stage], batch: int) -> int:
    """Bytes: each layer reads its input and writes its output; the weights are read once."""
    maps = _maps(stages)
    return 4 * batch * (sum(maps[:-1]) + sum(maps[1:])) + 4 * _parameters(stages)


def _moved_backward(stages: Sequence[Stage], batch: int) -> int:
    """Bytes: each layer reads its input and its output's gradient and, except for the first, writes its input's; the
    winners' places were written and are read, a byte each."""
    maps = _maps(stages)
    places = sum(
        prod(stage.out_shape) for stage in stages if isinstance(stage.layer, Conv) and stage.layer.pool is not None
    )
    return 4 * batch * (sum(maps[:-1]) + sum(maps[1:]) + sum(maps[1:-1])) + 2 * batch * places


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("configs", nargs="*", default=["seed", "deep"], help="shipped configs (default: seed deep)")
    arguments.add_argument("--batch", type=at_least(1), default=60, help="photos (default: 60)")
    arguments.add_argument("--threads", type=at_least(1), help="processor threads (default: all)")
    arguments.add_argument("--json", action="store_true", help="JSON instead of a table")
    options = arguments.parse_args()
    available = available_threads()
    threads = options.threads or available
    if threads > available:
        arguments.error(f"--threads {threads}: there are {available}")
    costs = {
        (config, work): cost(config, photos.shape, options.batch, training=training)
        for config in options.configs
        for photos in [load(config).settings.photos]
        for work, training in (("train", True), ("predict", False))
    }
    roof = measure_roof(threads)
    if options.json:
        rows = [{"network": config, "work": work, **asdict(found)} for (config, work), found in costs.items()]
        print(json.dumps({"threads": threads, **asdict(roof), "costs": rows}, indent=2))
        return
    print(
        f"{processor_name()}, {threads} threads: {roof.peak / 1e9:,.0f} Gflop/s (float32), "
        f"{roof.bandwidth / 1e9:,.1f} GB/s\n"
    )
    print(f"| network, batch {options.batch} | work | Mflop | MB | flop a byte | roofline ms | bound by |")
    print("|---|---|---:|---:|---:|---:|---|")
    for (config, work), found in costs.items():
        print(
            f"| {config} | {work} | {found.operations / 1e6:,.0f} | {found.bytes / 1e6:,.1f} | "
            f"{found.operations / found.bytes:.1f} | {1000 * roof.seconds(found.operations, found.bytes):,.3f} | "
            f"{roof.bound(found.operations, found.bytes)} |"
        )


if __name__ == "__main__":
    main()
