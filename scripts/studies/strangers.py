"""How well are strangers told from the people, and does a confidence mean what it says?

Strangers' photos, sorted by name, are dealt in two halves: the first, third ... are the folder unknown/ beside the
people's (--other-half takes the second, fourth ...); the others are only judged by. For each fold of the people
``facecnn train`` trains on the other folds (and holds out a part of that, by which it sets temperature and threshold),
once with that unknown/ and once without. The fold and the other half of the strangers, of which no model has seen a
photo, judge it.

Scores that are compared, each growing with strangeness: what the likeliest person leaves of the probability, which is
the one that facecnn uses; the largest of the people's logits, negated; the energy, minus the logarithm of the sum of
their exponentials (Liu et al. 2020); and in the layer before the last one minus the cosine with the nearest mean of a
person's training photos, and with the three nearest training photos. "named at N %" is the share of the people's photos
that are named where a threshold, chosen afterwards for each fold, lets N % of the strangers in, N being the config's
false_accept_rate. Deviations are those of the folds.

The second table has what the models answer, at their own thresholds. "sure strangers": those who are named with a
confidence above 0.99, of all and of the worst fold. "highest": the largest confidence that a stranger was named with.
ECE: of the confidence of the people's photos that are named.

``--keep FOLDER`` keeps the trained runs, and takes those that are there instead of training again.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import errors_told
from common.experiment import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, at_least, new_figure, parser, save, table
from facecnn.cli.console import StderrConsole
from facecnn.config import Loaded, apply_overrides, load
from facecnn.errors import PhotoError, UsageError, shown
from facecnn.jobs.faces import installed_finder
from facecnn.jobs.models import Model, open_model
from facecnn.jobs.people import read_people
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.train import train
from facecnn.kernels import open_device
from facecnn.learning import scores
from facecnn.learning.calibration import unknown_score
from facecnn.network.feeding import PhotoFeed
from facecnn.network.inference import log_softmax, passes, views_at_test_time
from facecnn.photos.dataset import Dataset, load_files
from facecnn.photos.folder import UNKNOWN, list_photos
from facecnn.recognition import Answers
from facecnn.runs.checkpoint import BEST

COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE)
NEAREST = 3
"""Training photos that a photo is compared with."""

CHOSEN = "what the likeliest person leaves"
"""The score that facecnn uses."""


@dataclass(frozen=True)
class Looks:
    """What a network makes of n photos, each the mean over the views that an answer is the mean of."""

    log_probabilities: np.ndarray
    """(n, outputs), not calibrated."""
    logits: np.ndarray
    """(n, outputs)"""
    features: np.ndarray
    """(n, units): the last layer's input, each row of length 1."""


@dataclass(frozen=True)
class Fold:
    """One model on the photos that judge it."""

    scores: Mapping[str, tuple[np.ndarray, np.ndarray]]
    """By the score's name, of the people's photos and of the strangers'."""
    known: Answers
    """To the people's photos."""
    labels: np.ndarray
    """(photos of people,)"""
    strange: Answers
    """To the strangers'."""
    temperature: float
    stranger_bias: float
    threshold: float | None

    def auroc(self, name: str) -> float:
        known, strange = self.scores[name]
        area = scores.area_under_roc(strange, known)
        assert area is not None, "there are photos of both"
        return area

    def named(self, name: str, let_in: float) -> float:
        """Share of the people's photos that are named where that share of the strangers is, or a photo less."""
        known, strange = self.scores[name]
        return float((known < np.sort(strange)[int(let_in * len(strange))]).mean())

    @property
    def strangers_confidences(self) -> np.ndarray:
        """(strangers named,)"""
        return np.asarray(self.strange.confidences[~self.strange.refused])


def main() -> None:
    arguments = parser(__doc__, "strangers.png")
    arguments.add_argument("people", type=Path, help="a folder with one folder of photos per person")
    arguments.add_argument("strangers", type=Path, help="a folder of photos of other people")
    arguments.add_argument("-c", "--config", default="default", help="(default: default)")
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments.add_argument("--seed", type=at_least(0), help="of split, weights and order (default: the config's)")
    arguments.add_argument("--other-half", action="store_true", help="exchange the halves of the strangers")
    arguments.add_argument("--folds", type=at_least(2), default=5, help="(default: 5)")
    arguments.add_argument("--threads", type=at_least(1), help="(default: all)")
    arguments.add_argument("--keep", type=Path, metavar="FOLDER", help="where the runs are kept")
    options = arguments.parse_args()
    overrides = {} if options.seed is None else {"--seed": ("train.seed", options.seed)}
    loaded = apply_overrides(load(options.config), options.set, overrides)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run(options, loaded, work, options.keep or work / "runs")


def run(options: Any, loaded: Loaded, work: Path, runs: Path) -> None:
    """Train what isn't there, judge, print and draw."""
    console = StderrConsole(quiet=True, verbose=False)
    settings = loaded.settings.photos
    finder = installed_finder(settings, console, options.threads)
    people = read_people(options.people, settings, finder, console, strict=False, for_training=True)
    if UNKNOWN in people.classes:
        raise UsageError(f"{shown(options.people)}: it has a folder {UNKNOWN}/, which is to be made of STRANGERS")
    strangers = list_photos(options.strangers).files
    if len(strangers) < 2:
        raise PhotoError(f"{shown(options.strangers)}: two photos of strangers at least are needed")
    first, second = (strangers[1::2], strangers[::2]) if options.other_half else (strangers[::2], strangers[1::2])
    others = load_files(second, settings, finder=finder)
    rows = others.row[others.row >= 0]
    if not len(rows):
        raise PhotoError(f"{shown(options.strangers)}: no photo of the second half can be used: {others.reasons[0]}")
    parts = people.folds(options.folds)
    found: dict[str, list[Fold]] = {}
    half = "with-other" if options.other_half else "with"
    for title, name, beside in (("with unknown/", half, first), ("without", "without", [])):
        folds = []
        for number, fold in enumerate(parts, 1):
            path = runs / f"{name}-{number}"
            if not finished(path):
                photos = work / path.name
                deal(people, np.setdiff1d(np.arange(len(people.paths)), fold), beside, photos)
                say(f"{title}, fold {number} of {len(parts)}: training")
                train(
                    loaded,
                    TrainOptions(photos=photos, out=runs, name=path.name, overwrite=True, threads=options.threads),
                    console,
                )
            model = open_model(path / BEST, open_device("cpu", options.threads).backend, options.threads)
            check(model, loaded, people, fold, path)
            folds.append(judge(model, people, fold, others.pixels, rows))
        found[title] = folds
    report(found, loaded, len(people.paths), len(first), len(rows), len(second) - len(rows))
    draw(found, options.output)


def say(text: str) -> None:
    print(text, file=sys.stderr)


def finished(run: Path) -> bool:
    """Whether there is a run that has come to its end."""
    return (run / "figures.json").is_file() and (run / BEST).is_file()


def deal(people: Dataset, chosen: np.ndarray, strangers: Sequence[Path], folder: Path) -> None:
    """A folder for ``facecnn train``: photos of people, and strangers' in unknown/."""
    places = [(Path(people.files[number]), folder / people.paths[number]) for number in chosen.tolist()]
    places += [(path, folder / UNKNOWN / path.name) for path in strangers]
    for source, place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            place.symlink_to(source.absolute())
        except OSError:  # where links need a privilege
            shutil.copyfile(source, place)


def check(model: Model, loaded: Loaded, people: Dataset, fold: np.ndarray, path: Path) -> None:
    """A run that was kept must be of these settings and photos. Raises UsageError."""
    expected = replace(loaded.settings, photos=replace(loaded.settings.photos, folder=None))
    if model.settings != expected:
        raise UsageError(f"{shown(path)}: a run with other settings: delete it, or name another folder to --keep")
    known = model.trained_on & {people.sha256[number] for number in fold.tolist()}
    if known or model.recogniser.people != people.people:
        raise UsageError(f"{shown(path)}: a run with other photos: delete it, or name another folder to --keep")


def judge(model: Model, people: Dataset, fold: np.ndarray, pixels: np.ndarray, rows: np.ndarray) -> Fold:
    """Score the photos of a fold, and those of strangers: ``rows`` of ``pixels``."""
    recogniser = model.recogniser
    calibration, count = recogniser.calibration, len(people.people)
    trained = np.array([digest in model.trained_on for digest in people.sha256])
    own = look(model, people.pixels, people.rows[trained])
    labels = people.labels[trained]
    known, strange = look(model, people.pixels, people.rows[fold]), look(model, pixels, rows)
    means = np.stack([own.features[labels == person].mean(axis=0) for person in range(count)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)

    def energy(looks: Looks) -> np.ndarray:
        return np.asarray(-np.log(np.exp(looks.logits[:, :count]).sum(axis=1)))

    def far_from_photos(looks: Looks) -> np.ndarray:
        nearest = np.sort(looks.features @ own.features.T, axis=1)[:, -NEAREST:]
        return np.asarray(1 - nearest.mean(axis=1))

    by_name = {
        CHOSEN: lambda looks: unknown_score(calibration.apply(looks.log_probabilities, count), count),
        "largest logit": lambda looks: -looks.logits[:, :count].max(axis=1),
        "energy": energy,
        "class mean (cosine)": lambda looks: 1 - (looks.features @ means.T).max(axis=1),
        f"{NEAREST} nearest training photos": far_from_photos,
    }
    threshold = recogniser.threshold("auto")
    return Fold(
        scores={name: (score(known), score(strange)) for name, score in by_name.items()},
        known=recogniser.answers_from(known.log_probabilities, threshold),
        labels=people.labels[fold],
        strange=recogniser.answers_from(strange.log_probabilities, threshold),
        temperature=calibration.temperature,
        stranger_bias=calibration.stranger_bias,
        threshold=threshold,
    )


def look(model: Model, pixels: np.ndarray, rows: np.ndarray) -> Looks:
    """Photos ``rows`` (n,) of ``pixels`` in all their views."""
    recogniser = model.recogniser
    network, seen = recogniser.network, {"mirror": recogniser.mirror, "shift": recogniser.shift}
    last = len(network.stages) - 1
    logs, logits = np.zeros((2, len(rows), network.units))
    features = np.zeros((len(rows), int(np.prod(network.stages[last].shape))))
    feed = PhotoFeed(network.backend, pixels, rows, network.batch_size)
    for start, stop in passes(network, feed, recogniser.normalise, **seen):
        output = network.backend.to_host(network.output[: stop - start])
        logits[start:stop] += output
        logs[start:stop] += log_softmax(output)
        features[start:stop] += network.backend.to_host(network.context(last, stop - start).x).reshape(stop - start, -1)
    number = len(views_at_test_time(**seen))
    lengths = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return Looks(log_softmax(logs / number), logits / number, features / lengths)


def report(
    found: Mapping[str, Sequence[Fold]], loaded: Loaded, photos: int, trained: int, judged: int, faceless: int
) -> None:
    """Print both tables."""
    rate = loaded.settings.calibration.false_accept_rate
    print(
        f"{photos} photos of people in {len(next(iter(found.values())))} folds, {trained} of strangers in unknown/, "
        f"{judged} of others to judge by ({faceless} more can't be used, mostly for want of a face)\n"
    )
    comparison = []
    for title, folds in found.items():
        for name in folds[0].scores:
            areas = 100 * np.array([fold.auroc(name) for fold in folds])
            named = 100 * np.array([fold.named(name, rate) for fold in folds])
            comparison.append([title, name, spread(areas, 2), spread(named, 1)])
    print(table(comparison, ["training", "score", "AUROC %", f"named at {100 * rate:g} %"]))
    print()
    rows = []
    for title, folds in found.items():
        known = np.concatenate([fold.known.refused for fold in folds])
        strange = np.concatenate([fold.strange.refused for fold in folds])
        right = np.concatenate([fold.known.likeliest == fold.labels for fold in folds])
        confidences = np.concatenate([fold.known.confidences for fold in folds])
        errors = [scores.expected_calibration_error(confidences[~known], right[~known], bins) for bins in (10, 15)]
        sure = np.array([(fold.strangers_confidences > 0.99).sum() / len(fold.strange.refused) for fold in folds])
        highest = max((float(fold.strangers_confidences.max(initial=0.0)) for fold in folds), default=0.0)
        thresholds = [fold.threshold for fold in folds]
        rows.append(
            [
                title,
                f"{100 * right.mean():.1f} %",
                f"{100 * (~known & right).mean():.1f} % ({(~known & right).sum()} of {len(known)})",
                f"{100 * (~known).mean():.1f} % ({(~known).sum()} of {len(known)})",
                f"{100 * (~strange).mean():.1f} % ({(~strange).sum()} of {len(strange)})",
                f"{100 * sure.mean():.1f} % / {100 * sure.max():.1f} %",
                f"{highest:.4f}",
                " / ".join(f"{100 * (error or 0.0):.2f} %" for error in errors),
                spans([fold.temperature for fold in folds]),
                spans([fold.stranger_bias for fold in folds]),
                "none" if None in thresholds else spans([limit for limit in thresholds if limit is not None]),
            ]
        )
    titles = ["training", "closed-set accuracy", "named right", "people named", "strangers let in"]
    titles += ["sure strangers, all / worst", "highest", "ECE, 10 / 15 bins", "temperature", "bias"]
    print(table(rows, [*titles, "threshold"]))


def spread(values: np.ndarray, digits: int) -> str:
    return f"{values.mean():.{digits}f} ± {values.std():.{digits}f}"


def spans(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def draw(found: Mapping[str, Sequence[Fold]], path: Path) -> None:
    """For each training: where the scores of both lie, and what each score lets in for what it names."""
    figure = new_figure(11, 3.6 * len(found))
    axes = figure.subplots(len(found), 2, squeeze=False)
    for (title, folds), (left, right) in zip(found.items(), axes, strict=True):
        pairs = [fold.scores[CHOSEN] for fold in folds]
        odds = [log_odds(np.concatenate(side)) for side in zip(*pairs, strict=True)]
        low, high = min(map(np.min, odds)), max(map(np.max, odds))
        bins = np.linspace(low, max(high, low + 1), 50)
        for values, colour, label in zip(odds, (BLUE, ORANGE), ("people", "strangers"), strict=True):
            weights = np.full(len(values), 100 / len(values))
            left.hist(values, bins=bins, weights=weights, color=colour, alpha=0.6, label=label)
        for fold in folds:
            if fold.threshold is not None:
                (limit,) = log_odds(np.array([fold.threshold]))
                left.axvline(limit, color=GREY, linewidth=1)
        left.set(
            title=f"{title}: unknown-score", xlabel="log-odds (lines: the folds' thresholds)", ylabel="% of photos"
        )
        left.legend()
        for colour, name in zip(COLOURS, folds[0].scores, strict=True):
            let_in = np.linspace(0, 0.999, 500)
            right.plot(
                100 * let_in,
                100 * np.mean([[fold.named(name, share) for share in let_in] for fold in folds], axis=0),
                color=colour,
                label=name,
            )
        right.set(title="mean of the folds", xlabel="strangers let in, %", ylabel="people named, %", xlim=(0, 50))
        right.set_ylim(50, 101)
        right.legend(loc="lower right", fontsize=8)
    save(figure, path)


def log_odds(values: np.ndarray) -> np.ndarray:
    """Of scores between 0 and 1, whose ends are at 30 either way."""
    clipped = np.clip(values, 1e-13, 1 - 1e-13)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


if __name__ == "__main__":
    with errors_told():
        main()
