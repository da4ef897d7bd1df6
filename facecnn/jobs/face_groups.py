"""The faces of an unsorted album, and which of them are one person's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facecnn.arrays import Float32Array, Int64Array, UInt8Array
from facecnn.body.clarity import crop_sharpness, why_unclear
from facecnn.body.embedder import CHIP_SETTINGS, Embedder
from facecnn.body.grouping import ALONE, group_faces
from facecnn.jobs.console import Console
from facecnn.jobs.faces import installed_finder
from facecnn.jobs.sharing import fill_caches
from facecnn.parallel.ranks import Ranks
from facecnn.photos.cache import Crops, LoadedPhotos, crops_of
from facecnn.photos.dataset import load_files
from facecnn.photos.face import Finder
from facecnn.photos.preparation import without_margin

_NOT_ALIKE = "not enough like any other face"


@dataclass(frozen=True)
class GroupedFaces:
    """The faces of an album, ordered by photo, and whose they are."""

    loaded: LoadedPhotos
    photo: Int64Array
    """(faces,) index into the paths of ``loaded``."""
    crops: Crops
    pixels: UInt8Array
    """(rows, 150, 150, 3), of which the rows of ``crops`` are the faces."""
    group: Int64Array
    """(faces,) number of each face's person, or ``ALONE``."""
    nearness: Float32Array
    """(faces,) cosine with the mean of the group; 0 for a face that is alone."""
    reason: tuple[str | None, ...]
    """(faces,) why a face is in no group."""

    def folder_of(self, face: int) -> str | None:
        """The name of a face's folder; None for a face that is alone."""
        digits = max(3, len(str(int(self.group.max()) + 1)))
        return None if self.group[face] == ALONE else f"person-{self.group[face] + 1:0{digits}d}"


@dataclass(frozen=True)
class _Faces:
    """The faces in photos, and which of them are clear enough to say whose they are."""

    loaded: LoadedPhotos
    crops: Crops
    photo: Int64Array
    """(faces,) index into the paths of ``loaded``."""
    pixels: UInt8Array
    """(rows, 150, 150, 3)"""
    rows: Int64Array
    """(different faces,) of ``pixels``: copies of a file share theirs, and are looked at once, since two would make a
    group."""
    first: Int64Array
    """(different faces,) the first face that has the row."""
    copy_of: Int64Array
    """(faces,) index into ``rows``."""
    reasons: tuple[str | None, ...]
    """(different faces,) why a face isn't clear."""

    @property
    def clear(self) -> Int64Array:
        """(clear faces,) index into ``rows``."""
        return np.array([index for index, reason in enumerate(self.reasons) if reason is None], np.int64)


def _find_faces(
    files: Sequence[Path], finder: Finder | None, threads: int | None, progress: Callable[[int, int], None]
) -> _Faces:
    loaded = load_files(files, CHIP_SETTINGS, progress, finder=finder, workers=threads)
    usable = np.flatnonzero(loaded.row >= 0)
    crops = crops_of(loaded.row[usable], [loaded.faces[number] for number in usable.tolist()])
    photo, pixels = usable[crops.photo], without_margin(loaded.pixels, CHIP_SETTINGS)
    rows, first, copy_of = np.unique(crops.rows, return_index=True, return_inverse=True)
    sharp = crop_sharpness(pixels, rows)
    reasons = []
    for row, index in enumerate(first.tolist()):
        width, height = loaded.sizes[photo[index]].tolist()
        reasons.append(why_unclear(loaded.faces[photo[index]][crops.face[index]], width, height, sharp[row]))
    return _Faces(loaded, crops, photo, pixels, rows, first, copy_of, tuple(reasons))


def look_beforehand(
    files: Sequence[Path], embedder: Embedder, console: Console, threads: int | None, ranks: Ranks
) -> None:
    """Share among ranks what takes longest, finding and embedding faces: rank 0 then gets it from the cache."""
    if ranks.size == 1:
        return
    finder = installed_finder(CHIP_SETTINGS, console, threads)

    def look(start: int, stop: int, done: Callable[[int], None]) -> None:
        faces = _find_faces(files[start:stop], finder, threads, lambda read, total: done(read // 2))
        embedder.embed(faces.loaded.pixels, faces.rows[faces.clear])

    fill_caches(len(files), look, "Looking at photos", ranks, console)


def find_groups(files: Sequence[Path], embedder: Embedder, console: Console, threads: int | None) -> GroupedFaces:
    """Find the faces in photos, and group those that are clear enough. Raises UsageError."""
    finder = installed_finder(CHIP_SETTINGS, console, threads)
    with console.counting("Reading photos") as progress:
        faces = _find_faces(files, finder, threads, progress)
    for line in faces.loaded.warnings:
        console.info(line)
    rows, photo, clear = faces.rows, faces.photo, faces.clear
    with console.counting("Looking at faces", unit="faces") as progress:
        embeddings = embedder.embed(faces.loaded.pixels, rows[clear], progress)
    group, nearness = np.full(len(rows), ALONE, np.int64), np.zeros(len(rows), np.float32)
    with console.counting("Comparing faces", unit="faces") as progress:
        group[clear] = group_faces(embeddings, photo[faces.first[clear]], threads=threads, progress=progress)
    nearness[clear] = _nearness(embeddings, group[clear])
    why = [reason or _NOT_ALIKE if group[row] == ALONE else None for row, reason in enumerate(faces.reasons)]
    reason = tuple(why[row] for row in faces.copy_of.tolist())
    own = faces.copy_of
    return GroupedFaces(faces.loaded, photo, faces.crops, faces.pixels, group[own], nearness[own], reason)


def _nearness(embeddings: Float32Array, group: Int64Array) -> Float32Array:
    """The cosine of each embedding with the mean of its group; 0 for ``ALONE``."""
    sums = np.zeros((int(group.max(initial=0)) + 1, embeddings.shape[1]))
    grouped = group != ALONE
    np.add.at(sums, group[grouped], embeddings[grouped])
    lengths = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(sums[group], axis=1)
    products = np.einsum("ij,ij->i", embeddings, sums[group])
    return np.where(grouped, products / np.maximum(lengths, 1e-12), 0).astype(np.float32)
