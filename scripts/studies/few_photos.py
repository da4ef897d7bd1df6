"""How well does an embedding that was trained on others recognise people from a few photos, and refuse strangers?

PEOPLE is a folder with one folder of photos per person, STRANGERS one of photos of different people. "photos" are those
of a person that are learned from; the people's other photos are the test. Choices are random, but the same for
everything that is compared.

The constants of facecnn/body/threshold.py are fitted to the first, third ... of the people and of the strangers, and
judged by the others, then the other way round. The first table shows them; those fitted to all belong into the module.
ECE: the expected calibration error of the likeliest answer, among as many strangers as known faces.

The second table is of the threshold for 2 % of strangers, the third of thresholds for other shares; each number is the
mean over both halves, or one for each. Where all people are enrolled, half of them belong to the fit. "named right" and
"refused" are of the people's own photos.

The fourth table: all people, 20 choices of their photos. "means" is facecnn's way, "largest score" the same without
counting rivals, "nearest" one nearest neighbour with dlib's own crops and embeddings (if dlib is installed). "named
right at 2 %" takes the threshold, set afterwards in each choice, that lets 2 % of the strangers in. "below": in how
many choices means did worse than nearest, by accuracy, AUROC and named right.

The fifth table, with ``--folds-of ALBUM``: five folds of an album with many photos of each person, whose own photos
raise the threshold; with the module's constants, and with those of both halves, each judged by the other half of the
strangers.

``--keep FILE`` keeps the embeddings (.npz), and uses those that are there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import at_least, exit_on_error, parser, say
from common.tables import percent, table
from facecnn.arrays import Array, Float64Array
from facecnn.body.threshold import (
    FORMULA,
    SCALE,
    ThresholdFormula,
    less_rivals,
    stranger_threshold,
    strangers_score,
    unit,
)
from facecnn.errors import UsageError, shown
from facecnn.learning.scores import area_under_roc
from studies.embedded_album import NO_DLIB, EmbeddedAlbum, embed_people, embed_strangers, read, write
from studies.threshold_fit import Enrolled, Faces, calibration_error, enrol, fit_formula, fit_scale

RATE = 0.02
OTHER_RATES = 0.005, 0.01, 0.02, 0.05
PHOTOS = 1, 3, 5, 10
PEOPLE = 2, 5, 10, 20, 40
FEW = 1, 3, 5
FOLDS = 5


@dataclass(frozen=True)
class Half:
    """Constants, and the faces that they weren't fitted to."""

    formula: ThresholdFormula
    scale: float
    people: Faces
    strangers: Faces


@dataclass(frozen=True)
class Judged:
    """Shares of 1 in one test or the means of several."""

    strangers_named: float
    named_right: float
    refused: float
    """Of the people's own photos."""


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("people", type=Path, help="a folder with one folder of photos per person")
    arguments.add_argument("strangers", type=Path, help="a folder of photos of other people")
    arguments.add_argument("--folds-of", type=Path, metavar="ALBUM", help="a folder like PEOPLE with many photos each")
    arguments.add_argument("--draws", type=at_least(1), default=20, help="choices of photos (default: 20)")
    arguments.add_argument("--threads", type=at_least(1), help="(default: all)")
    arguments.add_argument("--keep", type=Path, metavar="FILE", help="for the embeddings")
    options = arguments.parse_args()
    albums = embedded(options)
    people, strangers = faces_of(albums["people"]), faces_of(albums["strangers"])
    if min(len(people.people), len(strangers.people)) < 4:
        raise UsageError(f"{shown(options.people)}: four people and four strangers at least are needed to halve them")
    halves = fit_halves(people, strangers)
    print(table(rows_of_constants(people, strangers, halves), ["fitted to", *CONSTANTS]) + "\n")
    print(table(rows_of_thresholds(people, halves, options.draws), THRESHOLD_COLUMNS) + "\n")
    print(table(rows_of_rates(people, halves, options.draws), RATE_COLUMNS) + "\n")
    print(table(rows_of_comparison(albums["people"], albums["strangers"], options.draws), COMPARISON_COLUMNS))
    if "folds" in albums:
        print("\n" + table(rows_of_folds(albums["folds"], strangers, halves), FOLD_COLUMNS))


def embedded(options: Any) -> dict[str, EmbeddedAlbum]:
    """The albums' embeddings: kept ones, or else new ones."""
    if options.keep is not None and options.keep.is_file():
        return read(options.keep)
    albums = {
        "people": embed_people(options.people, FOLDS, options.threads),
        "strangers": embed_strangers(options.strangers, options.threads),
    }
    if options.folds_of is not None:
        albums["folds"] = embed_people(options.folds_of, FOLDS, options.threads)
        if albums["folds"].fold.min() < 0:
            raise UsageError(f"{shown(options.folds_of)}: at least {FOLDS} photos of each person are needed for folds")
    if options.keep is not None:
        write(options.keep, albums)
    return albums


def faces_of(album: EmbeddedAlbum) -> Faces:
    return Faces(album.embeddings.astype(np.float64), album.labels)


def fit_halves(people: Faces, strangers: Faces) -> list[Half]:
    """Fit constants to each half of people and strangers, to be judged by the other."""
    halves = list(zip(people.halves(), strangers.halves(), strict=True))
    found = []
    for own, other in (halves, halves[::-1]):
        formula = fit_formula(*own)
        found.append(Half(formula, fit_scale(*own, formula), *other))
    return found


CONSTANTS = ("base", "per decade", "rival", "few photos", "scale", "ECE on the others")


def rows_of_constants(people: Faces, strangers: Faces, halves: Sequence[Half]) -> list[list[object]]:
    rows: list[list[object]] = []
    for title, half in zip(("one half", "the other half"), halves, strict=True):
        error = calibration_error(half.people, half.strangers, half.formula, half.scale)
        rows.append([title, *constants(half.formula, half.scale), f"{100 * error:.2f} %"])
    formula = fit_formula(people, strangers)
    return [
        *rows,
        ["all", *constants(formula, fit_scale(people, strangers, formula)), "-"],
        ["(the module)", *constants(FORMULA, SCALE), "-"],
    ]


def constants(formula: ThresholdFormula, scale: float) -> list[str]:
    return [f"{value:.4f}" for value in astuple(formula)] + [f"{scale:.0f}"]


def judge(half: Half, enrolled: Enrolled, people: Faces, threshold: float) -> Judged:
    """Judge enrolled people with their photos that are left, and with the half's strangers."""
    strange = enrolled.scores(half.strangers.embeddings, half.formula.few_photos)
    known = enrolled.scores(people.embeddings[enrolled.left], half.formula.few_photos)
    is_named = less_rivals(known, strangers_score(threshold)) >= threshold
    right = known.argmax(axis=1) == enrolled.owners(people.labels[enrolled.left])
    let_in = less_rivals(strange, strangers_score(threshold)) >= threshold
    return Judged(float(let_in.mean()), share(is_named & right), share(~is_named))


def share(of: Array) -> float:
    return float(of.mean()) if len(of) else np.nan


def mean(tests: Sequence[Judged]) -> Judged:
    """Means of each figure; without tests that have none."""
    return Judged(*np.nanmean([(test.strangers_named, test.named_right, test.refused) for test in tests], axis=0))


def with_formula(half: Half, people: Faces, photos: int, size: int, rate: float, draws: int) -> Judged | None:
    """Enrol ``size`` people, with so many photos each, and judge the formula; None if there aren't enough people."""
    random = np.random.default_rng([photos, size])
    enough = people.with_photos(photos + (photos > 5))
    if len(enough) < size:
        return None
    threshold = half.formula.threshold(size, rate)
    choices = (enrol(people, random.permutation(enough)[:size], photos, random) for _ in range(draws))
    return mean([judge(half, enrolled, people, threshold) for enrolled in choices])


def settings(people: Faces, halves: Sequence[Half]) -> Iterator[tuple[int, int, list[Faces]]]:
    """Numbers of photos and people, and the people of each half; all of them for their own number."""
    for photos in PHOTOS:
        for size in (*PEOPLE, len(people.people)):
            yield photos, size, [people] * 2 if size == len(people.people) else [half.people for half in halves]


THRESHOLD_COLUMNS = ("photos", "people", "strangers named", "each half", "named right", "refused")


def rows_of_thresholds(people: Faces, halves: Sequence[Half], draws: int) -> list[list[object]]:
    rows: list[list[object]] = []
    for photos, size, among in settings(people, halves):
        tests = [with_formula(half, own, photos, size, RATE, draws) for half, own in zip(halves, among, strict=True)]
        found = [test for test in tests if test is not None]
        if len(found) == len(tests):
            both = mean(found)
            each = ", ".join(percent(test.strangers_named) for test in found)
            figures = (both.strangers_named, both.named_right, both.refused)
            named, right, refused = map(percent, figures)
            rows.append([photos, size, named, each, right, refused])
    return rows


RATE_COLUMNS = ("asked for", "strangers named", "lowest", "highest", "named right")


def rows_of_rates(people: Faces, halves: Sequence[Half], draws: int) -> list[list[object]]:
    """The formula for other shares of strangers, over all numbers of photos and people."""
    rows: list[list[object]] = []
    for rate in OTHER_RATES:
        found = []
        for photos, size, among in settings(people, halves):
            tests = [
                with_formula(half, own, photos, size, rate, draws) for half, own in zip(halves, among, strict=True)
            ]
            done = [test for test in tests if test is not None]
            found += [mean(done)] if len(done) == len(tests) else []
        named = [test.strangers_named for test in found]
        shares = (mean(found).strangers_named, min(named), max(named), mean(found).named_right)
        rows.append([f"{100 * rate:g} %", *map(percent, shares)])
    return rows


COMPARISON_COLUMNS = ("photos", "way", "accuracy", "AUROC", f"named right at {100 * RATE:g} %", "below")


def rows_of_comparison(people: EmbeddedAlbum, strangers: EmbeddedAlbum, draws: int) -> list[list[object]]:
    """All people, with the same choices of photos for each way."""
    if not len(people.by_dlib):
        say(NO_DLIB)
    rows: list[list[object]] = []
    for photos in FEW:
        choices = [
            enrol(faces_of(people), np.unique(people.labels), photos, np.random.default_rng(seed))
            for seed in range(draws)
        ]
        found = [by_means(people, strangers, enrolled) for enrolled in choices]
        values = {"means": [own for own, _ in found], "means, largest score": [largest for _, largest in found]}
        if len(people.by_dlib):
            values["nearest"] = [by_nearest(people, strangers, enrolled) for enrolled in choices]
        for way, results in values.items():
            cells = [f"{100 * value:.2f} %" for value in np.mean(results, axis=0)]
            below = "-"
            if way == "means" and "nearest" in values:
                below = ", ".join(map(str, (np.array(results) < np.array(values["nearest"])).sum(axis=0)))
            rows.append([photos, way, *cells, below])
    return rows


Figures = tuple[float, float, float]


def by_means(people: EmbeddedAlbum, strangers: EmbeddedAlbum, enrolled: Enrolled) -> tuple[Figures, Figures]:
    """Figures of facecnn's way, with rivals counted and not."""
    known = enrolled.scores(people.embeddings[enrolled.left], FORMULA.few_photos)
    strange = enrolled.scores(strangers.embeddings, FORMULA.few_photos)
    right = enrolled.people[known.argmax(axis=1)] == people.labels[enrolled.left]
    return (
        figures(right, less_rivals(known), less_rivals(strange)),
        figures(right, known.max(axis=1), strange.max(axis=1)),
    )


def by_nearest(people: EmbeddedAlbum, strangers: EmbeddedAlbum, enrolled: Enrolled) -> Figures:
    """Figures of one nearest neighbour with dlib's embeddings."""
    references = people.by_dlib[enrolled.training]
    known = distances(people.by_dlib[enrolled.left], references)
    strange = distances(strangers.by_dlib, references)
    right = people.labels[enrolled.training][known.argmin(axis=1)] == people.labels[enrolled.left]
    return figures(right, -known.min(axis=1), -strange.min(axis=1))


def figures(right: Array, known: Float64Array, strange: Float64Array) -> Figures:
    """Accuracy, area under the ROC curve, and share named right at RATE, of faces with these scores."""
    limit = np.sort(strange)[::-1][int(RATE * len(strange))]
    return float(right.mean()), area_under_roc(known, strange) or 0.0, float((right & (known > limit)).mean())


def distances(one: Array, other: Array) -> Float64Array:
    """Euclidean distances (n, m) of embeddings (n, 128) and (m, 128)."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    return np.asarray(np.sqrt(np.maximum(squares, 0)))


FOLD_COLUMNS = ("constants", "threshold", "accuracy", "AUROC", "strangers named", "worst fold", "refused")


def rows_of_folds(album: EmbeddedAlbum, strangers: Faces, halves: Sequence[Half]) -> list[list[object]]:
    """Folds of an album with many photos of each person."""
    people = faces_of(album)
    module = Half(FORMULA, SCALE, people, strangers)
    rows: list[list[object]] = []
    for title, half in zip(("the module's", "one half's", "the other half's"), (module, *halves), strict=True):
        limits, right, areas, tests = [], [], [], []
        for fold in range(FOLDS):
            training, left = np.flatnonzero(album.fold != fold), np.flatnonzero(album.fold == fold)
            enrolled = enrol_all(people, training, left)
            own = people.embeddings[training], people.labels[training]
            limits.append(stranger_threshold(*own, RATE, half.formula))
            known = enrolled.scores(people.embeddings[left], half.formula.few_photos)
            strange = enrolled.scores(half.strangers.embeddings, half.formula.few_photos)
            right.append(known.argmax(axis=1) == enrolled.owners(people.labels[left]))
            areas.append(area_under_roc(less_rivals(known), less_rivals(strange)) or 0.0)
            tests.append(judge(half, enrolled, people, limits[-1]))
        both = mean(tests)
        shares = (both.strangers_named, max(test.strangers_named for test in tests), both.refused)
        accuracy = f"{100 * np.concatenate(right).mean():.2f} %"
        cells = [accuracy, f"{np.mean(areas):.4f}", *(f"{100 * value:.2f} %" for value in shares)]
        rows.append([title, f"{min(limits):.4f} to {max(limits):.4f}", *cells])
    return rows


def enrol_all(people: Faces, training: Array, left: Array) -> Enrolled:
    """Train on given photos."""
    owners = people.labels[training]
    means = unit(np.stack([people.embeddings[training[owners == person]].sum(axis=0) for person in people.people]))
    counts = np.array([(owners == person).sum() for person in people.people])
    return Enrolled(people.people, means, counts, training, left)


if __name__ == "__main__":
    main()
