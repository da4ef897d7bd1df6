"""Answer who is in photos."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facecnn.errors import shown
from facecnn.jobs.console import Console
from facecnn.jobs.devices import part_of_machine
from facecnn.jobs.models import NO_STRANGERS, UNFINISHED, Model, open_for_answers, read_model, soonest_device
from facecnn.jobs.sharing import PHOTOS, or_silent, warn_of_lost
from facecnn.parallel.ranks import ALONE, PortionSize, Ranks, Silent
from facecnn.photos.cache import LoadedPhotos, crops_of
from facecnn.photos.dataset import Listing, list_files, load_files
from facecnn.photos.face import SHOWS_NOBODY
from facecnn.photos.preparation import PhotoSettings
from facecnn.recognition import Answer

NO_FACE_LABEL = "no_face"
"""The answer for a photo in which no face was found."""

_NOTHING: dict[str, Any] = {
    "label": None,
    "confidence": None,
    "probabilities": None,
    "unknown_score": None,
    "also_like": None,
    "box": None,
    "faces": [],
    "error": None,
}


def predict(
    model_path: Path,
    photos: Iterable[Path],
    threshold: float | str,
    console: Console,
    device_name: str = "auto",
    threads: int | None = None,
    ranks: Ranks = ALONE,
) -> list[dict[str, Any]]:
    """Answer for each photo.

    Args:
        photos: files, and folders, which stand for the photos in them.
        threshold: "auto", "off", or the unknown-score above which a face is a stranger's.
        ranks: the processes that share the photos; all of them have the same arguments.

    Returns:
        The ``predict`` JSON, in the order of ``photos``; empty on other ranks than 0. A photo's ``faces`` begin with
        the main one, whose answer is the photo's. A name is given at most once in a photo: a face whose name fits
        another one better is ``unknown`` and has the name in ``also_like``. A photo without an answer has ``label``
        None and an ``error``.

    Raises:
        CheckpointError: the model can't be read.
        DeviceError: the device can't be used.
    """
    photos = list(photos)
    device_name, threads = part_of_machine(device_name, threads, ranks)
    file = read_model(model_path)
    console.info(f"Model: {shown(model_path)}")
    model = open_for_answers(file, photos, device_name, threads, console)
    if not model.calibrated:
        console.info(UNFINISHED)
    limit = model.recogniser.threshold(threshold)
    if limit is None and threshold == "auto":
        console.info("This model has no threshold for strangers: everybody is named as one of its people.")
    elif limit is not None and not model.recogniser.knows_strangers:
        console.info(NO_STRANGERS)
    listing = ranks.broadcast(list_files(photos) if ranks.rank == 0 else None)
    answering = _Answering(model, listing, limit, threads)
    # Where NumPy stands in, there is little to do, and NumPy rounds differently with other photos in a batch.
    together = soonest_device(file, photos, device_name) != device_name
    size = PortionSize(smallest=max(1, len(listing.files))) if together else PHOTOS
    with console.counting("Reading photos") as progress:
        results = ranks.share_out(len(listing.files), or_silent(answering.answer, ranks), size, progress)
    for line in (*dict.fromkeys(answering.warnings), *listing.warnings):
        console.info(line)
    warn_of_lost(ranks, console)
    return [
        {"path": str(listing.files[number]), **_NOTHING, "error": result.reason}
        if isinstance(result, Silent)
        else result
        for number, result in enumerate(results)
    ]


class _Answering:
    """Answers for the photos of a listing, a portion at a time."""

    def __init__(self, model: Model, listing: Listing, limit: float | None, threads: int | None) -> None:
        self._model, self._listing, self._limit, self._threads = model, listing, limit, threads
        self.warnings: list[str] = []
        """About the cache."""

    def answer(self, start: int, stop: int, done: Callable[[int], None]) -> list[dict[str, Any]]:
        """The result of each photo from ``start`` to ``stop``."""
        model, photos = self._model, self._listing.part(start, stop)
        loaded = load_files(
            photos,
            model.settings.photos,
            lambda read, total: done(read),
            finder=model.finder,
            workers=self._threads,
        )
        self.warnings += loaded.warnings
        return answer(model, loaded, self._limit)


def answer(
    model: Model, loaded: LoadedPhotos, limit: float | None, *, keep: bool = True, listed: int | None = None
) -> list[dict[str, Any]]:
    """Answer for photos that have been read.

    Args:
        limit: the unknown-score above which a face is a stranger's; None: nobody is.
        keep: whether embeddings may be kept on disk.
        listed: see ``Recogniser.answers_from``.

    Returns:
        As ``predict``.
    """
    usable = np.flatnonzero(loaded.row >= 0)
    crops = crops_of(loaded.row[usable], [loaded.faces[number] for number in usable.tolist()])
    answers = model.recogniser.answers(loaded.pixels, crops.rows, limit, crops.photo, keep=keep, listed=listed)
    described = dict(zip(usable.tolist(), crops.by_photo(model.recogniser.describe(answers)), strict=True))
    settings = model.settings.photos
    return [
        {"path": str(path), **_NOTHING, **_result(loaded, number, described.get(number, []), settings)}
        for number, path in enumerate(loaded.paths)
    ]


def _result(loaded: LoadedPhotos, number: int, answers: Sequence[Answer], settings: PhotoSettings) -> dict[str, Any]:
    """The result of photo ``number``, from the answers for its faces, the main one first."""
    reason = loaded.reasons[number]
    if reason is not None:
        nobody = NO_FACE_LABEL if reason in SHOWS_NOBODY else None
        return {"label": nobody, "error": None if nobody else reason}
    width, height = loaded.sizes[number].tolist()
    places = [
        {"box": list(face.box), "landmarks": [list(point) for point in face.landmarks]} for face in loaded.faces[number]
    ] or [{"box": list(settings.window(width, height)), "landmarks": None}]
    found = [{**place, **answer.as_dict()} for place, answer in zip(places, answers, strict=True)]
    main = {key: value for key, value in found[0].items() if key != "landmarks"}
    return {**main, "faces": found}
