"""Find doubtful photos in a labelled album: unlike their folder, blurred, tiny, or with several faces.

Each photo is scored by two models that haven't seen it: a network trained on other photos, and a leave-one-out ridge
regression on gradient histograms.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from facecnn.arrays import Array
from facecnn.config import Loaded
from facecnn.errors import PhotoError, shown
from facecnn.jobs.console import Console
from facecnn.jobs.cross_validate import fold_problem, train_outside, without_early_stopping
from facecnn.jobs.faces import installed_finder
from facecnn.jobs.label_doubts import InspectedPhoto, UnseenAnswers, indistinguishable_people, rank_by_doubt
from facecnn.jobs.people import find_folder, read_people
from facecnn.jobs.shown_photos import show_faces
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.setup import open_for_training
from facecnn.kernels import Device
from facecnn.learning.data import PhotoSet
from facecnn.photos.consensus import folder_scores
from facecnn.photos.dataset import Dataset
from facecnn.photos.decode import UnusablePhoto, decode, read
from facecnn.photos.face import Face
from facecnn.photos.folder import class_order, some
from facecnn.photos.folder_faces import folder_faces
from facecnn.photos.hog import describe
from facecnn.reports import findings
from facecnn.reports.contact_sheet import PhotoCard, Sheet, check_folder, write_contact_sheet
from facecnn.reports.page import THUMBNAIL

MOST_SCORES = 2**28
"""Scores of each photo for each folder, at most: 2 GiB, twice with a network."""

FOLDS = 5

_CHOSEN, _OTHER, _GROUND = (255, 190, 40), (235, 235, 235), (20, 20, 20)  # colours of faces' frames


@dataclass(frozen=True)
class LabelCheck:
    """The result of checking an album."""

    dataset: Dataset
    photos: tuple[InspectedPhoto, ...]
    """All photos, the most doubtful first."""
    alike: tuple[str, ...]
    """A sentence for each pair of folders that may be one person."""
    explanation: str
    """How the photos were judged."""
    page: Path | None
    """The contact sheet, if one was asked for."""


def check_labels(
    loaded: Loaded, options: TrainOptions, console: Console, *, quick: bool = False, out: Path | None = None
) -> LabelCheck:
    """Look for photos that may be in the wrong folder, or show too little.

    ``quick``: train nothing, and score by the ridge regression alone; ``out``: the folder for a contact sheet.

    Raises:
        PhotoError: there is only one folder, a person has a single photo, or photos x folders exceeds ``MOST_SCORES``.
        OutputError: the sheet can't be written.
        FacecnnError: as from ``train``.
    """
    folder = find_folder(options.photos, loaded, console)
    if out is not None:
        check_folder(out, folder)
    device = None if quick else open_for_training(options, console)
    finder = installed_finder(loaded.settings.photos, console, options.threads)
    if loaded.settings.photos.faces == "off":
        console.info("Faces: not looked for (photos.faces is off): the middle of each photo is compared")
    dataset = read_people(folder, loaded.settings.photos, finder, console, strict=False, for_training=True)
    _refuse_single_photos(dataset)
    _refuse_too_many(dataset)
    answers = score_photos(loaded, dataset, device, console)
    photos = rank_by_doubt(dataset, answers)
    names = [shown(name) for name in dataset.people]
    pairs = indistinguishable_people(dataset, answers)
    alike = tuple(findings.people_alike([(names[one], names[other]) for one, other in pairs]))
    explanation = _explanation(quick)
    page = None
    if out is not None:
        page = write_contact_sheet(out, make_sheet(dataset, photos, alike, explanation, console))
    return LabelCheck(dataset, photos, alike, explanation, page)


def score_photos(loaded: Loaded, dataset: Dataset, device: Device | None, console: Console) -> UnseenAnswers:
    """Score each photo by the ridge, and, given a device, by the network trained outside its fold."""
    chosen = folder_faces(dataset, np.arange(len(dataset.paths)), spectators=False)
    for warning in chosen.warnings:
        console.warning(warning)
    rows = chosen.rows(dataset)
    ridge, network = ridge_answers(dataset, rows), None
    if device is not None:
        network = network_answers(loaded, dataset, choose_folds(dataset, console), rows, device, console)
    return UnseenAnswers(rows - dataset.rows, frozenset(chosen.left_out), ridge, network)


def _explanation(quick: bool) -> str:
    ridge = "the ridge (a ridge regression on gradient histograms, with the photo taken out)"
    if quick:
        return f"Each photo was compared with all others by {ridge}. Some right photos are unlike their folder, too."
    return (
        f"Each photo was shown to a network that was trained without it, and to {ridge}. Some right photos are unlike "
        "their folder, too."
    )


def _refuse_too_many(dataset: Dataset) -> None:
    """Raise PhotoError where scores of each photo for each folder would take too much memory."""
    photos, folders = len(dataset.paths), len(dataset.classes)
    if photos * folders > MOST_SCORES:
        raise PhotoError(
            f"{shown(dataset.folder)}: {photos:,} photos and {folders:,} folders are too many to compare each with "
            f"each: the product may be at most {MOST_SCORES:,}: check some of the folders at a time"
        )


def _refuse_single_photos(dataset: Dataset) -> None:
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes)).tolist()
    single = [name for name, count in zip(dataset.classes, counts, strict=True) if count == 1]
    if single:
        names = some([shown(name) for name in sorted(single, key=class_order)])
        raise PhotoError(f"{names}: one photo only, and nothing to compare it with: add photos, or move it elsewhere")


def choose_folds(dataset: Dataset, console: Console) -> tuple[Array, ...]:
    """Split into as many folds as can be used, ``FOLDS`` at most.

    Raises PhotoError if not even two can be used.
    """
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))[: len(dataset.people)]
    fewest = int(counts.argmin())
    why = f"{shown(dataset.people[fewest])} has {counts[fewest]} photos"
    problem = None
    for count in range(min(FOLDS, int(counts[fewest])), 1, -1):
        parts = dataset.folds(count)
        problem = fold_problem(dataset, parts)
        if problem is None:
            fewer = f" (not {FOLDS}, as {why})" if count < FOLDS else ""
            console.info(
                f"Trains {count} times{fewer}, leaving out different photos each time, so each can be judged by a "
                "network that hasn't seen it; --quick doesn't train"
            )
            return parts
        why = "photos that look alike stay together"
    raise PhotoError(f"{shown(dataset.folder)}: {problem or why}")


def ridge_answers(dataset: Dataset, rows: Array) -> Array:
    """(photos, classes): the ridge's scores of each photo, learned from all other photos.

    ``rows``: (photos,) of the face to score in each photo; other faces count as strangers.
    """
    crops = dataset.crops(np.arange(len(dataset.paths)))
    features = describe(np.asarray(dataset.pixels[crops.rows]))
    scored = crops.rows == rows[crops.photo]
    return np.asarray(folder_scores(features, crops.photo, dataset.labels, scored)[scored])


def network_answers(
    loaded: Loaded, dataset: Dataset, parts: Sequence[Array], rows: Array, device: Device, console: Console
) -> Array:
    """(photos, classes): log-probabilities of each photo, by the network trained outside its fold.

    ``parts``: the photos of each fold; ``rows``: (photos,) of the face to score in each photo.
    """
    loaded = without_early_stopping(loaded)
    answers = np.zeros((len(dataset.paths), len(dataset.classes)))
    for number, fold in enumerate(parts, start=1):
        gc.collect()  # see cross_validate
        label = f"Training {number} of {len(parts)}"
        trainer, figures = train_outside(loaded, dataset, fold, device, console, label)
        answers[fold] = trainer.answers(PhotoSet(dataset.pixels, rows[fold], dataset.labels[fold]))
        console.info(f"{label}: {figures['seconds']:.0f} s")
    return answers


def make_sheet(
    dataset: Dataset, photos: Sequence[InspectedPhoto], remarks: Sequence[str], explanation: str, console: Console
) -> Sheet:
    """The contact sheet of an album's photos, which are in order of doubt."""
    with console.counting("Cutting faces") as progress:
        shown = show_faces(dataset, [(photo.photo, photo.number) for photo in photos], progress)
    people: dict[str, list[PhotoCard]] = {name: [] for name in sorted(dataset.classes, key=class_order)}
    with console.counting("Making the contact sheet") as progress:
        for done, (photo, face) in enumerate(zip(photos, shown, strict=True), start=1):
            file = Path(dataset.files[photo.photo])
            card = PhotoCard(
                file=file,
                name=photo.path.partition("/")[2],
                crop=face.pixels,
                photo=_framed(file, dataset.faces[photo.photo], photo.number, dataset.settings.largest_pixels),
                likeliest=photo.likeliest,
                confidence=photo.confidence,
                reasons=photo.reasons,
                is_doubtful=photo.is_doubtful,
            )
            people[photo.folder].append(card)
            progress(done, len(photos))
    return Sheet(
        album=dataset.folder.resolve().name or str(dataset.folder),
        size=(dataset.settings.width, dataset.settings.height),
        explanation=explanation,
        remarks=remarks,
        people=list(people.items()),
    )


def _framed(file: Path, faces: Sequence[Face], chosen: int, largest: int) -> Array | None:
    """A thumbnail of a photo with its faces framed, the chosen one in colour; None for fewer than two faces."""
    if len(faces) < 2:
        return None
    try:
        decoded = decode(read(file, largest), file, largest)
    except UnusablePhoto:  # removed meanwhile
        return None
    picture = decoded.image.convert("RGB")
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    scale = picture.width / decoded.size[0]
    draw = ImageDraw.Draw(picture)
    for number in sorted(range(len(faces)), key=lambda number: number == chosen):  # the chosen one on top
        left, top, right, bottom = (round(scale * edge) for edge in faces[number].box)
        box = (max(left, 0), max(top, 0), min(right, picture.width - 1), min(bottom, picture.height - 1))
        if box[0] >= box[2] or box[1] >= box[3]:
            continue
        wide = 3 if number == chosen else 1
        outside = (box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1)
        draw.rectangle(outside, outline=_GROUND, width=wide + 2)  # an edge that shows on bright photos, too
        draw.rectangle(box, outline=_CHOSEN if number == chosen else _OTHER, width=wide)
    return np.asarray(picture)
