"""Add a person to a model, without training if it was made from class means."""

import unicodedata
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from facecnn.arrays import Float32Array, Int64Array
from facecnn.body.threshold import unit
from facecnn.errors import PhotoError, UsageError, shown
from facecnn.jobs.console import Console
from facecnn.jobs.membership import People, digests_of, needs_no_training, run_of, train_anew, write_run
from facecnn.jobs.models import TRAINED_ON, Model, open_for_answers, read_model
from facecnn.jobs.people import warn_of_first
from facecnn.jobs.training.options import TrainOptions
from facecnn.photos.cache import LoadedPhotos, crops_of
from facecnn.photos.dataset import load_files, photo_name
from facecnn.photos.folder import UNKNOWN, is_folder, list_photos
from facecnn.photos.roster import Roster
from facecnn.reports.findings import counted, percent


def add(person: str, photos: Sequence[Path], model_path: Path, new: TrainOptions, console: Console) -> dict[str, Any]:
    """Make a new run that knows one more person, or one of its people from more photos.

    A model of class means gets another mean; the other people's answers stay. Any other model is retrained.

    ``photos``: files, and folders, which stand for the photos in them.

    Returns:
        The ``add`` JSON: ``run``, ``person``, ``classes``, ``trained`` (whether anything was trained), and for a model
        of class means ``photos {added, skipped}`` and ``like {name, share}``, another person whom the model takes at
        least half of the new faces for.

    Raises:
        UsageError: the name can't be a person's.
        PhotoError: no photo can be used.
        FacecnnError: the model can't be read, or the new run can't be made.
    """
    person = _checked_name(person)
    model = read_model(model_path)
    run_of(model)
    if not needs_no_training(model):
        result = train_anew(model, Roster(added={person: _files(photos)}), new, console)
        return {"run": result["run"], "person": person, "classes": result["classes"], "trained": True}
    faces = _read_faces(photos, open_for_answers(model, photos, new.device, new.threads, console), console)
    record = run_of(model).read_split()
    chosen, skipped = _choose(faces, person, digests_of(record, person))
    if skipped:
        console.warning(f"{counted(len(skipped), 'photo')} skipped:")
        warn_of_first([f"{shown(path)}: {reason}" for path, reason in skipped], console)
    if not len(chosen):
        raise PhotoError(f"none of {counted(len(faces.loaded.paths), 'photo')} of {shown(person)} can be used")
    like = _who_it_is_like(faces, chosen, person, console)
    people = People.of(model).with_more(person, faces.embeddings[chosen])
    digests = [faces.loaded.sha256[number] for number in faces.photo[chosen].tolist()]
    files = [faces.loaded.paths[number].absolute() for number in faces.photo[chosen].tolist()]
    change = Roster.from_record(record).and_also(Roster(added={person: tuple(files)}))
    names = [photo_name(person, file) for file in files]
    train = {**record["train"], **dict(zip(names, digests, strict=True))}
    own = np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(-1, 32)
    trained_on = np.concatenate([model.checkpoint.arrays[TRAINED_ON], own])
    run = write_run(model, people, trained_on, {**record, "train": train, **change.record()}, new)
    return {
        "run": str(run.path),
        "person": person,
        "classes": [*people.names, UNKNOWN],
        "trained": False,
        "photos": {
            "added": len(chosen),
            "skipped": [{"path": str(path), "reason": reason} for path, reason in skipped],
        },
        "like": None if like is None else {"name": like[0], "share": like[1]},
    }


def _checked_name(person: str) -> str:
    """The name as the name of a folder of photos would be read."""
    name = unicodedata.normalize("NFC", person.strip())
    if not name or not name.isprintable() or any(mark in name for mark in "/\\") or name.startswith("."):
        raise UsageError(
            f"{shown(person)}: not a person's name: give one without / and \\, as for their folder of photos"
        )
    if name.casefold() == UNKNOWN:
        raise UsageError(f"{shown(person)}: stands for strangers: give a person's name")
    return name


def _files(photos: Sequence[Path]) -> tuple[Path, ...]:
    """The files that the arguments stand for. Raises PhotoError for a folder without photos, or a missing file."""
    files: list[Path] = []
    for path in photos:
        if is_folder(path):
            files += list_photos(path).files
        elif path.exists():
            files.append(path)
        else:
            raise PhotoError(f"{shown(path)}: no such file")
    return tuple(file.absolute() for file in files)


@dataclass(frozen=True)
class _Faces:
    """All n faces in the photos to add."""

    loaded: LoadedPhotos
    photo: Int64Array
    """(n,): index of each one's photo in ``loaded``, ascending."""
    embeddings: Float32Array
    """(n, 128)"""
    names: list[str]
    """(n,): how the model names each by itself; ``unknown`` if it refuses it."""


def _read_faces(photos: Sequence[Path], model: Model, console: Console) -> _Faces:
    with console.counting("Reading photos") as progress:
        loaded = load_files(photos, model.settings.photos, progress, finder=model.finder)
    for line in loaded.warnings:
        console.info(line)
    usable = np.flatnonzero(loaded.row >= 0)
    crops = crops_of(loaded.row[usable], [loaded.faces[number] for number in usable.tolist()])
    embeddings = model.recogniser.embed(loaded.pixels, crops.rows)
    recogniser = model.recogniser
    answers = recogniser.answers_from(recogniser.log_probabilities_of(embeddings), recogniser.threshold("auto"))
    names = [answer.label for answer in recogniser.describe(answers)]
    return _Faces(loaded, usable[crops.photo], embeddings, names)


def _choose(faces: _Faces, person: str, known: Set[str]) -> tuple[Int64Array, list[tuple[Path, str]]]:
    """Choose the person's face in each photo.

    A face that is alone in its photo is taken. Of several, those that the model names as somebody else are ruled out,
    and the one most like the other photos' faces is taken: the one with the largest sum, over the other photos, of the
    cosine to the nearest face there. A photo that the person already has isn't used: it would count twice, or was held
    out.

    ``known``: SHA-256 of the photos that the person has already. Returns the indices of the chosen faces, and the
    photos that aren't used, with the reason.
    """
    loaded = faces.loaded
    skipped = [(path, reason) for path, reason in zip(loaded.paths, loaded.reasons, strict=True) if reason is not None]
    candidates: list[Int64Array] = []
    seen: set[str] = set()
    for number in np.unique(faces.photo).tolist():
        own = np.flatnonzero(faces.photo == number)
        possible = np.array([face for face in own.tolist() if faces.names[face] in (person, UNKNOWN)], np.int64)
        if loaded.sha256[number] in known:
            skipped.append((loaded.paths[number], f"{shown(person)} has this photo already: leave it out"))
        elif loaded.sha256[number] in seen:
            skipped.append((loaded.paths[number], "the same content as another one: leave it out"))
        elif len(own) > 1 and not len(possible):
            skipped.append((loaded.paths[number], "several faces, all of people whom the model knows: cut theirs out"))
        else:
            candidates.append(possible if len(own) > 1 else own)
            seen.add(loaded.sha256[number])
    vectors = unit(faces.embeddings)

    def likeness(face: int, own: Int64Array) -> float:
        cosines = vectors @ vectors[face]
        return float(sum(cosines[other].max() for other in candidates if other is not own))

    chosen = [int(own[0]) if len(own) == 1 else max(own.tolist(), key=partial(likeness, own=own)) for own in candidates]
    return np.array(chosen, np.int64), skipped


def _who_it_is_like(faces: _Faces, chosen: Int64Array, person: str, console: Console) -> tuple[str, float] | None:
    """Another person whose name the model gives to at least half of the chosen faces, and the share of these. Warns."""
    others = Counter(name for name in (faces.names[face] for face in chosen) if name not in (person, UNKNOWN))
    if not others:
        return None
    name, count = others.most_common(1)[0]
    if 2 * count < len(chosen):
        return None
    share = count / len(chosen)
    console.warning(
        f"{percent(share)} of the faces added are named {shown(name)} by this model: the two look alike, or are one "
        "person"
    )
    return name, share
