"""Up to which learning rate does a single convolution learn, and how does that depend on kernel and picture?

One convolution, linear, without pool, is trained to give zero. Its loss is a bowl: its curvatures are the eigenvalues
of the second-moment matrix of the patches that the kernel sees, and gradient descent diverges above 2 / the largest of
them. That is computed here from the pictures alone, and measured by training at one rate after another, always halving
the interval between the largest rate that learned and the smallest that diverged.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import at_least, exit_on_error, parser
from common.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, new_figure, save
from common.sample_photos import ALL, sample_photos
from common.stable_rates import STEPS, Array, Convolution, Limit, Task, curvatures, derived_limit, find_limit
from common.tables import table
from facecnn.kernels import open_device
from facecnn.kernels.backend import Backend
from facecnn.learning.optimizers import Momentum

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KERNELS = tuple(range(1, 12))
SIDES = (8, 16, 28, 56, 112, 224)
KERNEL, SIDE = 5, 56
"""Where only one of the two is varied, or neither."""
FACE = ("s1/1",)


def noise(side: int) -> Array:
    """White noise of mean 0 and standard deviation 1, (1, side, side, 1)."""
    return standardised(np.random.default_rng(side).standard_normal((1, side, side, 1)))


def photo(side: int) -> Array:
    """A photo of pixels from 0 to 1."""
    return sample_photos(FACE, side, "none")


def standardised(x: Array) -> Array:
    """Scale to mean 0 and standard deviation 1."""
    return np.asarray((x - x.mean()) / x.std())


PICTURES: dict[str, Callable[[int], Array]] = {
    "noise": noise,
    "constant": lambda side: np.ones((1, side, side, 1)),
    "photo": photo,
    "standardised photo": lambda side: standardised(photo(side)),
}
"""Those on which kernels and sides are varied."""
NOISE_PLUS_1, PLAIN, CENTRED, CONTRAST = "noise + 1", "photo", "photo - its mean", "photo, local contrast"
OTHERS: dict[str, Callable[[int], Array]] = {
    NOISE_PLUS_1: lambda side: noise(side) + 1,
    "photo, 0 to 255": lambda side: 255 * photo(side),
    CENTRED: lambda side: photo(side) - photo(side).mean(),
    CONTRAST: lambda side: sample_photos(FACE, side, "local_contrast"),
}
ALL_PICTURES = {**PICTURES, **OTHERS}
COLOURS = dict(zip(PICTURES, (GREY, PURPLE, ORANGE, BLUE), strict=True))


Key = tuple[str, int, int, bool]
"""Picture, its side, the kernel's side, and whether the loss is summed."""


def find_limits(sides: Sequence[int], kernels: Sequence[int], backend: Backend, steps: int) -> dict[Key, Limit]:
    """Every kernel on every picture into which it fits; with the summed loss only one kernel."""
    found = {}
    for name, draw_picture in PICTURES.items():
        for side in sides:
            for size in (size for size in kernels if size <= side):
                for summed in (False, True) if size == middle(kernels, KERNEL) else (False,):
                    task = Task(x=draw_picture(side), size=size, summed=summed)
                    found[name, side, size, summed] = find_limit(task, backend, steps)
    return found


def middle(values: Sequence[int], wanted: int) -> int:
    """The value that is varied least: ``wanted``, or the nearest to it."""
    return min(values, key=lambda value: (abs(value - wanted), value))


def changes(side: int, size: int) -> dict[str, Task]:
    """A task, and the same with one thing changed."""
    plain = Task(x=standardised(photo(side)), size=size)
    return {
        "as above": plain,
        "other start": replace(plain, seed=1),
        "target of a known kernel": replace(plain, is_known=True),
        "half the sum of squares": replace(plain, summed=True),
        "padding same": replace(plain, padding="same"),
        "with bias": replace(plain, has_bias=True),
        "three equal colours": replace(plain, x=np.repeat(plain.x, 3, axis=3)),
        "all 20 sample photos": replace(plain, x=standardised(sample_photos(ALL, side, "none"))),
        "momentum 0.9": replace(plain, rule=Momentum(momentum=0.9)),
    }


# ------------------------------------------------------------------------------------------------------------ tables

PICTURE_HEADERS = (
    "picture",
    "mean",
    "deviation",
    "2 q",
    "2 k² q",
    "largest curvature",
    "largest / smallest",
    "2 / largest",
    "measured",
    "ratio",
    "lr-find",
)


def row_of_picture(name: str, task: Task, limit: Limit, lr_find: float) -> list[object]:
    """What a picture's mean and standard deviation say of the curvature, what it is, and the largest stable rate."""
    square, values = float((task.x**2).mean()), curvatures(task)
    figures = (task.x.mean(), task.x.std(), 2 * square, 2 * task.size**2 * square, values[-1])
    texts = [number(value) if abs(value) > 1e-9 else "0" for value in figures]
    limits = (number(limit.derived), number(limit.measured), f"{limit.ratio:.3f}", number(lr_find))
    return [name, *texts, spread(values), *limits]


def spread(values: Array) -> str:
    """The largest curvature over the smallest one."""
    return number(values[-1] / values[0]) if values[0] > 1e-9 * values[-1] else "infinite"


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def rows_of_kernels(found: dict[Key, Limit], side: int) -> list[list[object]]:
    """A row for each kernel on the pictures of one side: derived and measured."""
    sizes = sorted({size for _, of, size, summed in found if of == side and not summed})
    return [[f"{size}x{size}", *_cells(found, side, size, summed=False)] for size in sizes]


def rows_of_sides(found: dict[Key, Limit], size: int) -> list[list[object]]:
    """A row for each loss and side with one kernel."""
    return [
        [loss, f"{side}x{side}", *_cells(found, side, size, summed=summed)]
        for loss, summed in (("mean", False), ("sum", True))
        for side in sorted({of for _, of, own, also in found if own == size and also is summed})
    ]


def _cells(found: dict[Key, Limit], side: int, size: int, *, summed: bool) -> list[str]:
    limits = (found[name, side, size, summed] for name in PICTURES)
    return [number(value) for limit in limits for value in (limit.derived, limit.measured)]


PAIRS = tuple(header for name in PICTURES for header in (name, f"{name}: measured"))


def row_of_change(name: str, limit: Limit, plain: Limit) -> list[object]:
    times = number(limit.derived / plain.derived)
    return [name, number(limit.derived), number(limit.measured), f"{limit.ratio:.3f}", times]


# ----------------------------------------------------------------------------------------------------------- picture


def draw(
    found: dict[Key, Limit], trained: dict[float, list[float]], distances: dict[str, list[float]], path: Path
) -> None:
    """Draw the limits over the kernel's and the picture's side; the ratio of measured to derived; trainings around the
    limit; and how fast kernels come back from pictures with and without a mean."""
    sides, sizes = sorted({side for _, side, _, _ in found}), sorted({size for _, _, size, _ in found})
    figure = new_figure(12.5, 8.6)
    grid = figure.add_gridspec(2, 6, height_ratios=[1.15, 1])
    _draw_kernels(figure.add_subplot(grid[0, :3]), found, sides[-1])
    _draw_sides(figure.add_subplot(grid[0, 3:]), found, middle(sizes, KERNEL))
    _draw_ratios(figure.add_subplot(grid[1, :2]), found)
    _draw_trainings(figure.add_subplot(grid[1, 2:4]), trained)
    _draw_distances(figure.add_subplot(grid[1, 4:]), distances)
    save(figure, path)


def _draw_limits(panel: Axes, limits: dict[int, Limit], colour: str, style: str, label: str | None) -> None:
    panel.plot(list(limits), [limit.derived for limit in limits.values()], style, color=colour, label=label)
    panel.plot(list(limits), [limit.measured for limit in limits.values()], "o", color=colour, markersize=5)


def _draw_kernels(panel: Axes, found: dict[Key, Limit], side: int) -> None:
    for name, colour in COLOURS.items():
        limits = {key[2]: limit for key, limit in found.items() if (key[0], key[1], key[3]) == (name, side, False)}
        _draw_limits(panel, limits, colour, "-", name)
    sizes = sorted(limits)
    panel.set(xscale="log", yscale="log", xlabel="rows of the kernel", ylabel="largest stable rate")
    # Above 9 two labels of two digits side by side would run together: the last one alone is shown.
    panel.set_xticks(sizes, [str(size) if size < 10 or size == sizes[-1] else "" for size in sizes])
    panel.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    panel.set_title(f"Mean loss, pictures of {side}x{side} (lines: 2/λ; dots: measured)")
    panel.legend(loc="lower left", fontsize=8.5)


def _draw_sides(panel: Axes, found: dict[Key, Limit], size: int) -> None:
    for name, colour in COLOURS.items():
        for summed, style in ((False, "-"), (True, "--")):
            limits = {key[1]: limit for key, limit in found.items() if (key[0], *key[2:]) == (name, size, summed)}
            _draw_limits(panel, limits, colour, style, None)
    sides = sorted(limits)
    for style, label in (("-", "mean over the positions"), ("--", "sum over the positions, halved")):
        panel.plot([], [], style, color="black", label=label)
    panel.axhline(0.25, color=RED, linewidth=1.2, linestyle=":", label="a rate of 0.25")
    panel.set(xscale="log", yscale="log", xlabel="rows of the picture", ylabel="largest stable rate")
    panel.set_xticks(sides, [str(side) for side in sides])
    panel.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    panel.set_title(f"Kernel {size}x{size}, both losses (colours as on the left)")
    panel.legend(loc="lower left", fontsize=8.5)


def _draw_ratios(panel: Axes, found: dict[Key, Limit]) -> None:
    for name, colour in COLOURS.items():
        limits = [limit for key, limit in found.items() if key[0] == name]
        derived, ratios = [limit.derived for limit in limits], [limit.ratio for limit in limits]
        panel.plot(derived, ratios, "o", color=colour, markersize=4.5, alpha=0.7)
    panel.axhspan(0.98, 1.02, color=GREEN, alpha=0.1, linewidth=0)
    panel.set(xscale="log", ylim=(0.96, 1.04), xlabel="2/λ", ylabel="measured / derived")
    panel.set_title(f"All {len(found)} limits (colours as above; green: within 2 %)")


def _draw_trainings(panel: Axes, trained: dict[float, list[float]]) -> None:
    for (share, losses), colour in zip(trained.items(), (GREEN, BLUE, PURPLE, ORANGE, RED), strict=True):
        panel.plot(np.array(losses) / losses[0], color=colour, label=f"{share:g} times 2/λ")
    panel.set(yscale="log", ylim=(1e-5, 1e3), xlim=(0, max(map(len, trained.values())) - 1))
    panel.set(xlabel="step", ylabel="loss, start: 1")
    panel.set_title("Around the limit (standardised photo)")
    panel.legend(loc="upper right", fontsize=8.5)


def _draw_distances(panel: Axes, distances: dict[str, list[float]]) -> None:
    for (name, values), (colour, style) in zip(distances.items(), SLOW.values(), strict=True):
        panel.plot(np.arange(len(values)) + 1, values, style, color=colour, label=name)
    panel.set(xscale="log", yscale="log", ylim=(1e-3, 200), xlabel="step + 1", ylabel="distance to the known kernel")
    panel.set_title("At half the limit: with a mean, and without")
    panel.legend(loc="upper left", fontsize=8.5)


# -------------------------------------------------------------------------------------------------------------- main

SHARES = (0.5, 0.9, 0.98, 1.02, 1.1)
"""Rates of the training runs that are drawn, in limits."""
SLOW = {
    NOISE_PLUS_1: (GREY, "-"),
    "noise": (GREY, "--"),
    PLAIN: (ORANGE, "-"),
    CENTRED: (ORANGE, "--"),
    CONTRAST: (GREEN, "--"),
}
"""Pictures on which a known kernel is looked for: colour and style."""
LOOKS = (10, 100, 1000, 10000)
"""Steps after which the distance is printed."""


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__, "lone_convolution.png")
    arguments.add_argument(
        "--kernel", type=at_least(1), action="append", help="rows of the kernels; repeat it (default: 1 to 11)"
    )
    arguments.add_argument(
        "--side", type=at_least(4), action="append", help="of the pictures; repeat it (default: 8, 16, … 224)"
    )
    arguments.add_argument("--steps", type=at_least(20), default=STEPS, help=f"of each training run (default: {STEPS})")
    arguments.add_argument("--device", default="auto", help="auto | cpu | cuda | cuda:N | reference (default: auto)")
    options = arguments.parse_args()
    kernels, sides = sorted(set(options.kernel or KERNELS)), sorted(set(options.side or SIDES))
    size, side = middle(kernels, KERNEL), middle(sides, SIDE)
    if size > sides[0]:
        arguments.error(f"--kernel: one of {sides[0]} rows or less is needed for every picture")
    backend = open_device(options.device).backend
    show_pictures(side, size, backend, options.steps)
    show_changes(side, size, backend, options.steps)
    found = find_limits(sides, kernels, backend, options.steps)
    print(f"\nThe mean squared error on pictures of {sides[-1]}x{sides[-1]}, by kernel: 2 / largest, and measured\n")
    print(table(rows_of_kernels(found, sides[-1]), ["kernel", *PAIRS]))
    print(f"\nA kernel of {size}x{size}, by loss and picture: 2 / largest, and measured\n")
    print(table(rows_of_sides(found, size), ["loss", "picture", *PAIRS]))
    ratios = [limit.ratio for limit in found.values()]
    print(f"\nOf all {len(found)} limits the ratio of measured to derived lies between", end=" ")
    print(f"{min(ratios):.4f} and {max(ratios):.4f}.")
    plain = changes(side, size)["as above"]
    trained = {share: Convolution(plain, backend).train(share * derived_limit(plain), 200) for share in SHARES}
    draw(found, trained, show_distances(side, size, backend), options.output)


def show_pictures(side: int, size: int, backend: Backend, steps: int) -> None:
    rows = []
    for name, draw_picture in ALL_PICTURES.items():
        task = Task(x=draw_picture(side), size=size)
        lr_find = Convolution(task, backend).lr_find()
        rows.append(row_of_picture(name, task, find_limit(task, backend, steps), lr_find))
    print(f"A kernel of {size}x{size}, pictures of {side}x{side}, mean squared error; q = mean² + deviation²\n")
    print(table(rows, PICTURE_HEADERS), flush=True)
    tasks = [Task(x=standardised(sample_photos((name,), side, "none")), size=size) for name in ALL]
    limits = [find_limit(task, backend, steps) for task in tasks]
    derived, ratios = [limit.derived for limit in limits], [limit.ratio for limit in limits]
    print(f"\nEach of the {len(ALL)} sample photos, standardised: limits from {number(min(derived))} to", end=" ")
    print(f"{number(max(derived))}, ratios from {min(ratios):.3f} to {max(ratios):.3f}.")


def show_changes(side: int, size: int, backend: Backend, steps: int) -> None:
    tasks = changes(side, size)
    found = {name: find_limit(task, backend, steps) for name, task in tasks.items()}
    plain = next(iter(found.values()))
    print("\nThe standardised photo, with one thing changed\n")
    rows = [row_of_change(name, limit, plain) for name, limit in found.items()]
    print(table(rows, ("changed", "2 / largest", "measured", "ratio", "times")), flush=True)


def show_distances(side: int, size: int, backend: Backend) -> dict[str, list[float]]:
    found, rows = {}, []
    for name in SLOW:
        task = Task(x=ALL_PICTURES[name](side), size=size, is_known=True)
        found[name] = Convolution(task, backend).distances(derived_limit(task) / 2, LOOKS[-1])
        rows.append([name, spread(curvatures(task)), *(f"{found[name][look]:.2g}" for look in LOOKS)])
    print("\nDistance to a known kernel, in its lengths, at half of each picture's own limit\n")
    print(table(rows, ("picture", "largest / smallest", *(f"after {look} steps" for look in LOOKS))), flush=True)
    return found


if __name__ == "__main__":
    main()
