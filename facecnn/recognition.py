"""A trained model with its preparation and its threshold: photo in, answer out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.errors import CheckpointError, UsageError
from facecnn.kernels.protocol import Kernels, Normalise
from facecnn.learning.calibration import Calibration, unknown_score
from facecnn.learning.scores import over_people
from facecnn.network.feeding import PhotoFeed
from facecnn.network.inference import log_probabilities
from facecnn.network.layers import Layer, Shape
from facecnn.network.network import Network
from facecnn.photos.folder import UNKNOWN

Array = npt.NDArray[Any]

BATCH_SIZE = 32
"""Photos that are answered at once."""

SHIFT = 0.03
"""A photo is also looked at moved by this fraction of its side, where training moved photos as far or farther: the mean
of such answers is steadier."""


@dataclass(frozen=True)
class Answer:
    """What the model says of one face."""

    label: str
    """A person's name, or ``unknown``."""
    confidence: float
    """Of a person: the probability over all outputs, strangers included, as far as the held-out photos can carry it
    (``Calibration.highest_confidence``). Of ``unknown``: the unknown-score."""
    probabilities: dict[str, float]
    """Over the people; they sum to 1, so a person's may be higher than the confidence."""
    unknown_score: float
    """0 to 1, grows with strangeness."""


@dataclass(frozen=True)
class Answers:
    """What the model says of n photos, in figures."""

    probabilities: npt.NDArray[np.float64]
    """(n, people), calibrated; each row sums to 1."""
    confidences: npt.NDArray[np.float64]
    """(n,): probability of the likeliest person over all outputs, calibrated, and no higher than the photos held out
    in training can carry."""
    unknown_scores: npt.NDArray[np.float64]
    """(n,)"""
    refused: npt.NDArray[np.bool_]
    """(n,): whether the unknown-score is beyond the threshold."""

    @property
    def likeliest(self) -> npt.NDArray[np.int64]:
        """(n,): number of the likeliest person, whether refused or not."""
        return np.asarray(self.probabilities.argmax(axis=1))


class Recogniser:
    """Answers for prepared photos with one model."""

    def __init__(
        self,
        *,
        layers: Sequence[Layer],
        input_shape: Shape,
        normalise: Normalise,
        mirror: bool,
        classes: Sequence[str],
        arrays: Mapping[str, Array],
        calibration: Calibration,
        kernels: Kernels,
        shift: float = 0.0,
    ) -> None:
        """``classes``: the outputs' names, ``unknown`` last where there is one; ``arrays``: a checkpoint's; ``mirror``,
        ``shift``: which ``views`` of a photo the answer is the mean of.

        Raises CheckpointError where the arrays don't fit the layers.
        """
        self.classes = tuple(classes)
        self.people = tuple(name for name in classes if name != UNKNOWN)
        self.calibration = calibration
        self.normalise: Normalise = normalise
        self.mirror = mirror
        self.shift = shift
        try:
            self.network = Network(layers, input_shape, kernels, BATCH_SIZE, training=False)
            if len(self.network.stages[-1].out_shape) != 1:
                raise UsageError("it gives maps, and must end with dense or neuron")
            self.network.weights.from_host({name.removeprefix("model."): array for name, array in arrays.items()})
        except (UsageError, KeyError, ValueError) as error:
            raise CheckpointError(f"The model's weights don't fit its network ({error}): train it anew") from error
        if self.network.units != len(self.classes):
            raise CheckpointError(
                f"The model has {self.network.units} outputs for {len(self.classes)} names: train it anew"
            )

    @property
    def knows_strangers(self) -> bool:
        """Whether it was trained with photos of strangers."""
        return UNKNOWN in self.classes

    def threshold(self, chosen: float | str) -> float | None:
        """The unknown-score beyond which a photo is a stranger's: "auto" is the model's own, "off" none."""
        if chosen == "auto":
            return self.calibration.threshold
        return None if isinstance(chosen, str) else chosen

    def log_probabilities(self, pixels: Array, rows: Array) -> npt.NDArray[np.float64]:
        """(n, outputs), not calibrated, for photos ``rows`` (n,) of ``pixels`` (P, H + 2 my, W + 2 mx, C) uint8."""
        photos = PhotoFeed(self.network.kernels, pixels, rows, self.network.batch_size)
        return log_probabilities(self.network, photos, self.normalise, mirror=self.mirror, shift=self.shift)

    def answers(self, pixels: Array, rows: Array, threshold: float | None) -> Answers:
        """Answers for photos, given as for ``log_probabilities``."""
        return self.answers_from(self.log_probabilities(pixels, rows), threshold)

    def answers_from(self, log_probabilities: npt.NDArray[np.float64], threshold: float | None) -> Answers:
        """Answers from what ``log_probabilities`` gave, (n, outputs)."""
        scaled = self.calibration.apply(log_probabilities, len(self.people))
        scores = unknown_score(scaled, len(self.people))
        refused = np.zeros(len(scaled), bool) if threshold is None else scores > threshold
        confidences = 1 - scores
        if self.calibration.highest_confidence is not None:
            confidences = np.minimum(confidences, self.calibration.highest_confidence)
        return Answers(over_people(scaled, len(self.people)), confidences, scores, refused)

    def describe(self, answers: Answers) -> list[Answer]:
        """The same in words, photo by photo."""
        described = []
        for probabilities, best, confidence, score, refused in zip(
            answers.probabilities,
            answers.likeliest.tolist(),
            answers.confidences.tolist(),
            answers.unknown_scores.tolist(),
            answers.refused.tolist(),
            strict=True,
        ):
            described.append(
                Answer(
                    label=UNKNOWN if refused else self.people[best],
                    confidence=score if refused else confidence,
                    probabilities=dict(zip(self.people, probabilities.tolist(), strict=True)),
                    unknown_score=score,
                )
            )
        return described
