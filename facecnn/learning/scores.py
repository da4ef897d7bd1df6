"""Scores of answers, computed from probabilities and labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, lgamma, log

import numpy as np

from facecnn.arrays import Array, BoolArray, Float64Array, Int64Array

MOST_PEOPLE = 1_000
"""With more people, results don't have a number for each person and face, and for each pair of people, but only for the
likeliest people, and for the pairs that occurred."""

LISTED = 100
"""The number of likeliest people listed for a face, where there are more than ``MOST_PEOPLE``."""


def over_people(log_probabilities: Array, people: int) -> Float64Array:
    """Probabilities (N, people) of the first outputs, normalised to sum to 1, from logarithms (N, outputs)."""
    chosen = log_probabilities[:, :people]
    exponentials = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Likely:
    """How likely each person is in each of n faces, or, of many people, each of the likeliest."""

    probabilities: Float64Array
    """(n, people), each row sums to 1. Where ``listed`` isn't None, (n, listed) of these people only."""
    listed: Int64Array | None
    """(n, listed): the likeliest people of each face, the likeliest first; None where everybody has a probability."""
    first: Int64Array
    """(n,): the likeliest person."""

    @classmethod
    def of(cls, probabilities: Float64Array, most: int | None = None) -> Likely:
        """From probabilities (n, people).

        ``most``: people that are listed; None: all up to ``MOST_PEOPLE``, else ``LISTED``.
        """
        people = probabilities.shape[1]
        if most is None:
            most = people if people <= MOST_PEOPLE else LISTED
        first = np.asarray(probabilities.argmax(axis=1))
        if most >= people:
            return cls(probabilities, None, first)
        listed = np.argpartition(-probabilities, most - 1, axis=1)[:, :most]
        listed.sort(axis=1)  # so that of equal ones the first comes first
        order = np.argsort(-np.take_along_axis(probabilities, listed, axis=1), axis=1, kind="stable")
        listed = np.take_along_axis(listed, order, axis=1)
        return cls(np.take_along_axis(probabilities, listed, axis=1), listed, first)

    @classmethod
    def joined(cls, parts: Sequence[Likely]) -> Likely:
        """The probabilities of all parts, of which there must be one or more, one after another."""
        listed = [part.listed for part in parts if part.listed is not None]
        return cls(
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate(listed) if listed else None,
            np.concatenate([part.first for part in parts]),
        )

    def among(self, chosen: BoolArray) -> Likely:
        """The probabilities of the faces in the mask ``chosen`` (n,)."""
        return Likely(
            self.probabilities[chosen], None if self.listed is None else self.listed[chosen], self.first[chosen]
        )

    def named(self, people: Sequence[str]) -> Iterator[dict[str, float]]:
        """Each face's probabilities by name."""
        if self.listed is None:
            for row in self.probabilities.tolist():
                yield dict(zip(people, row, strict=True))
            return
        for row, numbers in zip(self.probabilities.tolist(), self.listed.tolist(), strict=True):
            yield {people[number]: value for number, value in zip(numbers, row, strict=True)}


def losses_and_hits(blocks: Iterable[Array], labels: Array) -> tuple[Float64Array, BoolArray]:
    """Each photo's loss, and whether its likeliest output is its own: (n,) each.

    Args:
        blocks: log-probabilities (photos, outputs) of successive photos, n in all.
        labels: (n,) outputs.
    """
    losses, right = np.zeros(len(labels)), np.zeros(len(labels), bool)
    start = 0
    for answers in blocks:
        part = slice(start, start + len(answers))
        losses[part] = 0.0 - answers[np.arange(len(answers)), labels[part]]  # not -0.0
        right[part] = answers.argmax(axis=1) == labels[part]
        start = part.stop
    return losses, right


@dataclass(frozen=True)
class Confusion:
    """How often each person's photos got each answer: only the pairs that occurred, few even with many people."""

    people: int
    columns: int
    """Number of possible answers: the people, and maybe others that name nobody, such as refusals."""
    truth: Int64Array
    """(pairs,): index of a person; ascending."""
    answer: Int64Array
    """(pairs,): index of an answer; ascending for each person."""
    photos: Int64Array
    """(pairs,): number of photos, at least 1."""

    @classmethod
    def of(cls, labels: Array, answers: Array, people: int, columns: int | None = None) -> Confusion:
        """Count photos by person, ``labels`` (n,), and ``answers`` (n,); ``columns``: as many as people by default."""
        columns = people if columns is None else columns
        pairs, photos = np.unique(np.asarray(labels, np.int64) * columns + answers, return_counts=True)
        return cls(people, columns, pairs // columns, pairs % columns, photos.astype(np.int64))

    def matrix(self) -> Int64Array:
        """(people, columns): rows are the truth, columns the answers."""
        matrix = np.zeros((self.people, self.columns), np.int64)
        matrix[self.truth, self.answer] = self.photos
        return matrix

    @property
    def support(self) -> Int64Array:
        """(people,): number of each person's photos."""
        return _sums(self.truth, self.photos, self.people)

    @property
    def named(self) -> Int64Array:
        """(columns,): number of photos that got each answer."""
        return _sums(self.answer, self.photos, self.columns)

    @property
    def right(self) -> Int64Array:
        """(people,): number of each person's photos that got the right name."""
        right = self.truth == self.answer
        return _sums(self.truth[right], self.photos[right], self.people)

    def answered(self, column: int) -> Int64Array:
        """(people,): number of each person's photos that got this answer."""
        chosen = self.answer == column
        return _sums(self.truth[chosen], self.photos[chosen], self.people)

    def wrong_pairs(self) -> list[tuple[int, int, int]]:
        """Person, other person that was named, and number of photos; the most frequent first."""
        wrong = (self.truth != self.answer) & (self.answer < self.people)
        order = np.argsort(-self.photos[wrong], kind="stable")
        columns = (self.truth[wrong][order], self.answer[wrong][order], self.photos[wrong][order])
        return list(zip(*(column.tolist() for column in columns), strict=True))


def _sums(places: Int64Array, values: Int64Array, length: int) -> Int64Array:
    sums = np.zeros(length, np.int64)
    np.add.at(sums, places, values)
    return sums


def per_class(confusion: Confusion) -> list[dict[str, float | int | None]]:
    """Precision, recall, F1 and support of each person; None for a division by zero."""
    counts = (confusion.right, confusion.named[: confusion.people], confusion.support)
    return [
        {
            "precision": right / said if said else None,
            "recall": right / true if true else None,
            "f1": 2 * right / (said + true) if said + true else None,
            "support": true,
        }
        for right, said, true in zip(*(column.tolist() for column in counts), strict=True)
    ]


def balanced_accuracy(confusion: Confusion) -> float | None:
    """Mean recall of the people who have photos, None if nobody has."""
    support = confusion.support
    if not support.any():
        return None
    return float((confusion.right[support > 0] / support[support > 0]).mean())


def margins(answers: Array, labels: Array) -> Float64Array:
    """(N,): lead of each photo's own class over the best other one, negative if behind; ``answers`` (N, classes)."""
    own = answers[np.arange(len(labels)), labels]
    others = np.array(answers, np.float64)
    others[np.arange(len(labels)), labels] = -np.inf
    return np.asarray(own - others.max(axis=1))


def ranks(values: Array) -> Float64Array:
    """(N,): ranks from 1 for the smallest; equal values share their mean rank."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1) / 2


LEAST_OF_EACH = 5
"""Minimum number of photos of either person in a comparison of two."""
HARD = 0.15
"""Share of confusions of two people who are hard to tell apart. Measured by cross-validation: at most 0.05 for a pair
in two sets of ten people of LFW, 0.11 after a run cut short, 0.36 to 0.61 for halves of one person's photos."""
_ONE_IN_TWENTY = 0.05
_MOSTLY = 0.75


def indistinguishable(confusion: Confusion) -> list[tuple[int, int]]:
    """Pairs of people whom the answers don't tell apart, as if they were one person under two names.

    Only photos of the two that were given either name count. A pair must meet all of these conditions:

    - the name doesn't depend on whose photo it is (Fisher's exact test, one-sided, p above 0.05);
    - there are more confusions than of two people who are hard to tell apart (binomial test against ``HARD``, p below
      0.05);
    - they go both ways, so that one name isn't just preferred;
    - there are at least five photos of each;
    - at least three in four of their photos were given either name: the network tells the two from everybody else.
    """
    support, right = confusion.support, confusion.right
    taken = {(truth, answer): photos for truth, answer, photos in confusion.wrong_pairs()}
    return [
        (a, b)
        for a, b in sorted(taken)
        if a < b
        and (b, a) in taken
        and _is_one(
            np.array([[right[a], taken[a, b]], [taken[b, a], right[b]]]),
            int(support[a] + support[b]),
        )
    ]


def _is_one(named: Array, photos: int) -> bool:
    """``named`` (2, 2): truth and answer of those of two people's ``photos`` that were given either name."""
    of_each, total, confused = named.sum(axis=1), int(named.sum()), int(named[0, 1] + named[1, 0])
    return bool(
        of_each.min() >= LEAST_OF_EACH
        and total >= _MOSTLY * photos
        and _binomial_tail(confused, total, HARD) < _ONE_IN_TWENTY
        and _fisher_tail(named) > _ONE_IN_TWENTY
    )


def _binomial_tail(least: int, trials: int, share: float) -> float:
    """Probability of at least ``least`` successes in independent trials."""
    return sum(
        exp(_log_choose(trials, k) + k * log(share) + (trials - k) * log(1 - share)) for k in range(least, trials + 1)
    )


def _fisher_tail(table: Array) -> float:
    """Probability of a first cell at least this large if rows and columns of a (2, 2) table are independent (Fisher
    1922)."""
    row, column, total = int(table[0].sum()), int(table[:, 0].sum()), int(table.sum())
    return sum(
        exp(_log_choose(column, k) + _log_choose(total - column, row - k) - _log_choose(total, row))
        for k in range(int(table[0, 0]), min(row, column) + 1)
        if row - k <= total - column
    )


def _log_choose(n: int, k: int) -> float:
    """Logarithm of the binomial coefficient, which itself would overflow."""
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def log_loss(probabilities: Array) -> float | None:
    """Mean of -log p of the right answers' probabilities (n,), None without any; 0 counts as the smallest normal
    float64."""
    if not len(probabilities):
        return None
    return float(-np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)).mean())


def expected_calibration_error(confidences: Array, right: Array, bins: int = 15) -> float | None:
    """Mean distance between ``confidences`` (n,) and the share that is ``right`` (n,), over equal bins of confidence
    weighted by their photos (Guo et al. 2017); None without photos."""
    if not len(confidences):
        return None
    which = np.minimum((confidences * bins).astype(int), bins - 1)
    error = 0.0
    for b in range(bins):
        inside = which == b
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidences[inside].mean())
    return float(error)


def area_under_roc(positive: Array, negative: Array) -> float | None:
    """Probability that a ``positive`` score exceeds a ``negative`` one, ties counting half; None if either is empty."""
    if not len(positive) or not len(negative):
        return None
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    not_above = np.searchsorted(ordered, positive, "right")
    return float((below + not_above).mean() / (2 * len(negative)))
