"""Fits ``facecnn.body.threshold`` to embeddings of people and strangers, and enrols people to test it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from facecnn.arrays import Array, Float64Array, Int64Array
from facecnn.body.threshold import SCALE, ThresholdFormula, less_rivals, strangers_score, unit
from facecnn.learning.scores import expected_calibration_error

PHOTOS = 1, 2, 3, 5, 10
"""Photos per person that the formula is fitted to."""
PEOPLE = 2, 5, 10, 20, 40, 80
"""Numbers of people that it is fitted to, as far as there are so many."""
RATES = 0.01, 0.02, 0.05
"""Shares of strangers that it is fitted to."""
DRAWS = 20
"""Random choices of people and photos for each of these."""
ROUNDS = 3

_GRID = np.arange(0.80, 1.0, 0.0005)
"""Thresholds at which strangers are counted."""
_RIVALS = np.concatenate([[0.0], np.geomspace(0.003, 0.3, 21)])
_SCALES = np.geomspace(30, 1000, 71)


@dataclass(frozen=True)
class Faces:
    """Embeddings of photos of people, or of strangers with one photo each."""

    embeddings: Float64Array
    """(n, 128)"""
    labels: Int64Array
    """(n,): the person of each."""

    def of(self, people: Array) -> Faces:
        """The photos of some people."""
        chosen = np.isin(self.labels, people)
        return Faces(self.embeddings[chosen], self.labels[chosen])

    @property
    def people(self) -> Int64Array:
        """The people's labels, ascending."""
        return np.unique(self.labels)

    def with_photos(self, least: int) -> list[int]:
        """The people who have at least so many photos."""
        labels, counts = np.unique(self.labels, return_counts=True)
        return [int(label) for label in labels[counts >= least]]

    def halves(self) -> tuple[Faces, Faces]:
        """The first, third ... person, and the second, fourth ..."""
        return self.of(self.people[::2]), self.of(self.people[1::2])


@dataclass(frozen=True)
class Enrolled:
    """Means of some people's training photos, and the photos left to judge by."""

    people: Int64Array
    """(p,): their labels, ascending."""
    means: Float64Array
    """(p, 128), of length 1."""
    counts: Int64Array
    """(p,): training photos."""
    training: Int64Array
    """Indices of all training photos."""
    left: Int64Array
    """Indices of these people's other photos."""

    def scores(self, embeddings: Array, few_photos: float) -> Float64Array:
        """(n, p) for embeddings (n, 128)."""
        return np.asarray(unit(embeddings) @ self.means.T + few_photos / self.counts)

    def owners(self, labels: Array) -> Int64Array:
        """(n,): index among ``people`` of labels (n,) that are all among them."""
        return np.searchsorted(self.people, labels)


def enrol(faces: Faces, people: Array, photos: Sequence[int] | int, random: np.random.Generator) -> Enrolled:
    """Train on randomly chosen photos of each person.

    Args:
        faces: all photos.
        people: the labels of the people to enrol.
        photos: how many of each, for all or in the order of ``people``; of a person with fewer, all.
        random: chooses.
    """
    people = np.sort(people)
    wanted = np.broadcast_to(photos, len(people)).tolist()
    chosen = [
        random.permutation(np.flatnonzero(faces.labels == person))[:count]
        for person, count in zip(people, wanted, strict=True)
    ]
    training = np.concatenate(chosen)
    left = np.setdiff1d(np.flatnonzero(np.isin(faces.labels, people)), training)
    means = unit(np.stack([faces.embeddings[own].sum(axis=0) for own in chosen]))
    return Enrolled(people, means, np.array([len(own) for own in chosen]), training, left)


def fit_formula(people: Faces, strangers: Faces, seed: int = 0) -> ThresholdFormula:
    """Fit the formula by least squares to the scores that shares of strangers exceed.

    Strangers are also the people themselves where they aren't enrolled; everybody counts as one, with however many
    photos. Since the term for few photos is part of the scores, it is found in rounds.
    """
    formula = ThresholdFormula(0.0, 0.0, 0.0, 0.0)
    for _ in range(ROUNDS):
        random = np.random.default_rng(seed)
        cases, limits = [], []
        for photos in PHOTOS:
            enough = people.with_photos(photos)
            for size in (size for size in PEOPLE if size <= len(enough)):
                choices = (enrol(people, random.permutation(enough)[:size], photos, random) for _ in range(DRAWS))
                curve = np.mean([named(people, strangers, choice, formula.few_photos) for choice in choices], axis=0)
                limits += np.interp(RATES, curve[::-1], _GRID[::-1]).tolist()
                cases += [(photos, size, rate) for rate in RATES]
        found = least_squares(np.array(cases), np.array(limits))
        formula = replace(found, few_photos=formula.few_photos + found.few_photos)
    return formula


def least_squares(cases: Array, limits: Array) -> ThresholdFormula:
    """Fit to limits (n,) for photos, people and share of strangers, (n, 3)."""
    photos, people, rates = cases.T
    columns = np.stack([np.ones(len(cases)), np.log10(people * 0.02 / rates), -1 / photos], axis=1)
    best, least = ThresholdFormula(0.0, 0.0, 0.0, 0.0), np.inf
    for rival in _RIVALS:
        target = limits + np.log1p(rival * (people - 1)) / SCALE
        solution = np.linalg.lstsq(columns, target)[0]
        error = float(((columns @ solution - target) ** 2).sum())
        if error < least:
            base, per_decade, few_photos = solution.tolist()
            best, least = ThresholdFormula(base, per_decade, float(rival), few_photos), error
    return best


def named(people: Faces, strangers: Faces, enrolled: Enrolled, few_photos: float) -> Float64Array:
    """Share of strangers that are named at each threshold of a grid, (thresholds,)."""
    others = ~np.isin(people.labels, enrolled.people)
    weights = np.concatenate([1 / np.bincount(people.labels)[people.labels[others]], np.ones(len(strangers.labels))])
    photos = np.concatenate([people.embeddings[others], strangers.embeddings])
    scores = less_rivals(enrolled.scores(photos, few_photos))
    return np.asarray(weights @ (scores[:, None] > _GRID) / weights.sum())


def trials(
    people: Faces, strangers: Faces, formula: ThresholdFormula, seed: int = 0
) -> Iterator[tuple[Float64Array, Int64Array]]:
    """Enrol 2 to 40 people with 1 to 5 photos, and judge as many of their other photos as strangers.

    Yields:
        Scores (n, people) less that of strangers, at the threshold for 2 % of them, and the true person (n,), or the
        number of people for strangers.
    """
    random = np.random.default_rng(seed)
    for photos in (1, 3, 5):
        enough = people.with_photos(photos + 1)
        for size in (size for size in PEOPLE if size <= min(40, len(enough))):
            for _ in range(DRAWS):
                enrolled = enrol(people, random.permutation(enough)[:size], photos, random)
                count = min(len(enrolled.left), len(strangers.labels))
                known = random.permutation(enrolled.left)[:count]
                strange = random.permutation(len(strangers.labels))[:count]
                judged = np.concatenate([people.embeddings[known], strangers.embeddings[strange]])
                scores = enrolled.scores(judged, formula.few_photos)
                scores -= strangers_score(formula.threshold(size, 0.02))
                yield scores, np.concatenate([enrolled.owners(people.labels[known]), np.full(count, size)])


def log_probabilities(scores: Array, scale: float) -> Float64Array:
    """(n, people + 1): the last is strangers', whose score is 0."""
    logits = np.concatenate([scale * scores, np.zeros((len(scores), 1))], axis=1)
    top = logits.max(axis=1, keepdims=True)
    return np.asarray(logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True)))


def fit_scale(people: Faces, strangers: Faces, formula: ThresholdFormula) -> float:
    """The scale with the highest likelihood, each trial counting once."""
    losses = np.zeros(len(_SCALES))
    for scores, truth in trials(people, strangers, formula):
        for number, scale in enumerate(_SCALES):
            losses[number] -= log_probabilities(scores, scale)[np.arange(len(truth)), truth].mean()
    return float(_SCALES[losses.argmin()])


def calibration_error(people: Faces, strangers: Faces, formula: ThresholdFormula, scale: float) -> float:
    """The expected calibration error of the likeliest answer, of a person or of strangers."""
    confidences, right = [], []
    for scores, truth in trials(people, strangers, formula):
        answers = log_probabilities(scores, scale)
        confidences.append(np.exp(answers.max(axis=1)))
        right.append(answers.argmax(axis=1) == truth)
    return expected_calibration_error(np.concatenate(confidences), np.concatenate(right)) or 0.0
