"""How similar a face must be to be named: a threshold for a given false-accept rate, set without photos of strangers.

A face's score for a person is the cosine between its embedding and the mean of the person's, plus ``FEW_PHOTOS`` /
(number of the person's photos), because a mean of few photos is less similar to everybody. Strangers have a constant
score. Softmax over ``SCALE`` times all scores gives probabilities, and a face is named if its unknown-score (one minus
the likeliest person's probability) is low enough for the threshold.

A stranger who resembles somebody often resembles several people. That is why the strangers' score is at most
``STRANGERS``, even where the threshold is higher: so the unknown-score also counts the rivals of the likeliest person
that are below the threshold. Among 80 people learned from one photo each, 89 % of their other photos were named right
instead of 85 %, at the same 2 % of strangers.

The constants were fitted to 943 photos of 380 people of Labeled Faces in the Wild, by ``scripts/studies/few_photos.py``
(docs/BODY.md). They belong to embeddings of dlib's face network, each averaged over a photo and its mirror image.
"""

from dataclasses import dataclass
from math import exp, floor, log1p, log10

import numpy as np

from facecnn.arrays import Array, Float64Array

SCALE = 200.0
"""Inverse temperature: the scores are multiplied by it, so that their softmax gives calibrated probabilities."""

STRANGERS = 0.93
"""Highest score of strangers in the softmax."""

OWN_REFUSED = 0.01
"""Share of the people's own photos that may be refused so that fewer strangers are named."""

LEAST_PHOTOS = 50
"""Photos that each person must have before the threshold is raised: it would refuse a person with fewer too often."""

STRICTEST = 0.1
"""How far the people's own photos may raise the threshold: to that of this fraction of the requested false-accept rate.
Photos of a single day are so alike that otherwise those of any other day would be refused."""


@dataclass(frozen=True)
class ThresholdFormula:
    """Score, less rivals, that a given share of strangers exceeds among N people.

    Among twice as many people, twice as many strangers find somebody whom they resemble: the score before rivals are
    counted depends on N / share only. What the rivals cost grows with their number.
    """

    base: float
    """For one person, and one stranger in 50."""
    per_decade: float
    """Added for ten times as many people, or a tenth of the strangers."""
    rival: float
    """What a person adds as a rival, relative to the strangers' output, for a stranger at the threshold."""
    few_photos: float
    """Divided by the number of a person's photos, and added to the cosine with their mean."""

    def threshold(self, people: int, false_accept_rate: float) -> float:
        """The score for ``people`` people that a share ``false_accept_rate`` (0 to 1) of strangers exceeds."""
        rivals = log1p(self.rival * (people - 1)) / SCALE
        return self.base + self.per_decade * log10(people * 0.02 / false_accept_rate) - rivals


FORMULA = ThresholdFormula(base=0.9194, per_decade=0.0189, rival=0.0475, few_photos=0.0133)

FEW_PHOTOS = FORMULA.few_photos


def strangers_score(threshold: float) -> float:
    """The strangers' score in the softmax."""
    return min(threshold, STRANGERS)


def highest_unknown_score(threshold: float) -> float:
    """The unknown-score above which a face is refused: 0.5 unless the threshold is above ``STRANGERS``."""
    return 1 / (1 + exp(SCALE * (threshold - strangers_score(threshold))))


def less_rivals(scores: Array, strangers: float = STRANGERS) -> Float64Array:
    """(n,): the likeliest person's score, lowered by similar ones of others.

    With ``strangers_score(threshold)`` it reaches the threshold exactly where the unknown-score doesn't exceed
    ``highest_unknown_score(threshold)``.

    ``scores``: (n, people); ``strangers``: the strangers' score.
    """
    ascending = np.sort(scores, axis=1)
    return _lowered(ascending[:, -1], ascending[:, :-1], strangers)


def stranger_threshold(
    embeddings: Array, labels: Array, false_accept_rate: float, formula: ThresholdFormula = FORMULA
) -> float:
    """Set the score, less rivals, that a face must reach to be named; see ``highest_unknown_score``.

    It is the formula's. If everybody has ``LEAST_PHOTOS``, it is raised to where ``OWN_REFUSED`` of the photos would be
    refused, each judged by the others of its person, but at most to the formula's for ``STRICTEST`` times as many
    strangers. With fewer than 99 photos, one photo would be more than that share, so nothing is raised.

    Args:
        embeddings: (n, 128) of the people's training photos, of any length.
        labels: (n,) int, the person of each.
        false_accept_rate: share of strangers that may be named, above 0 and below 1.
        formula: used in place of the one fitted to all photos, to test that.
    """
    counts = np.unique(labels, return_counts=True)[1]
    people = len(counts)
    asked = formula.threshold(people, false_accept_rate)
    refused = floor(OWN_REFUSED * (len(labels) + 1))
    if not refused or counts.min() < LEAST_PHOTOS:
        return asked
    own = np.sort(leave_one_out(embeddings, labels, formula.few_photos))
    strictest = formula.threshold(people, STRICTEST * false_accept_rate)
    return float(np.clip(own[refused - 1], asked, strictest))


def leave_one_out(embeddings: Array, labels: Array, few_photos: float = FEW_PHOTOS) -> Float64Array:
    """Each photo's score for its own person by the mean of that person's other photos, lowered by rivals.

    Args:
        embeddings: (n, 128), of any length.
        labels: (n,) int. Photos of people with a single one are left out.
        few_photos: divided by the number of photos that make a mean, and added.

    Returns:
        (photos of people with two or more,), ordered by person.
    """
    people = np.unique(labels)
    vectors = np.asarray(embeddings, np.float64)
    sums = np.stack([vectors[labels == person].sum(axis=0) for person in people])
    counts = np.array([(labels == person).sum() for person in people])
    directions = unit(sums)
    found = [np.empty(0)]
    for index in np.flatnonzero(counts > 1).tolist():
        photos = vectors[labels == people[index]]
        scores = unit(photos) @ directions.T + few_photos / counts
        others = (unit(photos) * unit(sums[index] - photos)).sum(axis=1) + few_photos / (counts[index] - 1)
        found.append(_lowered(others, np.delete(scores, index, axis=1), STRANGERS))
    return np.concatenate(found)


def _lowered(scores: Array, rivals: Array, strangers: float) -> Float64Array:
    """Scores (n,) less what their rivals' scores (n, others) cost."""
    return np.asarray(scores - np.log1p(np.exp(SCALE * (rivals - strangers)).sum(axis=1)) / SCALE)


def unit(vectors: Array) -> Float64Array:
    """Vectors (n, d), each divided by its length; zeros stay zeros."""
    vectors = np.asarray(vectors, np.float64)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
