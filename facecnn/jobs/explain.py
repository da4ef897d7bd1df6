"""Pictures that explain answers: which parts of a face they are based on."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from facecnn.arrays import UInt8Array
from facecnn.jobs.console import Console
from facecnn.jobs.devices import open_and_show
from facecnn.jobs.models import Model, open_model
from facecnn.jobs.pictures import PictureNames, make_pictures, named_face
from facecnn.network.inference import views_at_test_time
from facecnn.network.sensitivity import GREY, LogOdds, occlusion, prepared_inputs, smooth_gradient
from facecnn.photos.companions import EXPLAINED
from facecnn.photos.decode import Decoded, decode, read
from facecnn.photos.face import Face
from facecnn.photos.preparation import PhotoSettings, crop_with_margin, without_margin
from facecnn.photos.reduced import cut_faces, decode_to_find
from facecnn.reports.explanation import FaceMaps, draw_explanation

MOST_FACES = 4
"""Number of a photo's faces that get maps, the largest first."""

LARGEST_SIDE = 900
"""Pixels of the photo's longer side in its picture."""


def explain(
    model_path: Path,
    results: Sequence[dict[str, Any]],
    folder: Path,
    console: Console,
    device_name: str = "auto",
    threads: int | None = None,
) -> list[Path]:
    """Draw an explanation of each answered photo.

    The picture of PHOTO is PHOTO.explained.png, or PHOTO-2.explained.png and so on where the name is taken, since no
    file is replaced. Photos without a face or an answer, and pictures of this kind, are skipped with a message.

    ``results``: the ``predict`` JSON; ``folder`` is made if missing.

    Returns:
        The files written.

    Raises:
        CheckpointError: the model can't be read.
        DeviceError: the device can't be used.
        OutputError: a picture can't be written.
    """
    names = PictureNames(folder, EXPLAINED)
    backend = open_and_show(device_name, threads, console).backend
    model = open_model(model_path, backend, threads)
    return make_pictures(results, names, ("explaining", "explained"), partial(_explain_photo, model), console)


def _explain_photo(model: Model, result: dict[str, Any], picture: Path) -> None:
    path = Path(result["path"])
    largest = model.settings.photos.largest_pixels
    data = read(path, largest)
    decoded = decode(data, path, largest)
    reduced = decoded.image.convert("RGB")
    reduced.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    scale = reduced.width / decoded.size[0], reduced.height / decoded.size[1]
    faces = [named_face(face, scale) for face in result["faces"]]
    crops = _crops(model.settings.photos, data, decoded, path, result["faces"])
    maps = {index: _maps(model, crops[index], result["faces"][index]) for index in _largest(result["faces"])}
    draw_explanation(picture, path.name, reduced, faces, maps, model.recogniser.people)


def _largest(faces: Sequence[dict[str, Any]]) -> list[int]:
    """The indices of the largest faces, ascending."""

    def area(index: int) -> float:
        left, top, right, bottom = faces[index]["box"]
        return float((right - left) * (bottom - top))

    return sorted(sorted(range(len(faces)), key=area, reverse=True)[:MOST_FACES])


def _crops(
    settings: PhotoSettings, data: bytes, decoded: Decoded, path: Path, faces: Sequence[dict[str, Any]]
) -> UInt8Array:
    """The crops of a photo's faces in the predict JSON, as predict made them: (faces, height, width, channels)."""
    if any(face["landmarks"] is None for face in faces):
        return crop_with_margin(decoded.image, settings)[None]
    searched = decode_to_find(data, path, settings.largest_pixels)
    found = []
    for face in faces:
        first, second, nose, *mouth = ((x, y) for x, y in face["landmarks"])
        left, top, right, bottom = face["box"]
        whole = Face((left, top, right, bottom), (first, second, nose, mouth[0], mouth[1]), score=1.0)
        found.append(whole.scaled(1 / searched.reduction))
    return cut_faces(data, path, searched, found, settings)


def _maps(model: Model, stored: UInt8Array, face: dict[str, Any]) -> FaceMaps:
    """The maps of one face of the predict JSON, whose crop is ``stored``."""
    recogniser, settings = model.recogniser, model.settings.photos
    likeliest = max(face["probabilities"], key=face["probabilities"].get)
    looks = views_at_test_time(recogniser.mirror, recogniser.shift)
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
