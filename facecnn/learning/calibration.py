"""Temperature and threshold: probabilities that mean what they say, and a line beyond which a face is a stranger's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.learning.scores import over_people

Array = npt.NDArray[Any]

LEAST_PHOTOS = 20
"""With fewer held-out photos of known people neither figure would mean anything."""

KNOWN_KEPT = 0.98
"""The threshold keeps at least this share of the held-out photos of known people."""


@dataclass(frozen=True)
class Calibration:
    """``temperature`` divides the log-probabilities; an unknown-score above ``threshold`` is a stranger's (None: never
    refuse). ``photos`` says on how many held-out photos of known people they were set, 0 if they were not."""

    temperature: float = 1.0
    threshold: float | None = None
    photos: int = 0


def calibrate(log_probabilities: Array, labels: Array, people: int) -> Calibration:
    """Set temperature and threshold on held-out photos: log_probabilities (N, outputs), labels (N,)."""
    known = labels < people
    if known.sum() < LEAST_PHOTOS:
        # Nothing to set a threshold by. With a single person the likelier of two outputs is the answer.
        return Calibration(threshold=0.5 if people == 1 else None)
    kept, truth = log_probabilities[known], labels[known]
    temperature = fit_temperature(kept, truth, people)
    # The least score that keeps so many; one in between two photos' scores would keep fewer.
    threshold = float(np.quantile(unknown_score(kept / temperature, people), KNOWN_KEPT, method="inverted_cdf"))
    return Calibration(temperature, threshold, int(known.sum()))


def fit_temperature(log_probabilities: Array, labels: Array, people: int) -> float:
    """The temperature whose probabilities over the people fit the n photos best, between 0.05 and 20 (Guo et al. 2017).

    Not their log-loss itself is made least: where all answers are right, it falls for ever as the temperature does, and
    the model would claim to be certain. As in Platt's calibration (1999), the right person's target is not 1 but
    (n + 1) / (n + 2), and the others share the rest. For a single person there is nothing to fit.
    """
    if people == 1:
        return 1.0
    target = (len(labels) + 1) / (len(labels) + 2)
    targets = np.full((len(labels), people), (1 - target) / (people - 1))
    targets[np.arange(len(labels)), labels] = target

    def loss(log_inverse: float) -> float:
        probabilities = over_people(log_probabilities * np.exp(log_inverse), people)
        return float(-(targets * np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))).sum())

    # The loss is convex in 1 / T, so that a golden-section search finds its minimum.
    ratio = (5**0.5 - 1) / 2
    low, high = -np.log(20.0), np.log(20.0)
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return float(np.exp(-(low + high) / 2))


def unknown_score(log_probabilities: Array, people: int) -> npt.NDArray[np.float64]:
    """How strange each photo is, 0 to 1: what the likeliest person leaves of the probability over all outputs."""
    exponentials = np.exp(log_probabilities - log_probabilities.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    return np.asarray(1 - probabilities[:, :people].max(axis=1))
