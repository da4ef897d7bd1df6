"""Temperature and threshold: probabilities that mean what they say, and a line beyond which a face is a stranger's."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field
from pydantic.dataclasses import dataclass as settings_dataclass

from facecnn.settings import SETTINGS

Array = npt.NDArray[Any]

LEAST_PHOTOS = 20
"""With fewer held-out photos of known people, or of strangers, no threshold is set by them."""

EVEN = 0.5
"""The unknown-score at which a stranger is as likely as the likeliest person. No threshold that strangers are there to
set is above it, and it is the threshold where they are too few for another."""

PRIOR_DEVIATION = 0.5
"""Of the logarithm of the temperature, before any photo has been seen; its mean is 0."""

_LOWEST, _HIGHEST = 0.05, 20.0
"""Temperatures."""


@settings_dataclass(frozen=True, kw_only=True, config=SETTINGS)
class CalibrationSettings:
    """Which mistakes the threshold for strangers may make."""

    false_accept_rate: float = Field(
        default=0.035,
        gt=0,
        lt=0.5,
        description="share of strangers that may be named; sets the threshold where there is an unknown/ folder",
    )
    false_reject_rate: float = Field(
        default=0.02,
        gt=0,
        lt=0.5,
        description="share of the people's photos that may be refused; sets the threshold where there is none",
    )


@dataclass(frozen=True)
class Calibration:
    """What was set on held-out photos, once the training had ended."""

    temperature: float = 1.0
    """Divides the log-probabilities."""
    threshold: float | None = None
    """An unknown-score above it is a stranger's. None: never refuse."""
    photos: int = 0
    """Held-out photos of known people."""
    strangers: int = 0
    """Held-out photos of strangers."""
    false_accept_rate: float | None = None
    """Share of strangers that the threshold was set to let through; None where it wasn't set by strangers."""
    highest_confidence: float | None = None
    """No answer claims more; None: no limit."""


def calibrate(
    log_probabilities: Array, labels: Array, people: int, settings: CalibrationSettings | None = None
) -> Calibration:
    """Set temperature, threshold and the highest confidence on held-out photos: log_probabilities (N, outputs), labels
    (N,).

    Labels from ``people`` on are strangers'. They count where the network has an output for them.
    """
    settings = settings or CalibrationSettings()
    outputs = log_probabilities.shape[1]
    known, strange = labels < people, (labels >= people) & (labels < outputs)
    judged = known | strange
    temperature = fit_temperature(log_probabilities[judged], labels[judged])
    scores = unknown_score(log_probabilities / temperature, people)
    photos, strangers = int(known.sum()), int(strange.sum())
    threshold: float | None = None
    rate: float | None = None
    if outputs > people:
        # With too few photos to set a threshold by, the likelier of person and stranger is the answer.
        threshold = EVEN
        if photos >= LEAST_PHOTOS and strangers >= LEAST_PHOTOS:
            rate = settings.false_accept_rate
            threshold = min(EVEN, threshold_for(scores[strange], rate))
    elif photos >= LEAST_PHOTOS:
        # The least score that keeps so many; one in between two photos' scores would keep fewer. And a little above it:
        # the last bits of a photo's score depend on the photos that it is answered with.
        least = float(np.quantile(scores[known], 1 - settings.false_reject_rate, method="inverted_cdf"))
        threshold = min(1.0, 1.001 * least)
    highest = None if outputs > people else highest_confidence(photos)
    return Calibration(temperature, threshold, photos, strangers, rate, highest)


def highest_confidence(photos: int) -> float:
    """What n held-out photos of the people can carry where no stranger was among them: (n + 1) / (n + 2), Laplace's
    rule of succession for the next photo after n that were all right. No temperature keeps a network that was never
    shown a stranger from being sure of one."""
    return (photos + 1) / (photos + 2)


def fit_temperature(log_probabilities: Array, labels: Array) -> float:
    """The temperature T, from 0.05 to 20, at which the probabilities of all outputs (N, outputs) fit the labels (N,).

    The probabilities are softmax(z / T), z the log-probabilities (Guo et al. 2017). The likeliest T is no good: where
    few photos are held out all are often answered right, and then it is 0, and the model would claim to be certain.
    So ln T has a prior, the normal distribution around 0 with ``PRIOR_DEVIATION``, and the T of the highest posterior
    density in ln T is taken: 1 without photos, and moved from there by as much as the photos can carry.
    """
    grid = np.linspace(np.log(_LOWEST), np.log(_HIGHEST), 1201)
    centred = log_probabilities - log_probabilities.max(axis=1, keepdims=True)
    right = centred[np.arange(len(labels)), labels]
    posterior = -0.5 * (grid / PRIOR_DEVIATION) ** 2
    for number, b in enumerate(np.exp(-grid)):
        posterior[number] += (b * right - np.log(np.exp(b * centred).sum(axis=1))).sum()
    return float(np.exp(grid[posterior.argmax()]))


def unknown_score(log_probabilities: Array, people: int) -> npt.NDArray[np.float64]:
    """How strange each photo is, 0 to 1: what the likeliest person leaves of the probability over all outputs."""
    exponentials = np.exp(log_probabilities - log_probabilities.max(axis=1, keepdims=True))
    best = exponentials[:, :people].argmax(axis=1)
    rest = exponentials.copy()
    rest[np.arange(len(rest)), best] = 0
    # Not 1 - p: beside a p that is almost 1 nothing would be left of small differences.
    return np.asarray(rest.sum(axis=1) / exponentials.sum(axis=1))


def threshold_for(strangers: Array, false_accept_rate: float) -> float:
    """The unknown-score that so small a share of strangers is expected to stay below, from the scores of some (N,).

    By a normal distribution of the scores' log-odds: a quantile of 30 scores would hang on the one or two lowest. On
    faces it let fewer strangers through than it was asked to, not more (docs/STRANGERS.md).
    """
    tiny = np.finfo(np.float64).tiny
    scores = np.clip(strangers, tiny, 1 - np.finfo(np.float64).epsneg)
    odds = np.log(scores) - np.log1p(-scores)
    limit = odds.mean() + NormalDist().inv_cdf(false_accept_rate) * odds.std(ddof=1)
    return float(1 / (1 + np.exp(-np.clip(limit, -700, 700))))
