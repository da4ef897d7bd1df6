"""Can training recover a known kernel from its max-pooled outputs?

The target is a picture convolved with the known kernel and max-pooled; another kernel starts from random weights and
minimises the mean squared error. Without pooling this is a linear problem with one solution. With pooling only the
largest sum of each window is compared: a kernel of the right length has nearly the right largest sums even if it
points elsewhere, and where another position wins, the error pulls it to the wrong pixels. What helps are more windows
than one picture has, such as a new picture for every step; and a network that pools before it convolves.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import at_least, exit_on_error, parser
from common.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, new_figure, save
from common.kernel_recovery import (
    DESCENT,
    PICTURES,
    RECOVERED,
    SIDE,
    SIZE,
    Array,
    Outcome,
    Trial,
    face,
    run,
)
from common.stable_rates import Task, curvatures
from common.tables import table
from facecnn.kernels import open_device
from facecnn.kernels.backend import Backend
from facecnn.kernels.protocol import Normalise
from facecnn.learning.optimizers import Adam, Momentum, Optimizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

POOLS = (1, 2, 4, 8)
NO_ERROR = 1e-6
"""An error below this share of the targets' mean square counts as zero."""

OPTIMIZERS: dict[str, Optimizer] = {
    "gradient descent": DESCENT,
    "momentum": Momentum(learning_rate=0.02, momentum=0.9),
    "adam": Adam(learning_rate=0.01),
}


# ------------------------------------------------------------------------------------------------------------ tables


def rows_of_pools(found: dict[tuple[int, str], Outcome]) -> list[list[object]]:
    """For each pool and optimizer: how many were recovered, how fast, and what became of the others."""
    rows: list[list[object]] = []
    for (pool, optimizer), outcome in found.items():
        lost = ~outcome.recovered
        away = lost & (outcome.error[-1] <= NO_ERROR)

        def median(values: Array, chosen: npt.NDArray[np.bool_] = lost) -> str:
            return f"{np.median(values[chosen]):.2g}" if chosen.any() else "-"

        rows.append(
            [
                f"{pool}x{pool}",
                ((SIDE - SIZE + 1) // pool) ** 2,
                optimizer,
                percent(outcome.recovered),
                str(outcome.steps_needed or "-"),
                percent(away),
                median(outcome.distance[-1]),
                median(np.linalg.norm(outcome.found, axis=(1, 2)) / np.linalg.norm(outcome.true, axis=(1, 2))),
                median(outcome.error[-1]),
                median(100 * outcome.agreement[-1]),
            ]
        )
    return rows


POOL_HEADERS = (
    "pool",
    "windows",
    "optimizer",
    "recovered %",
    "steps",
    "no error elsewhere %",
    "others: distance",
    "length",
    "error",
    "same winner %",
)


def percent(values: npt.NDArray[np.bool_]) -> int:
    return round(100 * float(values.mean()))


def remedies(steps: int) -> dict[str, Trial]:
    """What to try where the kernel doesn't come back, all with a pool of 4."""
    plain = Trial(pools=(4,), steps=steps)
    momentum = OPTIMIZERS["momentum"]
    return {
        "as it was": plain,
        "a tenth of the rate": replace(plain, rule=replace(DESCENT, learning_rate=0.01)),
        "momentum": replace(plain, rule=momentum),
        "adam": replace(plain, rule=OPTIMIZERS["adam"]),
        "best of 10 starts": replace(plain, starts=10),
        "start half a length away": replace(plain, distance=0.5),
        "average pooling, adam": replace(plain, kind="average", rule=OPTIMIZERS["adam"]),
        "convolution after the pool": replace(plain, rule=None, pools_first=True),
        "the same, mean subtracted": replace(plain, rule=None, pools_first=True, centred=True),
        "half the steps with pool 2": replace(plain, pools=(2, 4)),
        "4 pictures": replace(plain, pictures=4),
        "4 pictures, best of 10 starts": replace(plain, pictures=4, starts=10),
        "16 pictures": replace(plain, pictures=16),
        "new pictures": replace(plain, fresh=True),
        "new pictures, momentum": replace(plain, fresh=True, rule=momentum),
        "new pictures, momentum, best of 4": replace(plain, fresh=True, rule=momentum, starts=4),
    }


REMEDY_POOLS = (4, 8)


SOURCES: dict[str, Normalise | None] = {"noise": None, "face": "standardise", "face, local contrast": "local_contrast"}
FACE_POOLS = (1, 2)


def face_trials(steps: int, seed: int) -> dict[tuple[str, int, str], tuple[Trial, float]]:
    """By picture, pool and optimizer: the trial, and the ratio of the largest curvature to the smallest one."""
    trials = {}
    for name, source in SOURCES.items():
        noise = np.random.default_rng([seed, PICTURES]).standard_normal((1, SIDE, SIDE, 1))
        values = curvatures(Task(x=noise if source is None else face(source), size=SIZE))
        rules: dict[str, Optimizer] = {
            "gradient descent": replace(DESCENT, learning_rate=float(1 / values[-1])),
            "adam": OPTIMIZERS["adam"],
        }
        for pool in FACE_POOLS:
            for optimizer, rule in rules.items():
                trial = Trial(pools=(pool,), steps=steps, rule=rule, source=source)
                trials[name, pool, optimizer] = (trial, float(values[-1] / values[0]))
    return trials


SETTINGS = {
    ("random", "noise", "convolution, pool"): Trial(pools=(1,), steps=0),
    ("ones", "noise", "convolution, pool"): Trial(pools=(1,), steps=0, ones=True),
    ("random", "photo", "convolution, pool"): Trial(pools=(1,), steps=0, rule=None, source="standardise"),
    ("ones", "photo", "convolution, pool"): Trial(pools=(1,), steps=0, rule=None, source="standardise", ones=True),
    ("ones", "photo and mean", "convolution, pool"): Trial(pools=(1,), steps=0, rule=None, source="none", ones=True),
    ("random", "noise", "pool, convolution"): Trial(pools=(1,), steps=0, rule=None, pools_first=True, centred=True),
    ("ones", "photo", "pool, convolution"): Trial(
        pools=(1,), steps=0, rule=None, source="standardise", ones=True, pools_first=True, centred=True
    ),
}
"""By kernel, picture and order of the layers: trials for gradient descent; pool and steps are still to be set."""


def cell_of_setting(outcome: Outcome) -> str:
    """How many were recovered and how fast; if none, how far away they ended."""
    if outcome.recovered.any():
        return f"{percent(outcome.recovered)} %: {outcome.steps_needed} steps"
    return f"0 %: {np.median(outcome.distance[-1]):.2g} away, error {np.median(outcome.error[-1]):.0e}"


# ----------------------------------------------------------------------------------------------------------- picture


def draw_pools(part: SubFigure, found: dict[tuple[int, str], Outcome]) -> None:
    """Draw for each pool, with gradient descent, distance to the true kernel and error over the steps; below them two
    kernels and what was found in their place."""
    pools = sorted({pool for pool, _ in found})
    grid = part.add_gridspec(3, len(pools), height_ratios=[1.5, 1, 1.15])
    for column, pool in enumerate(pools):
        outcome = next(outcome for (of, _), outcome in found.items() if of == pool)
        steps = np.arange(len(outcome.distance)) + 1
        curves = ((outcome.distance, (1.3e-3, 4), "distance"), (outcome.error, (3e-9, 4), "error"))
        for row, (values, limits, label) in enumerate(curves):
            panel = part.add_subplot(grid[row, column])
            for number in np.argsort(outcome.recovered):
                shown = np.maximum(values[:, number], limits[0] / 2)
                colour = BLUE if outcome.recovered[number] else ORANGE
                panel.plot(steps, shown, color=colour, linewidth=0.9, alpha=0.75)
            panel.set(xscale="log", yscale="log", ylim=limits, xlim=(1, len(steps)))
            panel.tick_params(labelbottom=row == 1, labelleft=column == 0)
            if column == 0:
                panel.set_ylabel(label)
            if row == 0:
                _draw_recovered(panel)
                if column == 0:
                    panel.legend(loc="lower left", fontsize=8)
                name = f"pool {pool}x{pool}" if pool > 1 else "no pooling"
                panel.set_title(f"{name}: {outcome.recovered.sum()} of {len(outcome.recovered)} come back")
            else:
                panel.set_xlabel("step + 1")
        _draw_kernels(part.add_subfigure(grid[2, column]), outcome)


def _draw_recovered(panel: Axes) -> None:
    panel.axhline(RECOVERED, color="#444444", linewidth=1, linestyle="--", label=f"recovered: within {RECOVERED:.0%}")


def _draw_kernels(part: SubFigure, outcome: Outcome) -> None:
    """Draw a kernel that was recovered and one that wasn't, if there are such: true above, found below."""
    order = [*np.flatnonzero(outcome.recovered)[:1], *np.flatnonzero(~outcome.recovered)[:1]]
    order = (order + [n for n in range(len(outcome.true)) if n not in order])[:2]
    panels = part.subplots(2, 2, squeeze=False)
    for column, number in enumerate(order):
        limit = np.abs(outcome.true[number]).max()
        for row, (kernel, label) in enumerate(((outcome.true, "true"), (outcome.found, "found"))):
            panel = panels[row, column]
            panel.imshow(kernel[number], cmap="RdBu_r", vmin=-limit, vmax=limit)
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
            for edge in panel.spines.values():
                edge.set(visible=True, color=BLUE if outcome.recovered[number] else ORANGE, linewidth=2)
            if column == 0:
                panel.set_ylabel(label)


def draw_remedies(panel: Axes, found: dict[tuple[str, int], Outcome]) -> None:
    """Draw the recovered share, a pair of bars for each remedy."""
    names = list(dict.fromkeys(name for name, _ in found))
    for number, (pool, colour) in enumerate(zip(REMEDY_POOLS, (BLUE, GREEN), strict=True)):
        shares = [percent(found[name, pool].recovered) for name in names]
        places = np.arange(len(names)) + 0.38 * (number - 0.5)
        panel.barh(places, np.maximum(shares, 0.6), 0.36, color=colour, label=f"pool {pool}x{pool}")
        for place, share in zip(places, shares, strict=True):
            panel.text(share + 1.5, place, f"{share}", va="center", fontsize=8, color=colour)
    panel.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 108), xlabel="recovered, %")
    panel.invert_yaxis()
    panel.grid(axis="y", visible=False)
    panel.set_title("what brings how many back with a large pool")
    panel.legend(loc="upper right")


def draw_faces(panel: Axes, found: dict[tuple[str, int, str], Outcome]) -> None:
    """Draw the median distance over the steps, without pooling."""
    colours = dict(zip(SOURCES, (GREY, ORANGE, BLUE), strict=True))
    for (name, pool, optimizer), outcome in found.items():
        if pool == 1:
            median = np.maximum(np.median(outcome.distance, axis=1), 1e-3)
            style = "-" if optimizer == "gradient descent" else ":"
            steps = np.arange(len(median)) + 1
            panel.plot(steps, median, style, color=colours[name], label=f"{name}: {optimizer}", linewidth=1.8)
    panel.set(
        xscale="log", yscale="log", ylim=(1.3e-3, 400), xlabel="step + 1", ylabel="distance to the true kernel, median"
    )
    _draw_recovered(panel)
    panel.set_title("no pooling, other pictures")
    panel.legend(loc="upper left", fontsize=8)


def draw_settings(part: SubFigure, found: Mapping[tuple[str, ...], Outcome]) -> None:
    """Draw the median distance with Adam, a panel for each pool."""
    panels = part.subplots(1, len(POOLS), sharey=True)
    colours = dict(zip(SETTINGS, (GREY, PURPLE, BLUE, ORANGE, RED, GREY, ORANGE), strict=True))
    for panel, pool in zip(panels, POOLS, strict=True):
        for setting, colour in colours.items():
            median = np.maximum(np.median(found[*setting, str(pool), "adam"].distance, axis=1), 1e-4)
            kernel, picture, order = setting
            pools_first = order.startswith("pool")
            name = f"{kernel}, {picture}" + (", pool first" if pools_first else "")
            style = (0, (1, 1)) if pools_first else "-"
            panel.plot(np.arange(len(median)) + 1, median, linestyle=style, color=colour, label=name, linewidth=1.8)
        _draw_recovered(panel)
        panel.set(xscale="log", yscale="log", ylim=(1.3e-3, 4), xlabel="step + 1")
        panel.set_title(f"adam, pool {pool}x{pool}" if pool > 1 else "adam, no pooling")
    panels[0].set_ylabel("distance, median")
    handles, labels = panels[0].get_legend_handles_labels()
    part.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)


# -------------------------------------------------------------------------------------------------------------- main

PARTS = ("pools", "remedies", "faces", "ones")


@dataclass(frozen=True)
class Look:
    """What all trials share."""

    kernels: int
    seed: int
    backend: Backend

    def __call__(self, trial: Trial) -> Outcome:
        return run(trial, self.kernels, self.seed, self.backend)


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__, "recover_kernel.png")
    arguments.add_argument("--part", choices=PARTS, action="append", help="only this one (may be repeated)")
    arguments.add_argument(
        "--remedy", choices=remedies(0), metavar="NAME", action="append", help="only this one (may be repeated)"
    )
    arguments.add_argument("--kernels", type=at_least(2), default=20, help="kernels to be found (default: 20)")
    arguments.add_argument("--steps", type=at_least(10), default=600, help="(default: 600; photos: 6 times as many)")
    arguments.add_argument("--seed", type=at_least(0), default=0, help="(default: 0)")
    arguments.add_argument("--device", choices=("cpu", "reference"), default="cpu", help="(default: cpu)")
    options = arguments.parse_args()
    chosen, kernels, seed = options.part or PARTS, options.kernels, options.seed
    look = Look(kernels, seed, open_device(options.device).backend)
    print(f"{kernels} kernels of {SIZE}x{SIZE}, pictures of {SIDE}x{SIDE}, {options.steps} steps, seed {seed}.")
    print(f"Recovered: within {RECOVERED:.0%} of the true kernel. Steps: median of those that recovered.")
    drawn: dict[str, Any] = {}
    if "pools" in chosen:
        drawn["pools"] = show_pools(options.steps, look)
    if "remedies" in chosen:
        drawn["remedies"] = show_remedies(options.remedy or remedies(0), options.steps, look)
    if "faces" in chosen:
        drawn["faces"] = show_faces(6 * options.steps, look)
    if "ones" in chosen:
        drawn["ones"] = show_settings(options.steps, look)
    draw(drawn, options.output)


def show_pools(steps: int, look: Look) -> dict[tuple[int, str], Outcome]:
    found = {
        (pool, name): look(Trial(pools=(pool,), steps=steps, rule=rule))
        for pool in POOLS
        for name, rule in OPTIMIZERS.items()
    }
    print("\nOne picture of white noise; what is said of the others is a median\n")
    print(table(rows_of_pools(found), POOL_HEADERS), flush=True)
    return found


def show_remedies(names: Iterable[str], steps: int, look: Look) -> dict[tuple[str, int], Outcome]:
    found: dict[tuple[str, int], Outcome] = {}
    rows: list[Sequence[object]] = []
    for name in names:
        trial = remedies(steps)[name]
        cells: list[object] = [name]
        for pool in REMEDY_POOLS:
            outcome = look(replace(trial, pools=(*trial.pools[:-1], pool)))
            found[name, pool] = outcome
            cells += [percent(outcome.recovered), str(outcome.steps_needed or "-")]
        rows.append(cells)
    headers = [title for pool in REMEDY_POOLS for title in (f"pool {pool}: recovered %", f"pool {pool}: steps")]
    print("\nWhat helps (white noise; gradient descent, unless said; new pictures: another one for every step)\n")
    print(table(rows, ["remedy", *headers]), flush=True)
    return found


def show_faces(steps: int, look: Look) -> dict[tuple[str, int, str], Outcome]:
    found: dict[tuple[str, int, str], Outcome] = {}
    rows: list[Sequence[object]] = []
    for key, (trial, condition) in face_trials(steps, look.seed).items():
        outcome = found[key] = look(trial)
        name, pool, optimizer = key
        left = f"{np.median(outcome.distance[-1]):.2g}"
        assert trial.rule is not None
        rate = f"{trial.rule.learning_rate:.3f}"
        recovered = (percent(outcome.recovered), str(outcome.steps_needed or "-"))
        rows.append([name, round(condition), f"{pool}x{pool}", optimizer, rate, *recovered, left])
    print(f"\nOne picture, of noise or of a face, {steps} steps\n")
    headers = ("picture", "curvatures", "pool", "optimizer", "rate", "recovered %", "steps", "distance left")
    print(table(rows, headers), flush=True)
    return found


def show_settings(steps: int, look: Look) -> dict[tuple[str, ...], Outcome]:
    found: dict[tuple[str, ...], Outcome] = {}
    rows: list[Sequence[object]] = []
    for setting, trial in SETTINGS.items():
        for optimizer, rule in (("gradient descent", trial.rule), ("adam", OPTIMIZERS["adam"])):
            own = replace(trial, rule=rule, steps=steps if trial.source is None else 6 * steps)
            for pool in POOLS:
                found[*setting, str(pool), optimizer] = look(replace(own, pools=(pool,)))
            cells = [cell_of_setting(found[*setting, str(pool), optimizer]) for pool in POOLS]
            rows.append([*setting, optimizer, *cells])
    print(f"\nA kernel of ones beside random ones; {steps} steps, on a photo {6 * steps}\n")
    print(table(rows, ("kernel", "picture", "order", "optimizer", *(f"pool {pool}" for pool in POOLS))), flush=True)
    return found


def draw(drawn: dict[str, Any], path: Path) -> None:
    """Draw the parts that were run: the pools above, remedies and faces below, then the kernel of ones."""
    middle = [name for name in ("remedies", "faces") if name in drawn]
    shown = {"pools": 6.6, "middle": 5.4, "ones": 3.7}
    heights = {name: height for name, height in shown.items() if name in drawn or (name == "middle" and middle)}
    figure = new_figure(12.5, sum(heights.values()))
    made = figure.subfigures(len(heights), 1, height_ratios=list(heights.values()), squeeze=False)[:, 0]
    parts = dict(zip(heights, made, strict=True))
    if "pools" in drawn:
        draw_pools(parts["pools"], drawn["pools"])
    if middle:
        panels = dict(zip(middle, parts["middle"].subplots(1, len(middle), squeeze=False)[0], strict=True))
        if "remedies" in panels:
            draw_remedies(panels["remedies"], drawn["remedies"])
        if "faces" in panels:
            draw_faces(panels["faces"], drawn["faces"])
    if "ones" in drawn:
        draw_settings(parts["ones"], drawn["ones"])
    save(figure, path)


if __name__ == "__main__":
    main()
