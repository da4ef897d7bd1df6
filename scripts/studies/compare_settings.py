"""Which settings are better, on the same folds and with the same seeds, by ``facecnn cross-validate``?

Each CONFIG (``-c``, repeatable) is a row, and so is each ``--set``, one or more KEY=VALUE that change the first config;
a YAML file (``--settings``) holds further rows by name::

    no smoothing: {loss.label_smoothing: 0}
    momentum: {optimizer: {name: momentum, learning_rate: 0.05}}

The table has means and standard deviations over folds x seeds, and the mean difference to the first row, fold by fold
with equal seeds, with its standard error. Folds share most of their training photos, and seeds share test photos, so
the true error is larger: ignore differences of less than two standard errors. ``--keep FILE`` keeps the results, and
goes on from them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import at_least, exit_on_error, parser, say
from common.tables import percent, table
from facecnn.config import Loaded, apply_overrides, load, to_dict
from facecnn.config.source import read
from facecnn.errors import DivergedError, OutputError, UsageError, shown
from facecnn.jobs.cross_validate import cross_validate
from facecnn.jobs.training.options import TrainOptions
from facecnn.photos.folder import scan
from facecnn.runs.atomic import append_whole
from studies.album import CONSOLE

FIGURES = ("accuracy", "log_loss", "seconds")
COLUMNS = ("setting", "accuracy", "accuracy - first", "log loss", "log loss - first", "seconds a run")


@dataclass(frozen=True)
class Folds:
    """A cross-validation, fold by fold; figures are NaN where training diverged."""

    accuracy: list[float]
    log_loss: list[float]
    seconds: list[float]
    dealt: str
    """A hash of which photo is in which fold; empty if training diverged."""


@dataclass(frozen=True)
class Setting:
    """A row of the table."""

    name: str
    loaded: Loaded

    def with_seed(self, seed: int) -> Loaded:
        return apply_overrides(self.loaded, [f"train.seed={seed}"])


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("photos", type=Path, help="a folder with one folder of photos per person")
    arguments.add_argument("-c", "--config", action="append", help="(default: default)")
    arguments.add_argument("--set", action="append", nargs="+", default=[], metavar="KEY=VALUE")
    arguments.add_argument("--settings", type=Path, metavar="FILE", help="YAML: name: {KEY: VALUE}")
    arguments.add_argument("--folds", type=at_least(2), default=5, help="(default: 5)")
    arguments.add_argument("--seeds", type=at_least(1), default=1, help="training runs of each fold (default: 1)")
    arguments.add_argument("--epochs", type=at_least(1), help="for all settings, to shorten training")
    arguments.add_argument("--keep", type=Path, metavar="FILE", help="the results so far, to go on from")
    arguments.add_argument("--device", default="auto")
    arguments.add_argument("--threads", type=at_least(1))
    options = arguments.parse_args()
    settings = chosen_settings(options)
    done = measure(settings, options)
    print(table([row(setting.name, done[setting.name], done[settings[0].name]) for setting in settings], COLUMNS))


def chosen_settings(options: argparse.Namespace) -> list[Setting]:
    """Read the rows. Raises UsageError for an impossible setting, and for fewer than two rows."""
    configs = options.config or ["default"]
    rows: list[tuple[str, str, list[str]]] = [(Path(config).stem, config, []) for config in configs]
    rows += [(" ".join(overrides), configs[0], overrides) for overrides in options.set]
    if options.settings is not None:
        rows += [(name, configs[0], overrides) for name, overrides in read_rows(options.settings)]
    names = [name for name, _, _ in rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{', '.join(map(shown, twice))}: given twice: give each setting once, and a name of its own")
    if len(rows) < 2:
        raise UsageError("nothing to compare with: add --set KEY=VALUE, --settings FILE or another -c CONFIG")
    shorter = [] if options.epochs is None else [f"train.epochs={options.epochs}", "train.least_steps=0"]
    return [Setting(name, apply_overrides(load(config), [*shorter, *changes])) for name, config, changes in rows]


def read_rows(path: Path) -> list[tuple[str, list[str]]]:
    """Read names and overrides from a YAML file."""
    try:
        rows = YAML(typ="safe", pure=True).load(read(path))
    except YAMLError as error:
        raise UsageError(f"{shown(path)}: {error}") from None
    if not isinstance(rows, Mapping) or not all(isinstance(changes, Mapping) for changes in rows.values()):
        raise UsageError(f"{shown(path)}: expected lines like `name: {{train.epochs: 30}}`")
    # JSON is YAML, so that a value is the same in an override.
    return [
        (str(name), [f"{key}={json.dumps(value)}" for key, value in changes.items()]) for name, changes in rows.items()
    ]


def measure(settings: Sequence[Setting], options: argparse.Namespace) -> dict[str, list[Folds]]:
    """Cross-validate every setting with each seed; seed by seed, so that an interrupted run can be compared, too."""
    known = kept(options.keep)
    photos = hash_of_photos(options.photos)
    done: dict[str, list[Folds]] = {setting.name: [] for setting in settings}
    dealt: dict[str, str] = {}
    for seed in range(options.seeds):
        for setting in settings:
            loaded = setting.with_seed(seed)
            key = hashlib.sha256(
                json.dumps([photos, options.folds, to_dict(loaded.settings)], sort_keys=True).encode()
            ).hexdigest()
            if key not in known:
                known[key] = validate(loaded, options)
                if options.keep is not None:
                    line = {"key": key, "setting": setting.name, "seed": seed, **vars(known[key])}
                    append_whole(options.keep, json.dumps(line).encode() + b"\n")
            folds = known[key]
            if folds.dealt:
                dealt[folds.dealt] = setting.name
            if len(dealt) > 1:
                raise UsageError(
                    f"{' and '.join(map(shown, dealt.values()))}: the folds hold other photos, so they can't be "
                    "compared: leave out settings that decide which photos can be used"
                )
            done[setting.name].append(folds)
            mean = float(np.mean(folds.accuracy))
            say(f"seed {seed}, {shown(setting.name)}: {percent(mean)}, {folds.accuracy}")
    return done


def validate(loaded: Loaded, options: argparse.Namespace) -> Folds:
    train = TrainOptions(photos=options.photos, device=options.device, threads=options.threads)
    try:
        result = cross_validate(loaded, train, options.folds, CONSOLE)
    except DivergedError:
        nothing = [math.nan] * options.folds
        return Folds(nothing, nothing, nothing, "")
    places = sorted((photo["fold"], photo["path"]) for photo in result["predictions"])
    accuracy, log_loss, seconds = ([fold[name] for fold in result["folds"]] for name in FIGURES)
    return Folds(accuracy, log_loss, seconds, hashlib.sha256(json.dumps(places).encode()).hexdigest())


def hash_of_photos(folder: Path) -> str:
    """Hash names and contents of all files, so that results kept for other photos aren't used."""
    lines = []
    for person, files in scan(folder).classes.items():
        for file in files:
            try:
                lines.append(f"{person}/{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}")
            except OSError as error:
                lines.append(f"{person}/{file.name} {error.strerror}")  # a photo that is skipped
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def kept(path: Path | None) -> dict[str, Folds]:
    """Read earlier results. Raises OutputError for any other file, which must not be appended to."""
    if path is None or not path.exists():
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {row["key"]: Folds(*(row[name] for name in Folds.__annotations__)) for row in rows}
    except OSError as error:
        raise OutputError(f"{shown(path)}: {error.strerror or error}: choose another place") from None
    except (ValueError, KeyError, TypeError):
        raise OutputError(f"{shown(path)}: holds something else than kept results: name another file") from None


def row(name: str, of_seeds: Sequence[Folds], first: Sequence[Folds]) -> list[object]:
    accuracy, log_loss, seconds = (figures(of_seeds, field) for field in FIGURES)
    cells = [name.replace("|", "\\|")]
    if np.isnan(accuracy).any():
        return [*cells, "diverged", "", "", "", ""]
    cells.append(f"{percent(accuracy.mean())} ± {percent(accuracy.std())}")
    cells.append(difference(100 * (accuracy - figures(first, "accuracy")), 1) if of_seeds is not first else "")
    cells.append(f"{log_loss.mean():.3f}")
    cells.append(difference(log_loss - figures(first, "log_loss"), 3) if of_seeds is not first else "")
    return [*cells, f"{seconds.mean():.1f}"]


def figures(of_seeds: Sequence[Folds], field: str) -> np.ndarray:
    """(seeds * folds,)"""
    return np.array([getattr(folds, field) for folds in of_seeds], float).ravel()


def difference(values: np.ndarray, digits: int) -> str:
    """Format the mean and its standard error."""
    if np.isnan(values).any():
        return ""
    error = values.std(ddof=1) / math.sqrt(len(values))
    return f"{values.mean():+.{digits}f} ± {error:.{digits}f}"


if __name__ == "__main__":
    main()
