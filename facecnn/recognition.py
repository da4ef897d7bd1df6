"""A trained model with its preparation and its threshold: photo in, answer out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from facecnn.arrays import Array, BoolArray, Float32Array, Float64Array, Int64Array
from facecnn.body.embedder import Embedder, body_among
from facecnn.errors import CheckpointError, UsageError
from facecnn.kernels.backend import Backend
from facecnn.kernels.protocol import Normalise
from facecnn.learning.calibration import Calibration, unknown_score
from facecnn.learning.class_means import Head, head_in
from facecnn.learning.scores import Likely, over_people
from facecnn.network.feeding import PhotoFeed
from facecnn.network.inference import answer_multiply_adds, blocks_of_log_probabilities, joined
from facecnn.network.layers import Body, Layer, Shape
from facecnn.network.network import Network
from facecnn.network.size import countable_photos
from facecnn.network.stages import plan
from facecnn.photos.folder import UNKNOWN

BATCH_SIZE = 32
"""Maximum number of photos in a forward pass."""

SHIFT = 0.03
"""If training shifted photos at least as far, answers are also averaged over shifts of a photo by this fraction of its
side, which makes them steadier."""


@dataclass(frozen=True)
class Answer:
    """The model's answer for one face."""

    label: str
    """A person's name, or ``unknown``."""
    confidence: float
    """For a person, the probability over all outputs, strangers included, but at most what the held-out photos justify
    (``Calibration.highest_confidence``). For ``unknown``, the unknown-score."""
    probabilities: dict[str, float]
    """Over the people, summing to 1, so a person's may be higher than the confidence. Of more than ``MOST_PEOPLE``,
    only the ``LISTED`` likeliest, who come first, and ``others`` is what is left."""
    unknown_score: float
    """From 0 to 1; higher is stranger."""
    also_like: str | None = None
    """The name that an ``unknown`` would have if another face of the photo didn't fit it better."""
    others: float | None = None
    """Probability of all people together who aren't among ``probabilities``; None if everybody is."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: ``others`` is only there if somebody is left out."""
        values = asdict(self)
        if self.others is None:
            del values["others"]
        return values


@dataclass(frozen=True)
class AboutLabels:
    """What the answers for n faces say about the person known to be there."""

    losses: Float64Array
    """(n,): cross-entropy, not calibrated; for strangers that of the output for them, NaN without one."""
    probabilities: Float64Array
    """(n,): calibrated, over the people; NaN for strangers."""


@dataclass(frozen=True)
class Answers:
    """The model's answers for n faces, as arrays."""

    likely: Likely
    """The people's calibrated probabilities."""
    confidences: Float64Array
    """(n,): calibrated probability of the likeliest person over all outputs, but at most what the held-out photos
    justify."""
    unknown_scores: Float64Array
    """(n,)"""
    refused: BoolArray
    """(n,): whether no name is given: the unknown-score is above the threshold, or the name is ``given_elsewhere``."""
    given_elsewhere: BoolArray
    """(n,): whether another face of the photo has the name, which it fits better."""
    photo: Int64Array
    """(n,): index of each face's photo, ascending from 0 without gaps."""
    about_labels: AboutLabels | None = None
    """If the labels are known."""

    @property
    def probabilities(self) -> Float64Array:
        """(n, people), or of many people (n, listed); see ``Likely``."""
        return self.likely.probabilities

    @property
    def likeliest(self) -> Int64Array:
        """(n,): index of the likeliest person, whether refused or not."""
        return self.likely.first


def better_matched_elsewhere(
    names: Int64Array, unknown_scores: Float64Array, refused: BoolArray, photo: Int64Array
) -> BoolArray:
    """Which of n faces lose their name to another face of their photo, in which a name is given only once.

    Of a photo's faces with the same name, the one with the lowest unknown-score keeps it, or the first of equal ones.

    Args:
        names: (n,) index of each face's name.
        unknown_scores: (n,)
        refused: (n,) whether a face gets no name anyway.
        photo: (n,) index of the photo.

    Returns:
        (n,), False for refused faces.
    """
    named = np.flatnonzero(~refused)
    order = named[np.lexsort((unknown_scores[named], names[named], photo[named]))]  # stable
    repeated = (photo[order[1:]] == photo[order[:-1]]) & (names[order[1:]] == names[order[:-1]])
    lose = np.zeros(len(names), bool)
    lose[order[1:][repeated]] = True
    return lose


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
        backend: Backend,
        shift: float = 0.0,
        by_embeddings: bool = False,
    ) -> None:
        """
        Args:
            input_shape: (H, W, C)
            mirror: whether answers are averaged over a photo and its mirror image.
            classes: names of the outputs; ``unknown`` last if it is one of them.
            calibration: temperature and threshold.
            shift: see ``SHIFT``; 0 for none.
            by_embeddings: whether the model was made from class means, so that it answers by embeddings, which are
                averaged over a photo and its mirror image, and cached.

        Raises:
            CheckpointError: the arrays don't fit the layers.
        """
        self.classes = tuple(classes)
        self.people = tuple(name for name in classes if name != UNKNOWN)
        self.calibration = calibration
        self.normalise: Normalise = normalise
        self.mirror = mirror
        self.shift = shift
        self._layers, self._input_shape, self._backend = layers, input_shape, backend
        self._arrays = {name.removeprefix("model."): array for name, array in arrays.items()}
        self._by_embeddings: tuple[Embedder, Head] | None = None
        try:
            stages = plan(layers, input_shape)
            if len(stages[-1].out_shape) != 1:
                raise UsageError("it gives maps, and must end with dense or neuron")
            if by_embeddings:
                self._by_embeddings = Embedder(backend, body_among(self._arrays)), head_in(arrays, stages)
            else:
                self.network  # noqa: B018  (builds it)
        except (UsageError, KeyError, ValueError) as error:
            raise CheckpointError(f"The model's weights don't fit its network ({error}): train it anew") from error
        (units,) = stages[-1].out_shape
        if units != len(self.classes):
            raise CheckpointError(f"The model has {units} outputs for {len(self.classes)} names: train it anew")

    @cached_property
    def network(self) -> Network:
        """The whole network. Raises KeyError or ValueError if an array doesn't fit."""
        batch_size = max(1, min(BATCH_SIZE, countable_photos(plan(self._layers, self._input_shape))))
        network = Network(self._layers, self._input_shape, self._backend, batch_size, keep="outputs")
        network.weights.from_host(self._arrays)
        return network

    @cached_property
    def _embedder(self) -> Embedder | None:
        if self._by_embeddings is not None:
            return self._by_embeddings[0]
        begins_with_body = isinstance(self._layers[0], Body)
        return Embedder(self._backend, body_among(self._arrays)) if begins_with_body else None

    @property
    def multiply_adds(self) -> int:
        """Of the answer for one face, by models that don't answer by embeddings."""
        return answer_multiply_adds(self.network.stages, self.mirror, self.shift)

    @property
    def answers_by_embeddings(self) -> bool:
        """Whether the model was made from class means."""
        return self._by_embeddings is not None

    def embed(self, pixels: Array, rows: Array, *, keep: bool = True) -> Float32Array:
        """The embeddings (n, 128) of crops, of a model that begins with a body; see ``log_probabilities``."""
        assert self._embedder is not None
        return self._embedder.embed(pixels, rows, keep=keep)

    def log_probabilities_of(self, embeddings: Array) -> Float64Array:
        """Like ``log_probabilities``, for embeddings (n, 128), in a model made from class means."""
        assert self._by_embeddings is not None
        return self._by_embeddings[1].log_probabilities(embeddings)

    @property
    def knows_strangers(self) -> bool:
        """Whether the model was trained with photos of strangers."""
        return UNKNOWN in self.classes

    def threshold(self, chosen: float | str) -> float | None:
        """The unknown-score above which a face is a stranger's: "auto" is the model's own, "off" none."""
        if chosen == "auto":
            return self.calibration.threshold
        return None if isinstance(chosen, str) else chosen

    def log_probabilities(self, pixels: Array, rows: Array, *, keep: bool = True) -> Float64Array:
        """Not calibrated, (n, outputs), for the ``rows`` (n,) of ``pixels`` (P, H + 2 my, W + 2 mx, C) uint8.

        ``keep``: whether embeddings may be kept on disk.
        """
        return joined(self._blocks(pixels, rows, keep), len(self.classes))

    def _blocks(self, pixels: Array, rows: Array, keep: bool) -> Iterator[Float64Array]:
        """The rows of ``log_probabilities`` in blocks of successive faces."""
        if self._by_embeddings is not None:
            yield from self._by_embeddings[1].blocks(self.embed(pixels, rows, keep=keep))
            return
        photos = PhotoFeed(self.network.backend, pixels, rows, self.network.batch_size)
        yield from blocks_of_log_probabilities(
            self.network, photos, self.normalise, mirror=self.mirror, shift=self.shift
        )

    def answers(
        self,
        pixels: Array,
        rows: Array,
        threshold: float | None,
        photo: Array | None = None,
        *,
        labels: Array | None = None,
        listed: int | None = None,
        keep: bool = True,
    ) -> Answers:
        """Answers for crops; for the arguments see ``log_probabilities`` and ``answers_from``."""
        return self.answers_from(self._blocks(pixels, rows, keep), threshold, photo, labels=labels, listed=listed)

    def answers_from(
        self,
        log_probabilities: Float64Array | Iterable[Float64Array],
        threshold: float | None,
        photo: Array | None = None,
        *,
        labels: Array | None = None,
        listed: int | None = None,
    ) -> Answers:
        """Answers from log-probabilities.

        Args:
            log_probabilities: (n, outputs), not calibrated, as a whole or in blocks of successive faces.
            threshold: a face with a higher unknown-score is refused; None: none is.
            photo: (n,) index of each crop's photo, ascending from 0 without gaps, in which a name is given only once;
                None: each crop has a photo of its own.
            labels: (n,) index of each face's person, or the number of people for a stranger; None: not known.
            listed: people whose probabilities are kept, the likeliest; None: all up to ``MOST_PEOPLE``, else
                ``LISTED``.
        """
        blocks = [log_probabilities] if isinstance(log_probabilities, np.ndarray) else log_probabilities
        found = [self._block(np.zeros((0, len(self.classes))), None, listed)]
        start = 0
        for logs in blocks:
            own = None if labels is None else labels[start : start + len(logs)]
            found.append(self._block(logs, own, listed))
            start += len(logs)
        parts, *columns = zip(*found, strict=True)
        likely = Likely.joined(parts)
        scores, losses, of_labels = (np.concatenate(column) for column in columns)
        refused = np.zeros(len(scores), bool) if threshold is None else scores > threshold
        photo = np.arange(len(scores)) if photo is None else photo
        elsewhere = better_matched_elsewhere(likely.first, scores, refused, photo)
        confidences = 1 - scores
        if self.calibration.highest_confidence is not None:
            confidences = np.minimum(confidences, self.calibration.highest_confidence)
        about_labels = None if labels is None else AboutLabels(losses, of_labels)
        return Answers(likely, confidences, scores, refused | elsewhere, elsewhere, photo, about_labels)

    def _block(
        self, logs: Float64Array, labels: Array | None, listed: int | None
    ) -> tuple[Likely, Float64Array, Float64Array, Float64Array]:
        """What is kept of a block of log-probabilities (n, outputs): the people's probabilities, and (n,) each the
        unknown-scores, and the losses and probabilities of ``labels`` (n,), NaN where these aren't known."""
        people = len(self.people)
        scaled = self.calibration.apply(logs, people)
        probabilities = over_people(scaled, people)
        losses, of_labels = np.full(len(logs), np.nan), np.full(len(logs), np.nan)
        if labels is not None:
            there, known = np.flatnonzero(labels < logs.shape[1]), np.flatnonzero(labels < people)
            losses[there] = 0.0 - logs[there, labels[there]]  # not -0.0
            of_labels[known] = probabilities[known, labels[known]]
        return Likely.of(probabilities, listed), unknown_score(scaled, people), losses, of_labels

    def labels(self, answers: Answers) -> list[tuple[str, float]]:
        """The answers' labels and confidences, face by face, as ``describe`` has them."""
        columns = (answers.likeliest, answers.confidences, answers.unknown_scores, answers.refused)
        return [
            (UNKNOWN, score) if refused else (self.people[best], confidence)
            for best, confidence, score, refused in zip(*(column.tolist() for column in columns), strict=True)
        ]

    def describe(self, answers: Answers) -> list[Answer]:
        """The answers, face by face."""
        columns = (answers.likeliest.tolist(), answers.unknown_scores.tolist(), answers.given_elsewhere.tolist())
        return [
            Answer(
                label=label,
                confidence=confidence,
                probabilities=named,
                unknown_score=score,
                also_like=self.people[best] if elsewhere else None,
                others=None if answers.likely.listed is None else max(0.0, 1.0 - sum(named.values())),
            )
            for (label, confidence), named, best, score, elsewhere in zip(
                self.labels(answers), answers.likely.named(self.people), *columns, strict=True
            )
        ]
