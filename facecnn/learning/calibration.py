"""Temperature and threshold: probabilities that mean what they say, and a line beyond which a face is a stranger's."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from pydantic import Field
from pydantic.dataclasses import dataclass as settings_dataclass

from facecnn.arrays import Array
from facecnn.settings import SETTINGS

LEAST_PHOTOS = 20
"""With fewer held-out photos of strangers, or of known people where there is no output for strangers, no threshold is
set by them."""

EVEN = 0.5
"""The unknown-score at which a stranger is as likely as the likeliest person. No threshold that strangers are there to
set is above it, and it is the threshold where they are too few for another."""

PRIOR_DEVIATION = 0.5
"""Of the logarithm of the temperature, before any photo has been seen; its mean is 0."""

BIAS_DEVIATION = 6.0
"""Of the bias of the output of strangers, before any photo has been seen; its mean is 0."""

STRANGERS_EXPECTED = 0.05
"""For each photo of known people, so many of strangers are assumed when a confidence is calibrated. How many there are
in ``unknown/`` says nothing about how many will be asked about."""

_LOWEST, _HIGHEST = 0.05, 20.0
"""Temperatures."""

_GRID, _ROUNDS, _FINER = 17, 8, 0.3
"""Points each way that are tried, how often, and how much nearer to each other each time."""


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
    stranger_bias: float = 0.0
    """Taken from the log-probability of strangers, after the division."""

    def apply(self, log_probabilities: Array, people: int) -> npt.NDArray[np.float64]:
        """(n, outputs) log-probabilities, not scaled to sum to 1, from those of a network, (n, outputs)."""
        return np.asarray(log_probabilities / self.temperature - self.biases(log_probabilities.shape[1], people))

    def biases(self, outputs: int, people: int) -> npt.NDArray[np.float64]:
        """(outputs,), what is taken from each output's log-probability: nothing from those of the people."""
        return np.where(np.arange(outputs) < people, 0.0, self.stranger_bias)


def calibrate(
    log_probabilities: Array, labels: Array, people: int, settings: CalibrationSettings | None = None
) -> Calibration:
    """Set temperature, bias, threshold and the highest confidence on held-out photos: log_probabilities (N, outputs),
    labels (N,).

    Labels from ``people`` on are strangers'. They count where the network has an output for them.
    """
    settings = settings or CalibrationSettings()
    outputs = log_probabilities.shape[1]
    known, strange = labels < people, (labels >= people) & (labels < outputs)
    judged = known | strange
    photos, strangers = int(known.sum()), int(strange.sum())
    temperature, bias = fit(log_probabilities[judged], labels[judged], people)
    scores = unknown_score(Calibration(temperature, stranger_bias=bias).apply(log_probabilities, people), people)
    threshold: float | None = None
    rate: float | None = None
    if outputs > people:
        # With too few strangers to set a threshold by, the likelier of person and stranger is the answer.
        threshold = EVEN
        if strangers >= LEAST_PHOTOS:
            rate = settings.false_accept_rate
            threshold = min(EVEN, threshold_for(scores[strange], rate))
    elif photos >= LEAST_PHOTOS:
        # The least score that keeps so many; one in between two photos' scores would keep fewer. And a little above it:
        # the last bits of a photo's score depend on the photos that it is answered with.
        least = float(np.quantile(scores[known], 1 - settings.false_reject_rate, method="inverted_cdf"))
        threshold = min(1.0, 1.001 * least)
    highest = None if outputs > people else highest_confidence(photos)
    return Calibration(temperature, threshold, photos, strangers, rate, highest, bias)


def highest_confidence(photos: int) -> float:
    """What n held-out photos of the people can carry where no stranger was among them: (n + 1) / (n + 2), Laplace's
    rule of succession for the next photo after n that were all right. No temperature keeps a network that was never
    shown a stranger from being sure of one."""
    return (photos + 1) / (photos + 2)


def fit(log_probabilities: Array, labels: Array, people: int) -> tuple[float, float]:
    """The temperature T, from 0.05 to 20, and the bias b of the output of strangers, from -10 to 10, at which the
    probabilities of all outputs (N, outputs) fit the labels (N,), of which those of strangers are ``people``.

    The probabilities are softmax(z / T - b), z the log-probabilities and b that of strangers only (Guo et al. 2017).
    The likeliest T is no good: where few photos are held out all are often answered right, and then it is 0, and the
    model would claim to be certain. So ln T has a prior, the normal distribution around 0 with ``PRIOR_DEVIATION``, and
    the T of the highest posterior density in ln T is taken: 1 without photos, and moved from there by as much as the
    photos can carry. So has b, with ``BIAS_DEVIATION``; it stays 0 where fewer than ``LEAST_PHOTOS`` are of strangers,
    as there is no threshold by these then that would hold what the bias lets through.

    Strangers weigh as if there were ``STRANGERS_EXPECTED`` of them for each photo of the people. A network that learned
    from many strangers and few photos of each person takes everybody for a stranger too easily, and its confidence in
    a person whom it names is too low (prior shift: Saerens, Latinne and Decaestecker 2002).
    """
    strange = labels >= people
    enough = int(strange.sum()) >= LEAST_PHOTOS and not strange.all()
    weights = np.ones(len(labels))
    if enough:
        weights[strange] = STRANGERS_EXPECTED * (~strange).sum() / strange.sum()
    right = np.arange(len(labels)), labels

    def density(log_temperature: float, bias: float) -> float:
        scaled = Calibration(float(np.exp(log_temperature)), stranger_bias=bias).apply(log_probabilities, people)
        highest = scaled.max(axis=1, keepdims=True)
        norms = highest[:, 0] + np.log(np.exp(scaled - highest).sum(axis=1))
        priors = (log_temperature / PRIOR_DEVIATION) ** 2 + (bias / BIAS_DEVIATION) ** 2
        return float((weights * (scaled[right] - norms)).sum() - 0.5 * priors)

    # A grid around the best so far, ever finer: the density may have more than one maximum.
    best, reach = (0.0, 0.0), (float(np.log(_HIGHEST)), 10.0 if enough else 0.0)
    steps = np.linspace(-1, 1, _GRID)
    for _ in range(_ROUNDS):
        temperatures = np.clip(best[0] + reach[0] * steps, np.log(_LOWEST), np.log(_HIGHEST))
        biases = best[1] + reach[1] * steps if enough else np.zeros(1)
        best = max(((t, b) for t in temperatures.tolist() for b in biases.tolist()), key=lambda at: density(*at))
        reach = (reach[0] * _FINER, reach[1] * _FINER)
    return float(np.exp(best[0])), float(best[1])


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
