"""The facts of a run that its report and model card are made of. Names and paths may hold any characters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from facecnn.photos.folder import UNKNOWN

NEARLY_AS_WELL = 0.5
"""Share of what faces add to the accuracy of naming the most frequent person: surroundings that add so much do nearly
as well."""


@dataclass(frozen=True)
class PhotoCount:
    """Photos of one person, or of strangers."""

    name: str
    trained_on: int
    held_out: int


@dataclass(frozen=True)
class PhotoFacts:
    """The photos of a run."""

    counts: Sequence[PhotoCount]
    """The people in natural order of their names, then strangers, if any."""
    own_validation: bool
    """Whether the held-out photos are part of the folder that was trained on."""
    skipped: Sequence[tuple[str, str]]
    """Photos that weren't used, and why."""
    spectators: int = 0
    """Faces beside the people that were trained on as strangers."""

    @property
    def people(self) -> list[PhotoCount]:
        """The counts of the people, without strangers."""
        return [count for count in self.counts if count.name != UNKNOWN]

    @property
    def strangers(self) -> PhotoCount | None:
        """The count of strangers, where the network has an output for them."""
        return next((count for count in self.counts if count.name == UNKNOWN), None)

    @property
    def held_out(self) -> int:
        """Number of held-out photos, including strangers."""
        return sum(count.held_out for count in self.counts)


@dataclass(frozen=True)
class NetworkFacts:
    """What was trained, and with which settings."""

    settings: str
    """YAML, without the folder of photos."""
    preparation: str
    """What the network sees, in words."""
    layers: Sequence[Mapping[str, Any]]
    """From ``network.size.layer_rows``."""
    optimizer: str

    @property
    def by_distance(self) -> bool:
        """Whether it knows strangers by how far they are from its people, without photos of any."""
        return self.optimizer == "class_means"

    @property
    def parameters(self) -> int:
        """Number of trained weights."""
        return sum(int(layer["parameters"]) for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one face."""
        return sum(int(layer["multiply_adds"]) for layer in self.layers)


@dataclass(frozen=True)
class TrainingFacts:
    """How training went."""

    finished: bool
    ended: str | None
    """Date, YYYY-MM-DD; None if training hasn't ended, or its end wasn't recorded."""
    epochs: int
    """Epochs done so far."""
    best_epoch: int
    seconds: float | None
    """Of all epochs together, without reading photos and drawing pictures."""
    seconds_an_epoch: float | None
    photos_per_second: float | None
    result: Mapping[str, Any]
    """The ``train`` JSON; empty where it wasn't recorded."""


@dataclass(frozen=True)
class Answer:
    """The model's answer for a held-out photo.

    Of several faces, it is for the one that decides what the photo counts as: the one with the right name, else the
    best match among those with another name, else the main one.
    """

    path: str
    """PERSON/FILE, as it can be printed."""
    sha256: str
    truth: str
    label: str
    """A person's name, or ``unknown``."""
    confidence: float
    unknown_score: float
    faces: int = 1
    """Number of faces in the photo."""
    face: int = 0
    """Index of the face that the answer is for, 0 for the main one."""

    @property
    def right(self) -> bool:
        """Whether a person is named right, or a stranger refused."""
        return self.label == self.truth


@dataclass(frozen=True)
class HeldOutFacts:
    """How the model does on held-out photos."""

    judged: Mapping[str, Any] | None
    """Figures, as ``eval`` has them; None if there are no such photos."""
    answers: Sequence[Answer]
    logged_accuracy: float | None
    """Validation accuracy logged in the best epoch: without a threshold, and with strangers as one more class."""
    alike: Sequence[tuple[str, str]] = ()
    """People whom the answers don't tell apart."""


@dataclass(frozen=True)
class CalibrationFacts:
    """What was set on held-out photos after training."""

    temperature: float = 1.0
    threshold: float | None = None
    photos: int = 0
    """Held-out photos of the people."""
    strangers: int = 0
    """Held-out photos of strangers."""
    false_accept_rate: float | None = None
    """Share of strangers that the threshold lets through; None if it wasn't set by strangers."""
    highest_confidence: float | None = None
    """The limit of an answer's confidence, if any."""

    @property
    def temperature_set_on(self) -> int:
        """Number of held-out photos that set the temperature."""
        return self.photos + self.strangers if self.photos else 0


@dataclass(frozen=True)
class Background:
    """How much the surroundings of faces give away: closed-set accuracies, 0 to 1, on ``photos`` held-out photos."""

    plain: float
    """With the photos as they are."""
    hidden: float
    """By the same model, with the faces blanked."""
    trained_hidden: float | None
    """By a model that was also trained with blanked faces: all that the surroundings give away. None if not tried."""
    largest_class: float
    """By always naming the most frequent person."""
    photos: int

    @property
    def best_hidden(self) -> float:
        """The higher accuracy without faces."""
        return max(self.hidden, self.trained_hidden or 0.0)

    @property
    def nearly_as_well(self) -> bool:
        """Whether the surroundings alone tell people apart nearly as well as whole photos do."""
        added = self.best_hidden - self.largest_class
        return added > 0 and added >= NEARLY_AS_WELL * (self.plain - self.largest_class)


@dataclass(frozen=True)
class RunFacts:
    """All facts of a run."""

    name: str
    """The run's folder."""
    version: str
    """Of facecnn."""
    photos: PhotoFacts
    network: NetworkFacts
    training: TrainingFacts
    held_out: HeldOutFacts
    calibration: CalibrationFacts
    background: Background | None
    missing: Sequence[str]
    """What isn't in the report and why, a sentence each."""


def confused_pairs(judged: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """Index of a person, index of an answer, and the number of the person's photos that got it, at least 1.

    ``judged``: figures, whose ``confusion`` is a matrix, or of many people already a list of pairs.
    """
    confusion = judged["confusion"]
    if isinstance(confusion, Mapping):
        return list(zip(confusion["row"], confusion["column"], confusion["photos"], strict=True))
    return [
        (row, column, photos) for row, counts in enumerate(confusion) for column, photos in enumerate(counts) if photos
    ]
