"""Why this name? Pictures of what answers rest on."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from facecnn.errors import shown
from facecnn.jobs.console import Console
from facecnn.jobs.devices import open_and_show
from facecnn.jobs.models import Model, open_model
from facecnn.network.inference import views
from facecnn.network.sensitivity import GREY, LogOdds, occlusion, prepared_inputs, smooth_gradient
from facecnn.photos.decode import Decoded, UnusablePhoto, decode, read
from facecnn.photos.face import Face
from facecnn.photos.folder import some
from facecnn.photos.preparation import aligned_crop, crop_with_margin, without_margin
from facecnn.runs.atomic import make_folder
from facecnn.runs.explanation import FaceMaps, NamedFace, draw_explanation

Array = npt.NDArray[Any]

MOST_FACES = 4
"""So many faces of a photo get maps."""

LARGEST_SIDE = 900
"""Pixels of a photo's longer side in the picture."""

SUFFIX = ".explained.png"
_LONGEST_NAME = 200  # bytes: most file systems take 255


def explain(
    model_path: Path,
    results: Sequence[dict[str, Any]],
    folder: Path,
    console: Console,
    device_name: str = "auto",
    threads: int | None = None,
) -> list[Path]:
    """A picture for each answered photo of ``results`` (the ``predict`` JSON), in ``folder``, which is made if missing.

    PHOTO's picture is PHOTO.explained.png; a second photo of that name gets PHOTO-2.explained.png, in the order of
    ``results``. Pictures of these names that are there are replaced, but never one that is itself among the photos.
    Photos without an answer, or without a face, get none, and are told.

    Raises CheckpointError, DeviceError, OutputError.
    """
    make_folder(folder)
    kernels = open_and_show(device_name, threads, console).kernels
    model = open_model(model_path, kernels, threads)
    names = picture_names([result["path"] for result in results], folder)
    without: list[str] = []
    written: list[Path] = []
    with console.counting("Explaining photos") as progress:
        for number, (result, name) in enumerate(zip(results, names, strict=True), 1):
            try:
                if result["faces"]:
                    _explain_photo(model, result, folder / name)
                    written.append(folder / name)
                else:
                    without.append(shown(result["path"]))
            except UnusablePhoto as error:  # readable when it was answered, but not any more
                without.append(str(error))
            progress(number, len(results))
    console.info(f"Explained: {len(written)} of {len(results)} photos, in {shown(folder)}")
    if without:
        console.info(f"Not explained, as there is no face with an answer: {some(without)}")
    return written


def picture_names(photos: Iterable[str], folder: Path) -> list[str]:
    """A file name for each photo's picture, no two alike, also where a file system takes no account of case."""
    paths = [Path(photo) for photo in photos]
    taken = {_folded(path.name) for path in paths if _is_in(path, folder)}
    names = []
    for path in paths:
        stem = path.stem
        while len(os.fsencode(stem)) > _LONGEST_NAME:
            stem = stem[:-1]
        name, count = f"{stem}{SUFFIX}", 1
        while _folded(name) in taken:
            count += 1
            name = f"{stem}-{count}{SUFFIX}"
        taken.add(_folded(name))
        names.append(name)
    return names


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _is_in(path: Path, folder: Path) -> bool:
    return os.path.realpath(path.parent) == os.path.realpath(folder)


def _explain_photo(model: Model, result: dict[str, Any], picture: Path) -> None:
    path = Path(result["path"])
    largest = model.settings.photos.largest_pixels
    decoded = decode(read(path, largest), path, largest)
    reduced = decoded.image.convert("RGB")
    reduced.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    scale = reduced.width / decoded.size[0]
    people = model.recogniser.people
    faces = [
        NamedFace(
            box=_scaled(face["box"], scale),
            name=face["label"],
            is_person=face["label"] in people,
            confidence=face["confidence"],
        )
        for face in result["faces"]
    ]
    maps = [_maps(model, decoded, face) for face in result["faces"][:MOST_FACES]]
    draw_explanation(picture, path.name, np.asarray(reduced), faces, maps, people)


def _scaled(box: Sequence[float], scale: float) -> tuple[float, float, float, float]:
    left, top, right, bottom = (scale * edge for edge in box)
    return left, top, right, bottom


def _maps(model: Model, photo: Decoded, face: dict[str, Any]) -> FaceMaps:
    """What the answer for one face of the predict JSON rests on."""
    recogniser, settings = model.recogniser, model.settings.photos
    if face["landmarks"] is None:
        stored = crop_with_margin(photo.image, settings)
    else:
        first, second, nose, *mouth = ((x, y) for x, y in face["landmarks"])
        found = Face(_scaled(face["box"], 1.0), (first, second, nose, mouth[0], mouth[1]), score=1.0)
        stored = aligned_crop(photo.image, found.scaled(1 / photo.reduction), settings)
    likeliest = max(face["probabilities"], key=face["probabilities"].get)
    looks = views(recogniser.mirror, recogniser.shift)
    x = prepared_inputs(recogniser.network, stored[None], recogniser.normalise, looks)[0]
    calibration, classes = recogniser.calibration, recogniser.classes
    biases = calibration.biases(len(classes), len(recogniser.people))
    log_odds = LogOdds(recogniser.network, classes.index(likeliest), calibration.temperature, biases)
    covered = occlusion(log_odds, x, GREY[recogniser.normalise], looks)
    return FaceMaps(
        person=likeliest,
        crop=without_margin(stored, settings),
        seen=x[0],
        drop=covered.drop,
        before=covered.before,
        lowest=covered.lowest,
        gradient=smooth_gradient(log_odds, x, looks),
    )
