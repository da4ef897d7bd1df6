"""Calibration: probabilities that mean what they say, and a threshold beyond which a face is a stranger's."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as settings_dataclass

from facecnn.arrays import Array, Float64Array, Int64Array
from facecnn.settings import SETTINGS

LEAST_PHOTOS = 20
"""Held-out photos of strangers (or of known people, without an output for strangers) that setting a threshold takes."""

EVEN = 0.5
"""Unknown-score at which the likeliest person has half of the probability: the highest threshold that is set by
strangers, and the threshold if there are too few of them."""

PRIOR_DEVIATION = 0.5
"""Standard deviation of the prior of the temperature's logarithm, whose mean is 0."""

BIAS_DEVIATION = 6.0
"""Standard deviation of the prior of the strangers' bias, whose mean is 0."""

STRANGERS_EXPECTED = 0.05
"""Strangers assumed for each known person's photo when confidence is calibrated. How many are in ``unknown/`` says
nothing about how many will be asked about."""

MOST_NUMBERS = 2**24
"""Maximum number of log-probabilities by which a model is calibrated: 128 MiB. If the held-out photos have more, some
photos are drawn, 1,677 with 10,000 people."""

_LOWEST, _HIGHEST = 0.05, 20.0
"""Limits of the temperature."""

_CACHED = 2**15
"""Numbers that are worked on together: 256 KiB, which a processor's cache holds."""

_GRID, _ROUNDS, _FINER = 17, 8, 0.3
"""Grid search: points per axis, number of rounds, and factor by which the grid shrinks in each."""


@settings_dataclass(frozen=True, kw_only=True, config=SETTINGS)
class CalibrationSettings:
    """Error rates that the threshold for strangers may have."""

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
    """What was set on held-out photos after the training."""

    temperature: float = 1.0
    """Divides the log-probabilities."""
    threshold: float | None = None
    """A face with a higher unknown-score is a stranger's. None: never refuse."""
    photos: int = 0
    """Held-out photos of known people."""
    strangers: int = 0
    """Held-out photos of strangers."""
    false_accept_rate: float | None = None
    """The rate that the threshold was set for; None if strangers had no part in it."""
    highest_confidence: float | None = None
    """Upper limit of the confidence of answers; None: no limit."""
    stranger_bias: float = 0.0
    """Subtracted from the log-probability of strangers, after the division."""

    def apply(self, log_probabilities: Array, people: int) -> Float64Array:
        """Calibrated log-probabilities (n, outputs), not normalised, from those of a network."""
        return np.asarray(log_probabilities / self.temperature - self.biases(log_probabilities.shape[1], people))

    def biases(self, outputs: int, people: int) -> Float64Array:
        """(outputs,): subtracted from each output's log-probability; 0 for people."""
        return np.where(np.arange(outputs) < people, 0.0, self.stranger_bias)


def calibrate(
    log_probabilities: Array, labels: Array, people: int, settings: CalibrationSettings | None = None
) -> Calibration:
    """Set temperature, bias, threshold and highest confidence on held-out photos.

    Args:
        log_probabilities: (N, outputs)
        labels: (N,); from ``people`` on they are strangers', who count if the network has an output for them.
        settings: the error rates; None: the defaults.
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
        # With too few strangers to set a threshold, a face is refused unless one person has more than half of the
        # probability.
        threshold = EVEN
        if strangers >= LEAST_PHOTOS:
            rate = settings.false_accept_rate
            threshold = min(EVEN, threshold_for(scores[strange], rate))
    elif photos >= LEAST_PHOTOS:
        # The lowest score that keeps enough photos: one between two scores would keep fewer. A little is added, because
        # the last bits of a score depend on the other photos in its batch.
        least = float(np.quantile(scores[known], 1 - settings.false_reject_rate, method="inverted_cdf"))
        threshold = min(1.0, 1.001 * least)
    highest = None if outputs > people else highest_confidence(photos)
    return Calibration(temperature, threshold, photos, strangers, rate, highest, bias)


def drawn_photos(labels: Array, people: int, outputs: int, seed: int, most: int = MOST_NUMBERS) -> Int64Array:
    """The photos to calibrate a model by, ascending: all if their outputs are at most ``most`` numbers.

    Otherwise some are drawn at random. At least half of them are strangers, if there are enough, and more if more than
    half of all photos are: with few strangers the threshold would be uncertain, while the temperature doesn't depend on
    their number.

    ``labels``: (N,) of the held-out photos, from ``people`` on of strangers.
    """
    limit = max(2 * LEAST_PHOTOS, most // outputs)
    if len(labels) <= limit:
        return np.arange(len(labels))
    generator = np.random.default_rng(seed)
    known, strange = np.flatnonzero(labels < people), np.flatnonzero(labels >= people)
    strangers = min(len(strange), max(round(limit * len(strange) / len(labels)), limit // 2))
    sizes = (min(len(known), limit - strangers), strangers)
    drawn = [generator.choice(among, size, replace=False) for among, size in zip((known, strange), sizes, strict=True)]
    return np.sort(np.concatenate(drawn))


def highest_confidence(photos: int) -> float:
    """The confidence that n held-out photos of people justify without any stranger: (n + 1) / (n + 2), Laplace's rule
    of succession after n successes. No temperature keeps a network that never saw strangers from being sure of one."""
    return (photos + 1) / (photos + 2)


def fit(log_probabilities: Array, labels: Array, people: int) -> tuple[float, float]:
    """Fit the temperature T, 0.05 to 20, and the strangers' bias b, -10 to 10.

    Probabilities are softmax(z / T - b) of log-probabilities z, where b is 0 for people (Guo et al. 2017). The maximum
    likelihood is no use: with few held-out photos all answers are often right, which gives T = 0 and a model that
    claims to be certain. So ln T has a normal prior around 0 with ``PRIOR_DEVIATION``, and T is the maximum a
    posteriori: 1 without photos, and moved from there as far as the photos justify. The prior of b has
    ``BIAS_DEVIATION``. With fewer than ``LEAST_PHOTOS`` strangers b stays 0, as no threshold could then be set that
    holds back what b lets through.

    Strangers are weighted as if there were ``STRANGERS_EXPECTED`` of them for each photo of the people. A network that
    learned from many strangers and few photos of each person takes people for strangers too easily, and its confidence
    in a person is too low (prior shift: Saerens, Latinne and Decaestecker 2002).

    Args:
        log_probabilities: (N, outputs)
        labels: (N,), ``people`` for strangers.
    """
    strange = labels >= people
    enough = int(strange.sum()) >= LEAST_PHOTOS and not strange.all()
    weights = np.ones(len(labels))
    if enough:
        weights[strange] = STRANGERS_EXPECTED * (~strange).sum() / strange.sum()

    def log_posteriors(log_temperature: float, biases: list[float]) -> list[float]:
        own, of_people, of_strangers = _divided(log_probabilities, labels, people, float(np.exp(log_temperature)))
        found = []
        for bias in biases:
            norms = np.logaddexp(of_people, of_strangers - bias)
            priors = (log_temperature / PRIOR_DEVIATION) ** 2 + (bias / BIAS_DEVIATION) ** 2
            found.append(float((weights * (own - bias * strange - norms)).sum() - 0.5 * priors))
        return found

    # Ever finer grids around the best point so far: there may be more than one maximum.
    best, reach = (0.0, 0.0), (float(np.log(_HIGHEST)), 10.0 if enough else 0.0)
    steps = np.linspace(-1, 1, _GRID)
    for _ in range(_ROUNDS):
        temperatures = np.clip(best[0] + reach[0] * steps, np.log(_LOWEST), np.log(_HIGHEST)).tolist()
        biases = (best[1] + reach[1] * steps if enough else np.zeros(1)).tolist()
        found = np.array([log_posteriors(temperature, biases) for temperature in temperatures])
        temperature, bias = np.unravel_index(found.argmax(), found.shape)
        best = temperatures[temperature], biases[bias]
        reach = (reach[0] * _FINER, reach[1] * _FINER)
    return float(np.exp(best[0])), float(best[1])


def _divided(
    log_probabilities: Array, labels: Array, people: int, temperature: float
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Log-probabilities divided by a temperature: each photo's own, and the logarithms of the sums of the people's and
    of the strangers' exponentials, (N,) each."""
    own, of_people, of_strangers = (np.full(len(labels), -np.inf) for _ in range(3))
    size = max(1, _CACHED // max(1, log_probabilities.shape[1]))
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        scaled = log_probabilities[part] / temperature
        own[part] = scaled[np.arange(len(scaled)), labels[part]]
        highest = scaled.max(axis=1, keepdims=True)
        exponentials = np.exp(scaled - highest)
        with np.errstate(divide="ignore"):  # no output for strangers, or sums that are too small for any number
            for sums, columns in ((of_people, slice(people)), (of_strangers, slice(people, None))):
                sums[part] = highest[:, 0] + np.log(exponentials[:, columns].sum(axis=1))
    return own, of_people, of_strangers


def unknown_score(log_probabilities: Array, people: int) -> Float64Array:
    """How strange each photo is, 0 to 1: the probability of all outputs but that of the likeliest person."""
    exponentials = np.exp(log_probabilities - log_probabilities.max(axis=1, keepdims=True))
    best = exponentials[:, :people].argmax(axis=1)
    rest = exponentials.copy()
    rest[np.arange(len(rest)), best] = 0
    # Not 1 - p, which loses small differences if p is almost 1.
    return np.asarray(rest.sum(axis=1) / exponentials.sum(axis=1))


def threshold_for(strangers: Array, false_accept_rate: float) -> float:
    """The unknown-score below which the given share of strangers is expected, from the scores of some (N,).

    The log-odds of the scores are taken to be normal: a quantile of 30 scores would depend on the one or two lowest. On
    faces this let through fewer strangers than it should have, not more (docs/STRANGERS.md).
    """
    tiny = np.finfo(np.float64).tiny
    scores = np.clip(strangers, tiny, 1 - np.finfo(np.float64).epsneg)
    odds = np.log(scores) - np.log1p(-scores)
    limit = odds.mean() + NormalDist().inv_cdf(false_accept_rate) * odds.std(ddof=1)
    return float(1 / (1 + np.exp(-np.clip(limit, -700, 700))))
