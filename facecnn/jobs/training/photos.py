"""The photos of a training run: which are trained on, which are held out, and a record of this for resuming."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.arrays import Array
from facecnn.config import Loaded, Settings
from facecnn.errors import OutputError, PhotoError, shown
from facecnn.jobs.console import Console
from facecnn.jobs.faces import installed_finder
from facecnn.jobs.people import (
    find_folder,
    output_names,
    photo_set,
    read_people,
    read_people_to_train,
    warn_of_first,
)
from facecnn.jobs.training.options import TrainOptions
from facecnn.learning.data import PhotoSet
from facecnn.photos.dataset import Dataset
from facecnn.photos.face import Finder
from facecnn.photos.folder import UNKNOWN, Skipped, some
from facecnn.photos.folder_faces import FolderFaces, folder_faces, from_record
from facecnn.photos.roster import NO_CHANGES, Roster
from facecnn.reports.findings import counted


@dataclass(frozen=True)
class TrainingPhotos:
    """The photos of a training run."""

    dataset: Dataset
    training: FolderFaces
    """The photos to train on, and which face of each."""
    held_out: Dataset
    """The data set with the held-out photos."""
    held_out_numbers: Array
    """(n,): numbers of the held-out photos in ``held_out``."""
    validation: PhotoSet
    """The held-out photos with one face, which choose the epoch and set temperature and threshold."""
    validation_digests: dict[str, str]
    """SHA-256 of each held-out photo, by PERSON/FILE."""
    validation_folder: Path | None
    """The folder of the held-out photos, if they have their own."""
    settings: Settings
    """Of the training run."""
    roster: Roster = NO_CHANGES
    """Who was added to the people in the folder, or left out."""

    @property
    def classes(self) -> list[str]:
        """Names of the outputs: the people, and ``unknown`` last if strangers have one."""
        return output_names(self.settings, self.dataset)

    @property
    def train_indices(self) -> Array:
        """Numbers of the photos to train on."""
        return self.training.photos

    @property
    def train_photos(self) -> PhotoSet:
        """The photos to train on, with the chosen face of each."""
        dataset, photos = self.dataset, self.train_indices
        return PhotoSet(dataset.pixels, self.training.rows(dataset)[photos], dataset.labels[photos])

    @property
    def skipped(self) -> int:
        """Number of photos that aren't used."""
        return len(self.dataset.skipped) + (0 if self.validation_folder is None else len(self.held_out.skipped))

    @property
    def counts(self) -> dict[str, int]:
        """``photos`` of the ``train`` JSON."""
        return {"train": len(self.train_indices), "validation": len(self.held_out_numbers), "skipped": self.skipped}

    @property
    def trained_on(self) -> npt.NDArray[np.uint8]:
        """(n, 32): SHA-256 of the photos to train on."""
        digests = [bytes.fromhex(self.dataset.sha256[number]) for number in self.train_indices]
        return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)

    def record(self) -> dict[str, Any]:
        """The contents of the run's split.json, for ``read_photos_again``."""
        dataset = self.dataset
        return {
            "classes": list(dataset.classes),
            "train": {dataset.paths[number]: dataset.sha256[number] for number in self.train_indices.tolist()},
            **self.training.record(dataset),
            "validation": self.validation_digests,
            "validation_folder": None if self.validation_folder is None else str(self.validation_folder),
            **self.roster.record(),
        }


def read_photos(loaded: Loaded, options: TrainOptions, console: Console) -> TrainingPhotos:
    """Read the photos for a new training, and split them unless ``options.validation`` has the held-out ones.

    Raises PhotoError if the photos can't be trained on, and with ``options.strict`` OutputError if they are
    doubtful.
    """
    strict = options.strict
    settings = loaded.settings.photos
    folder = find_folder(options.photos, loaded, console)
    finder = installed_finder(settings, console, options.threads)
    roster = options.roster
    dataset = read_people_to_train(folder, loaded.settings, finder, console, strict=strict, roster=roster)
    if options.validation is not None:
        training = _choose_faces(dataset, np.arange(len(dataset.labels)), strict, console)
        photos = _with_validation_folder(loaded.settings, dataset, training, options.validation, strict, console)
        return replace(photos, roster=roster)
    split = dataset.split(loaded.settings.train.seed)
    warn(list(split.warnings), strict, console)
    if not settings.validation:
        console.warning("photos.validation is 0: nothing is held out, so nobody knows how good this is")
    training = _choose_faces(dataset, split.training, strict, console)
    return replace(_with_own_validation(loaded.settings, dataset, training, split.validation), roster=roster)


def read_photos_again(
    record: Mapping[str, Any],
    run: Path,
    folder: Path | None,
    loaded: Loaded,
    finder: Finder | None,
    strict: bool,
    console: Console,
) -> TrainingPhotos:
    """Read the photos of a run again, to continue it. Warns if they have changed.

    Args:
        record: the run's split.json, which says which photos are trained on.
        folder: of the photos, if not that of the settings.
        finder: the face finder that the run was started with.
        strict: raise OutputError where photos have changed or are doubtful.

    Raises:
        PhotoError: the people are others, or one of them has no photo left to train on.
        OutputError: see ``strict``.
    """
    folder = find_folder(folder, loaded, console)
    roster = Roster.from_record(record)
    dataset = read_people_to_train(folder, loaded.settings, finder, console, strict=strict, roster=roster)
    own = dict(zip(dataset.paths, dataset.sha256, strict=True))
    training = _same_people(record, run, dataset)
    left_out = {path: photo["sha256"] for path, photo in record.get("left_out", {}).items()}
    if record["validation_folder"] is not None:
        other = Path(record["validation_folder"])
        photos = _with_validation_folder(loaded.settings, dataset, training, other, strict, console)
        found = [
            changes({**record["train"], **left_out}, own),
            changes(record["validation"], photos.validation_digests),
        ]
    else:
        kept = np.array([index for index, path in enumerate(dataset.paths) if path in record["validation"]], np.int64)
        photos = _with_own_validation(loaded.settings, dataset, training, kept)
        found = [changes({**record["train"], **left_out, **record["validation"]}, own)]
    counts = [sum(map(len, paths)) for paths in zip(*found, strict=True)]
    if any(counts):
        what = "{} gone, {} with other contents, {} new (left out)".format(*counts)
        message = f"the photos have changed since the run was started: {what}: it continues, but to another result"
        warn([message], strict, console)
    return replace(photos, roster=roster)


def _same_people(record: Mapping[str, Any], run: Path, dataset: Dataset) -> FolderFaces:
    """The training photos of a run. Raises PhotoError if its people are others, or nothing of one of them is left."""
    before, now = set(record["classes"]), set(dataset.classes)
    if before != now:
        gone, new = some(sorted(map(shown, before - now))), some(sorted(map(shown, now - before)))
        raise PhotoError(
            f"{shown(dataset.folder)}: other people than when {shown(run)} was started "
            f"(gone: {gone or 'nobody'}; new: {new or 'nobody'}): start a new run"
        )
    training = from_record(record, dataset)
    lost = [shown(name) for label, name in enumerate(dataset.classes) if label not in dataset.labels[training.photos]]
    if lost:
        raise PhotoError(
            f"{shown(dataset.folder)}: no photo of {some(lost)} is left of those that {shown(run)} was started "
            "with: put them back, or start a new run"
        )
    return training


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[list[str], list[str], list[str]]:
    """The photos (SHA-256 by PERSON/FILE) that are gone, that have other contents, and that are new."""
    gone = [path for path in before if path not in now]
    changed = [path for path, digest in before.items() if path in now and now[path] != digest]
    return gone, changed, [path for path in now if path not in before]


def _choose_faces(dataset: Dataset, among: Array, strict: bool, console: Console) -> FolderFaces:
    """Choose the faces to train on, and report on photos with several."""
    chosen = folder_faces(dataset, among)
    several = int((~dataset.show_one_face(chosen.photos)).sum())
    others = int((chosen.faces > 0).sum())
    if several:
        console.info(
            f"In {others} of {counted(several, 'photo')} with several faces, another face than the main one is the "
            "person's"
        )
    if len(chosen.spectators):
        console.info(
            f"{counted(len(chosen.spectators), 'face')} beside the people, like none of them: trained on as strangers"
        )
    lines = [f"{shown(dataset.paths[number])}: {reason}" for number, reason in chosen.left_out.items()]
    if lines:
        console.warning(f"{counted(len(lines), 'photo')} with several faces left out:")
        warn_of_first(lines, console)
    warn_of_first(list(chosen.warnings), console)
    if strict and (lines or chosen.warnings):
        raise OutputError("--strict: see the warnings above: fix what they name, or leave --strict out")
    return chosen


def _with_own_validation(settings: Settings, dataset: Dataset, training: FolderFaces, kept: Array) -> TrainingPhotos:
    digests = {dataset.paths[number]: dataset.sha256[number] for number in kept.tolist()}
    alone = photo_set(dataset, kept[dataset.show_one_face(kept)])
    return TrainingPhotos(_with_left_out(dataset, training), training, dataset, kept, alone, digests, None, settings)


def _with_validation_folder(
    settings: Settings, dataset: Dataset, training: FolderFaces, folder: Path, strict: bool, console: Console
) -> TrainingPhotos:
    other = read_people(folder, dataset.settings, dataset.finder, console, strict=strict, for_training=False)
    labels = _labels_in(dataset, other, folder)
    warn(_doubts(dataset, other), strict, console)
    numbers = np.arange(len(other.labels))
    alone = photo_set(other, numbers[other.show_one_face(numbers)], labels)
    digests = dict(zip(other.paths, other.sha256, strict=True))
    return TrainingPhotos(
        _with_left_out(dataset, training), training, other, numbers, alone, digests, folder.absolute(), settings
    )


def _with_left_out(dataset: Dataset, training: FolderFaces) -> Dataset:
    """The data set, with photos in which no face fits added to the skipped ones."""
    left_out = [Skipped(shown(dataset.paths[number]), reason) for number, reason in training.left_out.items()]
    return replace(dataset, skipped=(*dataset.skipped, *left_out)) if left_out else dataset


def _labels_in(dataset: Dataset, other: Dataset, folder: Path) -> Array:
    extra = [shown(name) for name in other.classes if name not in dataset.classes]
    if extra:
        missing = _missing(dataset, other)
        raise PhotoError(
            f"{shown(folder)}: {some(extra)} can't be judged: not among the people to train on "
            f"({some([shown(name) for name in dataset.classes])})"
            + (f"; and there are no photos of {some(missing)}" if missing else "")
        )
    number = np.array([dataset.classes.index(name) for name in other.classes], np.int64)
    return number[other.labels]


def _doubts(dataset: Dataset, other: Dataset) -> list[str]:
    """What is doubtful about judging training on ``dataset`` by ``other``."""
    doubts = []
    own = set(dataset.sha256)
    shared = [shown(path) for path, digest in zip(other.paths, other.sha256, strict=True) if digest in own]
    if shared:
        photos = "1 photo is" if len(shared) == 1 else f"{len(shared)} photos are"
        doubts.append(f"{photos} in both folders, so the validation flatters: {some(shared)}")
    missing = _missing(dataset, other)
    if missing:
        doubts.append(f"no validation photos of {some(missing)}")
    return doubts


def _missing(dataset: Dataset, other: Dataset) -> list[str]:
    """The people who are only in ``dataset``."""
    return [shown(name) for name in dataset.classes if name not in other.classes and name != UNKNOWN]


def warn(doubts: list[str], strict: bool, console: Console) -> None:
    """Show the doubts as warnings. Raises OutputError if there are any and ``strict`` is set."""
    for doubt in doubts:
        console.warning(doubt)
    if strict and doubts:
        raise OutputError("--strict: see the warnings above: fix what they name, or leave --strict out")
