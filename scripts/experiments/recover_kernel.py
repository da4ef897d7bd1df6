"""Can training recover a known kernel from its max-pooled outputs?

The target is a picture convolved with the known kernel and max-pooled; another kernel starts from random weights and
minimises the mean squared error. Without pooling this is a linear problem with one solution. With pooling only the
largest sum of each window is compared: a kernel of the right length has nearly the right largest sums even if it
points elsewhere, and where another position wins, the error pulls it to the wrong pixels. What helps are more windows
than one picture has, best of all a new picture for every step.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import at_least, exit_on_error, parser
from common.figures import BLUE, GREEN, GREY, ORANGE, new_figure, save
from common.tables import table
from facecnn.kernels import reference
from facecnn.kernels.protocol import AUGMENTATION_NONE, Normalise, PoolKind
from facecnn.learning.optimizers import Adam, Momentum, Optimizer, Sgd
from facecnn.photos.dataset import load_files
from facecnn.photos.preparation import PhotoSettings
from facecnn.photos.sample import sample_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

Array = npt.NDArray[np.float64]

SIZE = 5
SIDE = 36
"""Pixels a side of a picture; the convolution leaves 32, which every pool divides."""
POOLS = (1, 2, 4, 8)
RECOVERED = 0.01
"""A kernel counts as recovered within this distance of the true one, in its lengths."""
NO_ERROR = 1e-6
"""An error below this share of the targets' mean square counts as zero."""

KERNELS, STARTS, PICTURES, FRESH = range(4)
"""Streams of random numbers: all trials share kernels, starts and pictures."""

DESCENT = Sgd(learning_rate=0.1)
OPTIMIZERS: dict[str, Optimizer] = {
    "gradient descent": DESCENT,
    "momentum": Momentum(learning_rate=0.02, momentum=0.9),
    "adam": Adam(learning_rate=0.01),
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A way to look for the kernel."""

    pools: tuple[int, ...]
    """Sides of the windows, each for an equal part of the steps; results are judged with the last one."""
    steps: int
    rule: Optimizer = DESCENT
    kind: PoolKind = "max"
    pictures: int = 1
    fresh: bool = False
    """New pictures for every step."""
    distance: float | None = None
    """Of the start from the true kernel, in lengths of it; None: a random start."""
    starts: int = 1
    """Random starts, of which the one with the least error at the end counts."""
    source: Normalise | None = None
    """None: white noise; otherwise a photo of a face, normalised in this way."""


@dataclass(frozen=True)
class Outcome:
    """The result of a trial with S kernels, each looked for by a kernel of its own."""

    true: Array
    """(S, rows, columns)"""
    found: Array
    """(S, rows, columns)"""
    distance: Array
    """(steps + 1, S): from the true kernel, in lengths of it."""
    error: Array
    """(steps + 1, S): mean squared error, as a share of the targets' mean square."""
    agreement: Array
    """(steps + 1, S): share of the windows in which the same position wins as with the true kernel."""

    @property
    def recovered(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.distance[-1] <= RECOVERED)

    @property
    def steps_needed(self) -> int | None:
        """Median over those that were recovered."""
        steps = (self.distance <= RECOVERED).argmax(axis=0)[self.recovered]
        return int(np.median(steps)) if len(steps) else None


@cache
def face(normalise: Normalise) -> Array:
    """Load a sample person's photo, (1, SIDE, SIDE, 1), scaled to the noise's mean square of 1."""
    settings = PhotoSettings(size=SIDE, normalise=normalise, augment=None)
    loaded = load_files([sample_folder() / "s1" / "1.pgm"], settings)
    out = np.empty((1, SIDE, SIDE, 1))
    parameters = np.array([AUGMENTATION_NONE])
    reference.prepare_photos(
        out, loaded.pixels, loaded.row.astype(np.int32), parameters, normalise, reference.Workspace()
    )
    return np.asarray(out / np.sqrt((out**2).mean()))


class Forward:
    """A convolution without bias or activation, and a pool, for S kernels (S, rows, columns, 1) at once."""

    def __init__(self, x: Array, kernels: int, pool: int, kind: PoolKind) -> None:
        side = (SIDE - SIZE + 1) // pool
        self._x, self._pool, self._averaged = x, pool, kind == "average"
        self._fused = 1 if self._averaged else pool
        self.out: Array = np.empty((len(x), side, side, kernels))
        self.winners = np.zeros(self.out.shape, np.uint8)
        self._sums: Array = self.out if not self._averaged else np.empty((len(x), side * pool, side * pool, kernels))
        self._zeros = np.zeros(kernels)
        self._workspace = reference.Workspace()

    def __call__(self, weight: Array) -> Array:
        """Compute the pooled outputs (N, rows, columns, S)."""
        result, workspace = (self._sums, self.winners), self._workspace
        reference.conv_forward(*result, self._x, weight, self._zeros, (0, 0), "identity", 0.0, self._fused, workspace)
        if self._averaged:
            window = (self._pool, self._pool)
            reference.pool_forward(self.out, self.winners, self._sums, "average", window, window, self._workspace)
        return self.out

    def backward(self, dout: Array, weight: Array) -> Array:
        """Compute the gradient by the weights from that by the outputs."""
        dweight, dbias = np.empty_like(weight), np.empty(len(weight))
        if self._averaged:
            dsums, window = np.empty_like(self._sums), (self._pool, self._pool)
            reference.pool_backward(dsums, dout, self.winners, "average", window, window, self._workspace)
            dout = dsums
        result, workspace = (self._sums, self.winners), self._workspace
        reference.conv_backward_weight(
            dweight, dbias, dout, *result, self._x, (0, 0), "identity", 0.0, self._fused, workspace
        )
        return dweight


def run(trial: Trial, kernels: int, seed: int) -> Outcome:
    """Look for ``kernels`` kernels, each with ``trial.starts`` starts of its own.

    They are the maps of one convolution, which share pictures and nothing else.
    """
    noise = {stream: np.random.default_rng([seed, stream]) for stream in (KERNELS, STARTS, PICTURES, FRESH)}
    count, shape = kernels * trial.starts, (SIZE, SIZE, 1)
    true = np.repeat(noise[KERNELS].standard_normal((kernels, *shape)) / SIZE, trial.starts, axis=0)
    weight = noise[STARTS].standard_normal((count, *shape)) / SIZE
    lengths = _lengths(true)
    if trial.distance is not None:
        weight = true + weight * (trial.distance * lengths / _lengths(weight))[:, None, None, None]

    def pictures(stream: int) -> Array:
        return noise[stream].standard_normal((trial.pictures, SIDE, SIDE, 1))

    x = pictures(PICTURES) if trial.source is None else face(trial.source)
    state = {name: np.zeros(weight.size) for name in trial.rule.state_names}
    rate, history = np.array([trial.rule.learning_rate]), []
    pool = 0
    for step in range(trial.steps + 1):
        due = trial.pools[min(step * len(trial.pools) // trial.steps, len(trial.pools) - 1)]
        if trial.fresh or due != pool:
            pool, x = due, pictures(FRESH) if trial.fresh else x
            model, target = (Forward(x, count, pool, trial.kind) for _ in range(2))
            target(true)
        out = model(weight)
        error, dout = _squared_error(out, target.out)
        same = (model.winners == target.winners).mean(axis=(0, 1, 2))
        history.append((_lengths(weight - true) / lengths, error, same))
        if step < trial.steps:
            trial.rule.update(
                backend=reference,
                weight=weight.reshape(-1),
                state=state,
                gradient=model.backward(dout, weight).reshape(-1),
                learning_rate=rate,
                step=np.array([step], np.int32),
                decaying=0,
                workspace=reference.Workspace(),
            )
    distance, error, agreement = (np.array(column) for column in zip(*history, strict=True))
    best = np.arange(kernels) * trial.starts + error[-1].reshape(kernels, -1).argmin(axis=1)
    chosen = [array[:, best] for array in (distance, error, agreement)]
    return Outcome(true[best, ..., 0], weight[best, ..., 0], *chosen)


def _lengths(kernels: Array) -> Array:
    return np.asarray(np.linalg.norm(kernels.reshape(len(kernels), -1), axis=1))


def _squared_error(out: Array, target: Array) -> tuple[Array, Array]:
    """Compute each kernel's mean squared error, as a share of its target's mean square (S,), and the derivative of the
    mean squared error by the outputs. To the loss every kernel is a row of its own."""
    rows, targets = (np.ascontiguousarray(array.reshape(-1, array.shape[-1]).T) for array in (out, target))
    errors, objectives, dout = np.empty(len(rows)), np.empty(len(rows)), np.empty_like(rows)
    reference.mean_squared_error(errors, objectives, dout, rows, targets, np.ones(1), reference.Workspace())
    return errors / (targets**2).mean(axis=1), dout.T.reshape(out.shape)


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
        "half the steps with pool 2": replace(plain, pools=(2, 4)),
        "4 pictures": replace(plain, pictures=4),
        "4 pictures, best of 10 starts": replace(plain, pictures=4, starts=10),
        "16 pictures": replace(plain, pictures=16),
        "new pictures": replace(plain, fresh=True),
        "new pictures, momentum": replace(plain, fresh=True, rule=momentum),
        "new pictures, momentum, best of 4": replace(plain, fresh=True, rule=momentum, starts=4),
    }


REMEDY_POOLS = (4, 8)


def curvatures(x: Array) -> Array:
    """Eigenvalues, ascending, of the second derivative of the mean squared error without pooling: 2 mean(patch
    patch')."""
    patches = np.lib.stride_tricks.sliding_window_view(x[..., 0], (SIZE, SIZE), axis=(1, 2)).reshape(-1, SIZE**2)
    return np.asarray(np.linalg.eigvalsh(2 * patches.T @ patches / len(patches)))


SOURCES: dict[str, Normalise | None] = {"noise": None, "face": "standardise", "face, local contrast": "local_contrast"}
FACE_POOLS = (1, 2)


def face_trials(steps: int, seed: int) -> dict[tuple[str, int, str], tuple[Trial, float]]:
    """By picture, pool and optimizer: the trial, and the ratio of the largest curvature to the smallest one."""
    trials = {}
    for name, source in SOURCES.items():
        noise = np.random.default_rng([seed, PICTURES]).standard_normal((1, SIDE, SIDE, 1))
        values = curvatures(noise if source is None else face(source))
        rules: dict[str, Optimizer] = {
            "gradient descent": replace(DESCENT, learning_rate=1 / float(values[-1])),
            "adam": OPTIMIZERS["adam"],
        }
        for pool in FACE_POOLS:
            for optimizer, rule in rules.items():
                trial = Trial(pools=(pool,), steps=steps, rule=rule, source=source)
                trials[name, pool, optimizer] = (trial, float(values[-1] / values[0]))
    return trials


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
                panel.axhline(RECOVERED, color=GREY, linewidth=1, linestyle="--")
                name = f"pool {pool}x{pool}" if pool > 1 else "no pooling"
                panel.set_title(f"{name}: {outcome.recovered.sum()} of {len(outcome.recovered)} come back")
            else:
                panel.set_xlabel("step + 1")
        _draw_kernels(part.add_subfigure(grid[2, column]), outcome)


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
            panel.text(share + 1.5, place, f"{share}", va="center", fontsize=7.5, color=colour)
    panel.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 108), xlabel="recovered, %")
    panel.invert_yaxis()
    panel.grid(axis="y", visible=False)
    panel.set_title("what helps where one picture and gradient descent don't do")
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
        xscale="log", yscale="log", ylim=(1.3e-3, 4), xlabel="step + 1", ylabel="distance to the true kernel, median"
    )
    panel.axhline(RECOVERED, color=GREY, linewidth=1, linestyle="--")
    panel.set_title("no pooling, other pictures")
    panel.legend(loc="lower left", fontsize=8)


# -------------------------------------------------------------------------------------------------------------- main

PARTS = ("pools", "remedies", "faces")


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__, "recover_kernel.png")
    arguments.add_argument("--part", choices=PARTS, action="append", help="only this one (may be repeated)")
    arguments.add_argument(
        "--remedy", choices=remedies(0), metavar="NAME", action="append", help="only this one (may be repeated)"
    )
    arguments.add_argument("--kernels", type=at_least(2), default=20, help="kernels to be found (default: 20)")
    arguments.add_argument("--steps", type=at_least(10), default=600, help="(default: 600; faces: 6 times as many)")
    arguments.add_argument("--seed", type=at_least(0), default=0, help="(default: 0)")
    options = arguments.parse_args()
    chosen, kernels, seed = options.part or PARTS, options.kernels, options.seed
    print(f"{kernels} kernels of {SIZE}x{SIZE}, pictures of {SIDE}x{SIDE}, {options.steps} steps, seed {seed}.")
    print(f"Recovered: within {RECOVERED:.0%} of the true kernel. Steps: median of those that recovered.")
    drawn: dict[str, Any] = {}
    if "pools" in chosen:
        drawn["pools"] = show_pools(options.steps, kernels, seed)
    if "remedies" in chosen:
        drawn["remedies"] = show_remedies(options.remedy or remedies(0), options.steps, kernels, seed)
    if "faces" in chosen:
        drawn["faces"] = show_faces(6 * options.steps, kernels, seed)
    draw(drawn, options.output)


def show_pools(steps: int, kernels: int, seed: int) -> dict[tuple[int, str], Outcome]:
    found = {
        (pool, name): run(Trial(pools=(pool,), steps=steps, rule=rule), kernels, seed)
        for pool in POOLS
        for name, rule in OPTIMIZERS.items()
    }
    print("\nOne picture of white noise; what is said of the others is a median\n")
    print(table(rows_of_pools(found), POOL_HEADERS), flush=True)
    return found


def show_remedies(names: Iterable[str], steps: int, kernels: int, seed: int) -> dict[tuple[str, int], Outcome]:
    found: dict[tuple[str, int], Outcome] = {}
    rows: list[Sequence[object]] = []
    for name in names:
        trial = remedies(steps)[name]
        cells: list[object] = [name]
        for pool in REMEDY_POOLS:
            outcome = run(replace(trial, pools=(*trial.pools[:-1], pool)), kernels, seed)
            found[name, pool] = outcome
            cells += [percent(outcome.recovered), str(outcome.steps_needed or "-")]
        rows.append(cells)
    headers = [title for pool in REMEDY_POOLS for title in (f"pool {pool}: recovered %", f"pool {pool}: steps")]
    print("\nWhat helps (white noise; gradient descent, unless said; new pictures: another one for every step)\n")
    print(table(rows, ["remedy", *headers]), flush=True)
    return found


def show_faces(steps: int, kernels: int, seed: int) -> dict[tuple[str, int, str], Outcome]:
    found: dict[tuple[str, int, str], Outcome] = {}
    rows: list[Sequence[object]] = []
    for key, (trial, condition) in face_trials(steps, seed).items():
        outcome = found[key] = run(trial, kernels, seed)
        name, pool, optimizer = key
        left = f"{np.median(outcome.distance[-1]):.2g}"
        rate = f"{trial.rule.learning_rate:.3f}"
        recovered = (percent(outcome.recovered), str(outcome.steps_needed or "-"))
        rows.append([name, round(condition), f"{pool}x{pool}", optimizer, rate, *recovered, left])
    print(f"\nOne picture, of noise or of a face, {steps} steps\n")
    headers = ("picture", "curvatures", "pool", "optimizer", "rate", "recovered %", "steps", "distance left")
    print(table(rows, headers), flush=True)
    return found


def draw(drawn: dict[str, Any], path: Path) -> None:
    """Draw the parts that were run: the pools above, remedies and faces below."""
    has_lower = bool({"remedies", "faces"} & set(drawn))
    heights = [height for height, there in ((6.6, "pools" in drawn), (4.2, has_lower)) if there]
    figure = new_figure(12.5, sum(heights))
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    if "pools" in drawn:
        draw_pools(parts[0], drawn["pools"])
    if has_lower:
        lower = [name for name in ("remedies", "faces") if name in drawn]
        panels = dict(zip(lower, parts[-1].subplots(1, len(lower), squeeze=False)[0], strict=True))
        if "remedies" in panels:
            draw_remedies(panels["remedies"], drawn["remedies"])
        if "faces" in panels:
            draw_faces(panels["faces"], drawn["faces"])
    save(figure, path)


if __name__ == "__main__":
    main()
