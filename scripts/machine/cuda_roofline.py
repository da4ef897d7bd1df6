"""What does each CUDA kernel have to do in a training step, and how fast could a card do it at best (roofline)?

No card is needed: the step is planned, not run. For every layer and kernel function the script counts

* operations: float32 multiplications and additions that the result needs (a multiply-add counts two). Where the result
  isn't a sum of products (marked ~), operations per element were estimated by hand;
* bytes: every array, read or written once; scratch memory, which stays in the card's cache, isn't counted;
* launches: CUDA kernels that the function launches.

The roofline time is the larger of operations / peak and bytes / bandwidth (Williams, Waterman and Patterson 2009). The
default card is an H100 SXM: 67 TFLOP/s of float32 without tensor cores, 3.35 TB/s (NVIDIA's data sheet).

A roofline is a lower bound, and these kernels will take several times as long. ``--kernels`` and ``--steps`` print a
better estimate, from the code that each kernel compiles to: kernel_time.py has the formula and the sources of its
figures. That needs the extra ``cuda12``, but no card: **none has confirmed it**.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import parser
from facecnn.config import load
from facecnn.kernels import cuda
from facecnn.kernels.cuda.planning import Launch, PlannedArray, flattened, planning
from facecnn.kernels.profiling import Profiler
from facecnn.learning.data import PhotoSet, TrainingData
from facecnn.learning.loop import Trainer
from facecnn.learning.progress import Recorder
from machine.kernel_time import Card, kernel_time
from machine.machine_code import why_not
from machine.roofline import Roof

PEOPLE = 2
BATCHES = (16, 60, 512)

# Arguments are those of the backend's kernels (facecnn/kernels/reference.py), outputs first.
PRODUCTS: dict[str, Callable[[Any], int]] = {
    "conv_forward": lambda a: a[0].size * a[8] ** 2 * prod(a[3].shape[1:]),
    "conv_backward_weight": lambda a: a[2].size * prod(a[0].shape[1:]),
    "conv_backward_input": lambda a: a[1].size * prod(a[4].shape[1:]),
    "strided_conv_forward": lambda a: a[0].size * prod(a[2].shape[1:]),
    "strided_conv_backward_weight": lambda a: a[2].size * prod(a[0].shape[1:]),
    "strided_conv_backward_input": lambda a: a[1].size * prod(a[3].shape[1:]),
    "neuron_forward": lambda a: a[1].size * a[2].shape[0],
    "neuron_backward_weight": lambda a: a[3].size * a[0].shape[0],
    "neuron_backward_input": lambda a: a[0].size * a[2].shape[0],
    "dense_forward": lambda a: a[1].size * a[2].shape[0],
    "dense_backward_weight": lambda a: a[3].size * a[0].shape[0],
    "dense_backward_input": lambda a: a[0].size * a[2].shape[0],
}
"""Multiply-adds; backward through a pool only the winners count."""

AN_ELEMENT = {
    "prepare_photos": 30,
    "activation_forward": 4,
    "activation_backward": 4,
    "batch_norm_forward": 6,
    "batch_norm_inference": 4,
    "batch_norm_backward": 9,
    "dropout": 12,
    "softmax_cross_entropy": 10,
    "mean_squared_error": 4,
    "sgd_update": 4,
    "momentum_update": 6,
    "nesterov_update": 6,
    "rmsprop_update": 9,
    "adagrad_update": 8,
    "lion_update": 9,
    "clip_gradient": 3,
    "add_noise": 40,
    "adam_update": 14,
    "average_update": 3,
    "accumulate": 1,
}
"""Rough operations per element of the first array; 1 for other kernels."""

CHANGED = {
    "average_update": 1,
    "accumulate": 1,
    "add_to_totals": 1,
}
"""The first arrays that are both read and written, by number; for an optimizer weights and state."""


@dataclass(frozen=True)
class Work:
    """What one kernel function does for one layer in a step."""

    layer: str
    kernel: str
    launches: int
    operations: int
    exact: bool
    bytes: int

    def microseconds(self, roof: Roof) -> float:
        """The least time."""
        return 1e6 * roof.seconds(self.operations, self.bytes)


class Counter(Profiler):
    """Counts work where the profiler would take the time."""

    def __init__(self, launches: list[Any]) -> None:
        super().__init__(cuda)
        self.works: list[Work] = []
        self.planned: list[tuple[str, str, list[Launch]]] = []
        """Layer, kernel function and its launches."""
        self._launches = launches

    def _timed(self, function: Callable[..., None], name: str) -> Callable[..., None]:
        def run(*arguments: Any) -> None:
            before = len(self._launches)
            function(*arguments)
            self.works.append(_work(self._place[0], name, arguments, len(self._launches) - before))
            self.planned.append((self._place[0], name, self._launches[before:]))

        return run


def _work(layer: str, name: str, arguments: tuple[Any, ...], launches: int) -> Work:
    arrays = [argument for argument in flattened(arguments) if isinstance(argument, PlannedArray)]
    changed, counted_as = CHANGED.get(name, 0), name
    if name == "optimizer_update":
        counted_as, changed = f"{arguments[5]}_update", 1 + len(arguments[1])
    sizes = [array.nbytes for array in arrays]
    if name == "prepare_photos":  # of all photos on the card, only the batch's are read
        sizes[1] = sizes[1] // arrays[1].shape[0] * arrays[0].shape[0]
    moved = sum(sizes) + sum(sizes[:changed])
    exact = name in PRODUCTS
    operations = 2 * PRODUCTS[name](arguments) if exact else AN_ELEMENT.get(counted_as, 1) * arrays[0].size
    return Work(layer, name, launches, operations, exact, moved)


def _black(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    return np.broadcast_to(np.uint8(0), shape)


def planned_trainer(
    config: str,
    backend: Any = cuda,
    *,
    batch_size: int = 60,
    epochs: int = 1,
    side: int | None = None,
    channels: int | None = None,
    count: int | None = None,
    picture: Callable[[tuple[int, ...]], npt.NDArray[np.uint8]] = _black,
) -> Trainer:
    """Set up training of a shipped config, which is run while planning.

    Args:
        config: The config's name.
        backend: A backend, or a profiler in its place.
        batch_size: Photos per step.
        epochs: Passes over the photos.
        side: Pixels a side; None: the config's.
        channels: 1 or 3; None: the config's.
        count: Photos to train on; None: one batch.
        picture: Makes the photos' pixels, of a shape.
    """
    settings = load(config).settings
    photos = settings.photos
    if side is not None:
        photos = replace(photos, size=side)
    if channels is not None:
        photos = replace(photos, colour="grey" if channels == 1 else "rgb")
    train = replace(
        settings.train, batch_size=batch_size, epochs=epochs, least_steps=0, stop_when_worst_loss_below=None
    )
    count = count or batch_size
    pixels = picture((count, round(1.3 * photos.height), round(1.3 * photos.width), photos.channels))
    numbers, nobody = np.arange(count), np.zeros(0, np.int64)
    data = TrainingData(PhotoSet(pixels, numbers, numbers % PEOPLE), numbers, PhotoSet(pixels, nobody, nobody), PEOPLE)
    return Trainer(replace(settings, photos=photos, train=train), data, backend)


def step_of(config: str, batch_size: int, side: int | None = None, channels: int | None = None) -> Counter:
    """Plan a training step of a shipped config. Returns its work and its launches, in order."""
    with planning() as launches:
        counter = Counter(launches)
        trainer = planned_trainer(config, counter, batch_size=batch_size, epochs=2, side=side, channels=channels)
        counter.works.clear()
        counter.planned.clear()
        trainer.run(Recorder(), stop=lambda: True)  # not the last epoch's step, which also watches the kernels
    return counter


def table(works: list[Work], roof: Roof) -> list[str]:
    """Format the work as lines of Markdown."""
    lines = [
        "| layer | kernel | launches | Mflop | MB | roofline µs | bound by |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for work in works:
        mark = "" if work.exact else "~"
        lines.append(
            f"| {work.layer} | {work.kernel} | {work.launches} | {mark}{work.operations / 1e6:,.2f} | "
            f"{work.bytes / 1e6:,.2f} | {work.microseconds(roof):,.2f} | {roof.bound(work.operations, work.bytes)} |"
        )
    lines.append(
        f"| in all | | {sum(w.launches for w in works)} | {sum(w.operations for w in works) / 1e6:,.0f} | "
        f"{sum(w.bytes for w in works) / 1e6:,.0f} | {sum(w.microseconds(roof) for w in works):,.1f} | |"
    )
    return lines


def kernel_table(step: Counter, card: Card) -> list[str]:
    """Format what limits each launch, as lines of Markdown."""
    lines = [
        "| layer | kernel | blocks | threads | blocks held | occupancy | waves | bound by | estimated µs |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    total = 0.0
    for layer, _, launches in step.planned:
        for launch in launches:
            found = kernel_time(launch, card)
            seconds = found.seconds + card.node_seconds
            total += seconds
            name, blocks = launch.kernel.py_func.__name__, prod(launch.grid)
            lines.append(
                f"| {layer} | {name} | {blocks} | {launch.threads} | {found.held} | {found.occupancy:.0%} | "
                f"{found.waves} | {found.bound} | {1e6 * seconds:,.1f} |"
            )
    return [*lines, f"| in all | | | | | | | | {1e6 * total:,.0f} |"]


def steps_table(configs: list[str], batches: tuple[int, ...], card: Card) -> list[str]:
    """Format a step of each network with each batch, as lines of Markdown."""
    roof = Roof(card.peak, card.bandwidth)
    lines = ["| network | batch | launches | roofline ms | estimated ms |", "|---|---:|---:|---:|---:|"]
    for config in configs:
        for batch in batches:
            step = step_of(config, batch)
            launches = [launch for _, _, of_function in step.planned for launch in of_function]
            seconds = sum(kernel_time(launch, card).seconds + card.node_seconds for launch in launches)
            least = sum(work.microseconds(roof) for work in step.works) / 1000
            lines.append(f"| {config} | {batch} | {len(launches)} | {least:.3f} | {1000 * seconds:.2f} |")
    return lines


def main() -> None:
    arguments = parser(__doc__)
    add = arguments.add_argument
    add("configs", nargs="*", help="shipped configs (default: seed deep; --steps: default many, too)")
    add("--batch", type=int, default=60, help="photos a step (default: 60)")
    add("--side", type=int, help="pixels a side (default: the config's)")
    add("--channels", type=int, choices=(1, 3), help="maps of the input (default: the config's)")
    add("--tflops", type=float, default=67, help="the card's float32 TFLOP/s (default: 67)")
    add("--bandwidth", type=float, default=3350, help="the card's GB/s (default: 3350)")
    add("--kernels", action="store_true", help="what limits each kernel, and an estimate of its time")
    add("--steps", action="store_true", help=f"an estimate of a step with {BATCHES} photos")
    add("--multiprocessors", type=int, default=132, help="of the card (default: 132)")
    add("--node-us", type=float, default=2, help="assumed from a kernel to the next, µs (default: 2)")
    add("--json", action="store_true", help="JSON instead of tables, of the roofline only")
    options = arguments.parse_args()
    if options.batch < 1 or options.tflops <= 0 or options.bandwidth <= 0 or (options.side or 1) < 1:
        arguments.error("--batch, --side, --tflops and --bandwidth must be positive")
    if options.multiprocessors < 1 or options.node_us < 0:
        arguments.error("--multiprocessors must be positive, and --node-us not negative")
    if (options.kernels or options.steps) and (reason := why_not()):
        arguments.error(f"nothing can be compiled: {reason}")
    roof = Roof(1e12 * options.tflops, 1e9 * options.bandwidth)
    card = Card(roof.peak, roof.bandwidth, options.multiprocessors, 1e-6 * options.node_us)
    if options.steps:
        print("\n".join(steps_table(options.configs or ["seed", "deep", "default", "many"], BATCHES, card)))
        return
    steps = {
        config: step_of(config, options.batch, options.side, options.channels)
        for config in options.configs or ["seed", "deep"]
    }
    if options.kernels:
        for config, step in steps.items():
            print(f"\n{config}, batch {options.batch}, estimated:\n")
            print("\n".join(kernel_table(step, card)))
        return
    found = {config: step.works for config, step in steps.items()}
    if options.json:
        rows = {
            config: [asdict(work) | {"microseconds": work.microseconds(roof)} for work in works]
            for config, works in found.items()
        }
        print(json.dumps(rows, indent=2))
        return
    for config, works in found.items():
        print(f"\n{config}, batch {options.batch}:\n")
        print("\n".join(table(works, roof)))


if __name__ == "__main__":
    main()
