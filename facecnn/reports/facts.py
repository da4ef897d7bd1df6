"""What is known of a run, as its report and its model card tell it. Names and paths may hold any characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from facecnn.photos.folder import UNKNOWN

NEARLY_AS_WELL = 0.5
"""From this share on of what the face adds to naming the most frequent person, the surroundings do nearly as well."""


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
    """The people in the natural order of their names, and strangers last where there are."""
    own_validation: bool
    """Whether the held-out photos are a part of the folder that was trained on."""
    skipped: Sequence[tuple[str, str]]
    """Photos that weren't used, and why."""
    spectators: int = 0
    """So many faces beside the people were trained on as strangers, too."""

    @property
    def people(self) -> list[PhotoCount]:
        """Without strangers."""
        return [count for count in self.counts if count.name != UNKNOWN]

    @property
    def strangers(self) -> PhotoCount | None:
        """Photos of strangers, where the network has an output for them."""
        return next((count for count in self.counts if count.name == UNKNOWN), None)

    @property
    def held_out(self) -> int:
        """How many weren't trained on, strangers' included."""
        return sum(count.held_out for count in self.counts)


@dataclass(frozen=True)
class NetworkFacts:
    """What was trained, and by which settings."""

    settings: str
    """YAML, without the folder of photos."""
    preparation: str
    """What the network sees, in words."""
    layers: Sequence[Mapping[str, Any]]
    """name, input, output, parameters and multiply_adds of each."""
    optimizer: str

    @property
    def parameters(self) -> int:
        """Trained numbers."""
        return sum(int(layer["parameters"]) for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """For the answer about one face."""
        return sum(int(layer["multiply_adds"]) for layer in self.layers)


@dataclass(frozen=True)
class TrainingFacts:
    """How training went."""

    finished: bool
    ended: str | None
    """Date, YYYY-MM-DD; None of a training that hasn't ended, or whose end wasn't noted."""
    epochs: int
    """That the training has had."""
    best_epoch: int
    seconds: float | None
    """Of all epochs together, without reading photos and drawing pictures."""
    seconds_an_epoch: float | None
    photos_per_second: float | None
    result: Mapping[str, Any]
    """The ``train`` JSON; empty where it wasn't noted."""


@dataclass(frozen=True)
class Answer:
    """What the model says of one held-out photo: of several faces that of the one which decides what it counts as (the
    one that was given the right name, else the best match of those that were given another, else the main one)."""

    path: str
    """PERSON/FILE, as it can be printed."""
    sha256: str
    truth: str
    label: str
    """A person's name, or ``unknown``."""
    confidence: float
    unknown_score: float
    faces: int = 1
    """How many there are in the photo."""
    face: int = 0
    """Which of them this is about, the main one being 0."""

    @property
    def right(self) -> bool:
        """Whether a person is named so, or a stranger refused."""
        return self.label == self.truth


@dataclass(frozen=True)
class HeldOutFacts:
    """How the model does on held-out photos."""

    judged: Mapping[str, Any] | None
    """Figures, as ``eval`` has them; None where there are no such photos."""
    answers: Sequence[Answer]
    logged_accuracy: float | None
    """As the log of the best epoch has it: the likeliest output's, strangers being one more name, without a
    threshold."""
    alike: Sequence[tuple[str, str]] = ()
    """People whom the answers don't tell apart."""


@dataclass(frozen=True)
class CalibrationFacts:
    """What was set on held-out photos when the training had ended."""

    temperature: float = 1.0
    threshold: float | None = None
    photos: int = 0
    """So many held-out photos of the people set temperature and threshold."""
    strangers: int = 0
    """So many of strangers set them, too."""
    false_accept_rate: float | None = None
    """Share of strangers that the threshold was set to let through; None where it wasn't set by strangers."""
    highest_confidence: float | None = None
    """No answer claims more; None: no limit."""

    @property
    def temperature_set_on(self) -> int:
        """So many held-out photos set the temperature: none, or those of the people and of strangers."""
        return self.photos + self.strangers if self.photos else 0


@dataclass(frozen=True)
class Background:
    """How much the surroundings of the faces tell: shares, 0 to 1, of ``photos`` held-out photos of known people whose
    likeliest person is the right one, nobody being refused."""

    plain: float
    """With the photos as they are."""
    hidden: float
    """By the same model, with the faces blanked."""
    trained_hidden: float | None
    """By a model trained on photos with blanked faces, too: all that the surroundings give away. None unless that was
    tried."""
    largest_class: float
    """By naming the most frequent person always."""
    photos: int

    @property
    def best_hidden(self) -> float:
        """The higher one of those without a face."""
        return max(self.hidden, self.trained_hidden or 0.0)

    @property
    def nearly_as_well(self) -> bool:
        """Whether the surroundings alone tell people apart nearly as well as whole photos do."""
        added = self.best_hidden - self.largest_class
        return added > 0 and added >= NEARLY_AS_WELL * (self.plain - self.largest_class)


@dataclass(frozen=True)
class RunFacts:
    """All that a report and a model card are made of."""

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
