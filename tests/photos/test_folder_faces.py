"""Which photos of a folder are left out, as nobody in them fits, and what is said of people who are never alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facecnn.photos.dataset import Dataset
from facecnn.photos.folder_faces import folder_faces
from facecnn.photos.preparation import PhotoSettings

from .finders import face_at

Pattern = np.ndarray
Photos = list[tuple[str, Sequence[Pattern]]]
"""Of each photo whose folder it lies in, and who is in it."""


def somebody(number: int) -> Pattern:
    """What a made-up person looks like."""
    return np.random.default_rng(number).uniform(60, 196, (6, 6))


def dataset_of(photos: Photos) -> Dataset:
    """Somebody's faces are the same pattern under a little noise."""
    random = np.random.default_rng(0)
    classes = tuple(sorted({name for name, _ in photos}))
    paths = tuple(f"{name}/{number}.png" for number, (name, _) in enumerate(photos))
    faces = [(face_at(20, 15, 18), face_at(60, 15, 18))[: len(people)] for _, people in photos]
    counts = np.array([len(people) for _, people in photos])
    crops = [np.clip(person + random.normal(0, 10, (6, 6)), 0, 255) for _, people in photos for person in people]
    return Dataset(
        folder=Path("album"),
        settings=PhotoSettings(),
        finder=None,
        classes=classes,
        paths=paths,
        files=paths,
        labels=np.array([classes.index(name) for name, _ in photos]),
        pixels=np.kron(np.array(crops), np.ones((12, 12))).astype(np.uint8)[..., None],
        rows=np.cumsum(counts) - counts,
        faces=tuple(faces),
        sha256=paths,
        hashes=np.zeros(len(photos), np.uint64),
        sizes=np.full((len(photos), 2), (80, 40)),
        skipped=(),
        warnings=(),
        notes=(),
    )


def test_groups_without_the_person_are_left_out_where_enough_others_show_who_that_is() -> None:
    photos: Photos = [*[("ann", [somebody(0)])] * 22, ("ann", [somebody(1)]), ("ann", [somebody(2), somebody(3)])]
    photos += [*[("bob", [somebody(4)])] * 10, ("bob", [somebody(5)]), ("bob", [somebody(6), somebody(7)])]
    chosen = folder_faces(dataset_of(photos), np.arange(36))
    assert chosen.left_out == {
        23: "none of 2 faces looks like ann in the other photos: crop the photo to this person, or take a photo of "
        "this person alone"
    }
    assert chosen.photos.tolist() == [*range(23), *range(24, 36)]


def test_the_same_face_beside_a_person_in_many_photos_is_told() -> None:
    photos: Photos = [("ann", [somebody(0), somebody(1)])] * 30
    photos += [("bob", [somebody(2), somebody(3)])] * 10
    photos += [("eve", [somebody(4)])] * 30
    assert folder_faces(dataset_of(photos), np.arange(70)).warnings == (
        "no photo of ann alone: add one: the same other face keeps appearing, and which of the two is meant can't be "
        "known",
    )
