"""Find faces, whoever they are."""

import threading
from collections.abc import Sequence
from typing import overload

from facecnn.faces.finder import FaceFinder
from facecnn.jobs.faces import required_finder
from facecnn.library.answers import FoundFace
from facecnn.library.computing import computing
from facecnn.library.photos import Photo, given, refuse_unreadable
from facecnn.photos.cache import load_photos
from facecnn.photos.preparation import PhotoSettings

_lock = threading.Lock()
_finders: list[FaceFinder] = []


@overload
def find_faces(photos: Photo) -> list[FoundFace]: ...  # type: ignore[overload-overlap]


@overload
def find_faces(photos: Sequence[Photo]) -> list[list[FoundFace]]: ...


def find_faces(photos: Photo | Sequence[Photo]) -> list[FoundFace] | list[list[FoundFace]]:
    """Find the faces in a photo, or in each photo of a list. It needs the extra ``faces``.

    Args:
        photos: a path, a PIL image or an array (see ``facecnn.library.photos.Photo``), or a list of these.

    Returns:
        The faces of the photo, the main one first, then in order of prominence; for a list of photos a list of them.

    Raises:
        UsageError: what is given is no photo, or the extra isn't installed.
        PhotoError: photos can't be read; the message names all of them.
    """
    wanted = given(photos)
    with computing():
        loaded = load_photos(wanted.photos, PhotoSettings(), finder=_finder())
    refuse_unreadable(loaded)
    found = [[FoundFace(face.box, face.landmarks, face.score) for face in faces] for faces in loaded.faces]
    return found[0] if wanted.is_one else found


def _finder() -> FaceFinder:
    """The finder, made once: its networks take a moment."""
    with _lock:
        if not _finders:
            _finders.append(required_finder())
        return _finders[0]
