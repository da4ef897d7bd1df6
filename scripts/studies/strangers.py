"""How well are strangers told apart from the people, and is a confidence right as often as it says?

Of the strangers' photos, sorted by name, the first, third ... become the folder unknown/ beside the people's (with
--other-half the second, fourth ...); the others are for tests only. For each fold of the people, ``facecnn train``
trains on the other folds (and holds a part of them out, to set temperature and threshold), once with this unknown/ and
once without. The model is tested with the fold and the other half of the strangers, of which it has seen no photo.

Scores that are compared, all of which grow with strangeness: what the likeliest person leaves of the probability, which
facecnn uses; the largest of the people's logits, negated; the energy, minus the logarithm of the sum of their
exponentials (Liu et al. 2020); and, with the outputs of the last layer but one, one minus the cosine with the nearest
mean of a person's training photos, and with the three nearest training photos. "named at N %" is the share of the
people's photos that are named at a threshold, chosen afterwards for each fold, that lets N % of the strangers in, where
N is the config's false_accept_rate. Standard deviations are over the folds.

The second table shows the models' answers, at their own thresholds. "sure strangers": those named with a confidence
above 0.99, in all and in the worst fold. "highest": the largest confidence with which a stranger was named. ECE: the
expected calibration error of the people's photos that are named.

``--keep FOLDER`` keeps the trained runs, and uses those that are there instead of training again.
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

from common.command import add_config, at_least, exit_on_error, parser, say
from common.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, new_figure, save
from common.tables import percent, table
from facecnn.arrays import Array
from facecnn.config import Loaded, apply_overrides, load
from facecnn.errors import PhotoError, UsageError, shown
from facecnn.jobs.models import Model, open_model
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
from studies.album import CONSOLE, read_album

COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE)
NEAREST = 3
"""Training photos that a photo is compared with."""

ANSWERS = [
    *("training", "closed-set accuracy", "named right", "people named", "strangers let in"),
    *("sure strangers, all / worst", "highest", "ECE, 10 / 15 bins", "temperature", "bias", "threshold"),
]

CHOSEN = "what the likeliest person leaves"
"""The score that facecnn uses."""


@dataclass(frozen=True)
class Looks:
    """A network's outputs for n photos, each the mean over the views that an answer averages."""

    log_probabilities: Array
    """(n, outputs), uncalibrated."""
    logits: Array
    """(n, outputs)"""
    features: Array
    """(n, units): the last layer's input, with rows of length 1."""


@dataclass(frozen=True)
class Fold:
    """A model's results on the photos that test it."""

    scores: Mapping[str, tuple[Array, Array]]
    """Scores of the people's photos and of the strangers', by the score's name."""
    known: Answers
    """Answers to the people's photos."""
    labels: Array
    """(photos of people,)"""
    strange: Answers
    """Answers to the strangers' photos."""
    temperature: float
    stranger_bias: float
    threshold: float | None

    def auroc(self, name: str) -> float:
        known, strange = self.scores[name]
        area = scores.area_under_roc(strange, known)
        assert area is not None, "there are photos of both"
        return area

    def named(self, name: str, let_in: float) -> float:
        """Share of the people's photos that are named where at most this share of the strangers is."""
        known, strange = self.scores[name]
        return float((known < np.sort(strange)[int(let_in * len(strange))]).mean())

    @property
    def strangers_confidences(self) -> Array:
        """(strangers named,)"""
        return np.asarray(self.strange.confidences[~self.strange.refused])


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__, "strangers.png")
    arguments.add_argument("people", type=Path, help="a folder with one folder of photos per person")
    arguments.add_argument("strangers", type=Path, help="a folder of photos of other people")
    add_config(arguments)
    arguments.add_argument("--seed", type=at_least(0), help="of split, weights and order (default: the config's)")
    arguments.add_argument("--other-half", action="store_true", help="exchange the halves of the strangers")
    arguments.add_argument("--folds", type=at_least(2), default=5, help="(default: 5)")
    arguments.add_argument("--threads", type=at_least(1), help="(default: all)")
    arguments.add_argument("--keep", type=Path, metavar="FOLDER", help="for the trained runs")
    options = arguments.parse_args()
    overrides = {} if options.seed is None else {"--seed": ("train.seed", options.seed)}
    loaded = apply_overrides(load(options.config), options.set, overrides)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run(options, loaded, work, options.keep or work / "runs")


def run(options: Any, loaded: Loaded, work: Path, runs: Path) -> None:
    """Train what isn't there, test, print and draw."""
    settings = loaded.settings.photos
    people, finder = read_album(options.people, settings, options.threads)
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
                place = TrainOptions(photos=photos, out=runs, name=path.name, overwrite=True, threads=options.threads)
                train(loaded, place, CONSOLE)
            model = open_model(path / BEST, open_device("cpu", options.threads).backend, options.threads)
            check(model, loaded, people, fold, path)
            folds.append(judge(model, people, fold, others.pixels, rows))
        found[title] = folds
    print(
        f"{len(people.paths)} photos of people in {len(parts)} folds, {len(first)} of strangers in unknown/, "
        f"{len(rows)} of others to judge by ({len(second) - len(rows)} more can't be used, mostly for want of a face)\n"
    )
    rate = loaded.settings.calibration.false_accept_rate
    print(table(rows_of_scores(found, rate), ["training", "score", "AUROC %", f"named at {100 * rate:g} %"]) + "\n")
    print(table([row_of_answers(title, folds) for title, folds in found.items()], ANSWERS))
    draw(found, options.output)


def finished(run: Path) -> bool:
    """Whether there is a run that was trained to its end."""
    return (run / "figures.json").is_file() and (run / BEST).is_file()


def deal(people: Dataset, chosen: Array, strangers: Sequence[Path], folder: Path) -> None:
    """Make a folder for ``facecnn train``: photos of people, and of strangers in unknown/."""
    places = [(Path(people.files[number]), folder / people.paths[number]) for number in chosen.tolist()]
    places += [(path, folder / UNKNOWN / path.name) for path in strangers]
    for source, place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            place.symlink_to(source.absolute())
        except OSError:  # where links need a privilege
            shutil.copyfile(source, place)


def check(model: Model, loaded: Loaded, people: Dataset, fold: Array, path: Path) -> None:
    """Check that a run was trained with these settings and photos. Raises UsageError."""
    expected = replace(loaded.settings, photos=replace(loaded.settings.photos, folder=None))
    if model.settings != expected:
        raise UsageError(f"{shown(path)}: a run with other settings: delete it, or name another folder to --keep")
    known = model.trained_on & {people.sha256[number] for number in fold.tolist()}
    if known or model.recogniser.people != people.people:
        raise UsageError(f"{shown(path)}: a run with other photos: delete it, or name another folder to --keep")


def judge(model: Model, people: Dataset, fold: Array, pixels: Array, rows: Array) -> Fold:
    """Test a model with the people's photos of a fold, and with strangers': ``rows`` of ``pixels``."""
    recogniser = model.recogniser
    calibration, count = recogniser.calibration, len(people.people)
    trained = np.array([digest in model.trained_on for digest in people.sha256])
    own = look(model, people.pixels, people.rows[trained])
    labels = people.labels[trained]
    known, strange = look(model, people.pixels, people.rows[fold]), look(model, pixels, rows)
    means = np.stack([own.features[labels == person].mean(axis=0) for person in range(count)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)

    def energy(looks: Looks) -> Array:
        return np.asarray(-np.log(np.exp(looks.logits[:, :count]).sum(axis=1)))

    def far_from_photos(looks: Looks) -> Array:
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


def look(model: Model, pixels: Array, rows: Array) -> Looks:
    """Run photos ``rows`` (n,) of ``pixels`` through the network, in all views."""
    recogniser = model.recogniser
    network, mirror, shift = recogniser.network, recogniser.mirror, recogniser.shift
    last = len(network.stages) - 1
    logs, logits = np.zeros((2, len(rows), network.units))
    features = np.zeros((len(rows), int(np.prod(network.stages[last].shape))))
    feed = PhotoFeed(network.backend, pixels, rows, network.batch_size)
    for start, stop in passes(network, feed, recogniser.normalise, mirror=mirror, shift=shift):
        output = network.backend.to_host(network.output[: stop - start])
        logits[start:stop] += output
        logs[start:stop] += log_softmax(output)
        features[start:stop] += network.backend.to_host(network.context(last, stop - start).x).reshape(stop - start, -1)
    number = len(views_at_test_time(mirror, shift))
    lengths = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return Looks(log_softmax(logs / number), logits / number, features / lengths)


def rows_of_scores(found: Mapping[str, Sequence[Fold]], rate: float) -> list[list[object]]:
    """How well each score separates strangers from people."""
    rows: list[list[object]] = []
    for title, folds in found.items():
        for name in folds[0].scores:
            areas = 100 * np.array([fold.auroc(name) for fold in folds])
            named = 100 * np.array([fold.named(name, rate) for fold in folds])
            rows.append([title, name, spread(areas, 2), spread(named, 1)])
    return rows


def row_of_answers(title: str, folds: Sequence[Fold]) -> list[object]:
    """What models answer, over all folds."""
    known = np.concatenate([fold.known.refused for fold in folds])
    strange = np.concatenate([fold.strange.refused for fold in folds])
    right = np.concatenate([fold.known.likeliest == fold.labels for fold in folds])
    confidences = np.concatenate([fold.known.confidences for fold in folds])
    errors = [scores.expected_calibration_error(confidences[~known], right[~known], bins) for bins in (10, 15)]
    sure = np.array([(fold.strangers_confidences > 0.99).sum() / len(fold.strange.refused) for fold in folds])
    thresholds = [fold.threshold for fold in folds]
    return [
        title,
        percent(right.mean()),
        *(f"{percent(of.mean())} ({of.sum()} of {len(of)})" for of in (~known & right, ~known, ~strange)),
        f"{percent(sure.mean())} / {percent(sure.max())}",
        f"{max(float(fold.strangers_confidences.max(initial=0.0)) for fold in folds):.4f}",
        " / ".join(f"{100 * (error or 0.0):.2f} %" for error in errors),
        spans([fold.temperature for fold in folds]),
        spans([fold.stranger_bias for fold in folds]),
        "none" if None in thresholds else spans([limit for limit in thresholds if limit is not None]),
    ]


def spread(values: Array, digits: int) -> str:
    return f"{values.mean():.{digits}f} ± {values.std():.{digits}f}"


def spans(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def draw(found: Mapping[str, Sequence[Fold]], path: Path) -> None:
    """Draw for each way of training the distribution of scores, and with each score, how many people are named over how
    many strangers are let in."""
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


def log_odds(values: Array) -> Array:
    """Log-odds of scores between 0 and 1, within ± 30."""
    clipped = np.clip(values, 1e-13, 1 - 1e-13)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


if __name__ == "__main__":
    main()
