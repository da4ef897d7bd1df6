"""The photos of a job: find the folder, read it, and report what is wrong with it."""

from pathlib import Path

import numpy as np

from facecnn.config import Loaded, Settings
from facecnn.errors import OutputError, PhotoError, shown
from facecnn.jobs.console import Console
from facecnn.jobs.faces import installed_finder
from facecnn.learning.data import PhotoSet
from facecnn.learning.optimizers import ClassMeans
from facecnn.photos.dataset import Dataset, grouped, load_dataset
from facecnn.photos.face import Finder
from facecnn.photos.folder import UNKNOWN, refuse_no_folder, remarks
from facecnn.photos.preparation import PhotoSettings
from facecnn.photos.roster import NO_CHANGES, Roster
from facecnn.photos.sample import sample_folder

DEFAULT_FOLDER = Path("data/photos")

MESSAGES_SHOWN = 10
"""Warnings of one kind that are printed; the others are counted."""


def find_folder(argument: Path | None, loaded: Loaded, console: Console) -> Path:
    """The folder of photos: the argument, else that of the config, else data/photos, else the two sample people.

    Raises PhotoError if the config's folder is missing, or there is none of these (the sample needs its extra).
    """
    if argument is not None:
        return _expanded(argument)
    written = loaded.settings.photos.folder
    if written is not None:
        try:
            folder = _expanded(Path(written))
            refuse_no_folder(folder)
        except PhotoError as error:  # the user didn't type the folder: name the file and line
            raise PhotoError(f"{loaded.where(('photos', 'folder'))}: photos.folder: {error}") from error
        return folder
    if DEFAULT_FOLDER.is_dir() and any(not entry.name.startswith(".") for entry in DEFAULT_FOLDER.iterdir()):
        console.info(f"Photos: {DEFAULT_FOLDER} (no PHOTOS given)")
        return DEFAULT_FOLDER
    folder = sample_folder()
    console.info("Photos: two sample people of the ORL faces (no PHOTOS given, and no data/photos here)")
    return folder


def read_all_people(folder: Path, loaded: Loaded, console: Console, threads: int | None, *, strict: bool) -> Dataset:
    """``read_people`` for runs that each leave out some photos, with the face finder that the settings ask for."""
    finder = installed_finder(loaded.settings.photos, console, threads)
    return read_people_to_train(folder, loaded.settings, finder, console, strict=strict)


def read_people_to_train(
    folder: Path,
    settings: Settings,
    finder: Finder | None,
    console: Console,
    *,
    strict: bool,
    roster: Roster = NO_CHANGES,
) -> Dataset:
    """``read_people`` for training with these settings."""
    enough = knows_strangers_by_distance(settings)
    return read_people(
        folder, settings.photos, finder, console, strict=strict, for_training=True, one_is_enough=enough, roster=roster
    )


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise PhotoError(
            f"{shown(path)}: the home folder that ~ stands for isn't known: write the full path"
        ) from error


def read_people(
    folder: Path,
    settings: PhotoSettings,
    finder: Finder | None,
    console: Console,
    *,
    strict: bool,
    for_training: bool,
    one_is_enough: bool = False,
    roster: Roster = NO_CHANGES,
) -> Dataset:
    """Load a folder with one folder of photos per person, and report what is wrong with it.

    Raises PhotoError as ``load_dataset`` does, and with ``strict`` OutputError where a photo was skipped or a warning
    given.
    """
    with console.counting("Reading photos") as progress:
        dataset = load_dataset(
            folder,
            settings,
            progress,
            finder=finder,
            for_training=for_training,
            one_is_enough=one_is_enough,
            roster=roster,
        )
    skipped = [f"{photo.path}: {photo.reason}" for photo in dataset.skipped]
    if skipped:
        console.warning(f"{len(skipped)} photo{'s' if len(skipped) > 1 else ''} skipped:")
        warn_of_first(skipped, console)
    warn_of_first(list(dataset.warnings), console)
    for note in [*grouped(dataset.notes), *remarks(dataset.passed_over)]:
        console.info(note)
    if strict and (skipped or dataset.warnings):
        raise OutputError(
            f"--strict: {len(skipped)} photos of {shown(folder)} skipped, {len(dataset.warnings)} warnings about them: "
            "fix what is listed above, or leave --strict out"
        )
    return dataset


def warn_of_first(lines: list[str], console: Console) -> None:
    """Show the first lines as warnings, and count the others."""
    for line in lines[:MESSAGES_SHOWN]:
        console.warning(line)
    if len(lines) > MESSAGES_SHOWN:
        console.warning(f"... and {len(lines) - MESSAGES_SHOWN} more (facecnn data check lists all)")


def output_names(settings: Settings, dataset: Dataset) -> list[str]:
    """Names of the outputs of a network for a data set: its classes and, since a model of class means knows strangers
    by their distance, ``unknown`` last even without photos of any."""
    names = list(dataset.classes)
    return [*names, UNKNOWN] if knows_strangers_by_distance(settings) and UNKNOWN not in names else names


def knows_strangers_by_distance(settings: Settings) -> bool:
    """Whether a model recognises strangers without photos of any, and so needs no second person either."""
    return isinstance(settings.optimizer, ClassMeans)


def photo_set(dataset: Dataset, chosen: np.ndarray | None = None, labels: np.ndarray | None = None) -> PhotoSet:
    """The photos of a data set, or those numbered ``chosen``, with its own or other ``labels``."""
    labels = dataset.labels if labels is None else labels
    if chosen is None:
        return PhotoSet(dataset.pixels, dataset.rows, labels)
    return PhotoSet(dataset.pixels, dataset.rows[chosen], labels[chosen])
