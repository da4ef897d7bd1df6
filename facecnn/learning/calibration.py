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
"""With fewer held-out photos of known people neither temperature nor threshold would mean anything; with fewer of
strangers the threshold isn't set by them."""

EVEN = 0.5
"""The unknown-score at which a stranger is as likely as the likeliest person. No threshold that strangers are there to
set is above it, and it is the threshold where they are too few for another."""

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
    """Held-out photos of known people; 0 if nothing was set."""
    strangers: int = 0
    """Held-out photos of strangers."""
    false_accept_rate: float | None = None
    """Share of strangers that the threshold was set to let through; None if it wasn't set by strangers."""


def calibrate(
    log_probabilities: Array, labels: Array, people: int, settings: CalibrationSettings | None = None
) -> Calibration:
    """Set temperature and threshold on held-out photos: log_probabilities (N, outputs), labels (N,).

    Labels from ``people`` on are strangers'. They count where the network has an output for them.
    """
    settings = settings or CalibrationSettings()
    outputs = log_probabilities.shape[1]
    known, strange = labels < people, (labels >= people) & (labels < outputs)
    if known.sum() < LEAST_PHOTOS:
        # Nothing to set a threshold by. Where strangers have an output, the likelier of two is the answer.
        return Calibration(threshold=EVEN if outputs > people else None)
    judged = known | strange
    temperature = fit_temperature(log_probabilities[judged], labels[judged])
    scores = unknown_score(log_probabilities / temperature, people)
    rate: float | None = None
    if outputs == people:
        # The least score that keeps so many; one in between two photos' scores would keep fewer.
        threshold = float(np.quantile(scores[known], 1 - settings.false_reject_rate, method="inverted_cdf"))
    elif strange.sum() < LEAST_PHOTOS:
        threshold = EVEN
    else:
        rate = settings.false_accept_rate
        threshold = min(EVEN, threshold_for(scores[strange], rate))
    return Calibration(temperature, threshold, int(known.sum()), int(strange.sum()), rate)


def fit_temperature(log_probabilities: Array, labels: Array) -> float:
    """The temperature, from 0.05 to 20, at which the probabilities of all outputs (N, outputs) fit the labels (N,).

    The probabilities are softmax(b z), z the log-probabilities and b the inverse temperature (Guo et al. 2017). The
    likeliest b is no good: where few photos are held out all are often answered right, and then it is infinite, and the
    model would claim to be certain. So b gets Jeffreys' prior, the square root of its Fisher information, which is the
    sum over the photos of the variance of z under softmax(b z); that makes finite what the labels alone leave infinite
    (Firth 1993; Heinze and Schemper 2002). The median of the posterior distribution is taken: as likely too sure as too
    unsure, and the same whether b, its inverse or its logarithm is looked at.
    """
    logs = np.linspace(-np.log(_HIGHEST), -np.log(_LOWEST), 1201)
    centred = log_probabilities - log_probabilities.max(axis=1, keepdims=True)
    right = centred[np.arange(len(labels)), labels]
    posterior = np.empty(len(logs))
    for number, b in enumerate(np.exp(logs)):
        exponentials = np.exp(b * centred)
        sums = exponentials.sum(axis=1)
        means = (exponentials * centred).sum(axis=1) / sums
        information = ((exponentials * (centred - means[:, None]) ** 2).sum(axis=1) / sums).sum()
        likelihood = (b * right - np.log(sums)).sum()
        # Of log b, along which the grid is even; its density has a factor b more than that of b.
        posterior[number] = likelihood + 0.5 * np.log(max(information, np.finfo(np.float64).tiny)) + np.log(b)
    below = np.cumsum(np.exp(posterior - posterior.max()))
    return float(np.exp(-np.interp(0.5 * below[-1], below, logs)))


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
