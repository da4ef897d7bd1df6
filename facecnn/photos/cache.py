"""From files to crops: reads, decodes and searches photos in several threads, and cuts out their faces. Thanks to a
cache on disk each photo is decoded only once.

Everything in the cache can be made again. So a problem with it means decoding again, or working from memory, but never
an error or a different result.
"""

import contextlib
import hashlib
import math
import os
import shutil
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from facecnn.arrays import Int64Array, UInt8Array
from facecnn.errors import shown
from facecnn.photos.cache_folder import CACHE_VARIABLE, SIZE_VARIABLE, largest_photo_cache, photo_cache_folder
from facecnn.photos.database import is_damage
from facecnn.photos.decode import Decoded, Picture, UnusablePhoto, content_hash, decode, read, upright
from facecnn.photos.face import NO_FACE, TOO_SMALL, Face, Finder, main_first, notes_of
from facecnn.photos.fingerprint import dct_hash
from facecnn.photos.found_faces import FoundFaces, Sought
from facecnn.photos.preparation import PhotoSettings, crop_with_margin, face_sharpness
from facecnn.photos.reduced import cut_faces, decode_to_find, samples_for
from facecnn.photos.store import INDEX, PhotoStore, Prepared, store_folder

_T = TypeVar("_T")
_BATCH = 64  # photos written in one transaction

_TOGETHER, _BYTES_TOGETHER, _PIXELS_TOGETHER = 8, 1 << 20, 1 << 20
"""At most this many photos are prepared together by one thread, which finds their faces sooner. Large files are shared
out more evenly, and pictures with more pixels than that are searched before others are decoded, to save memory.
"""

_GROUPS = 8
"""The least number of groups of photos for each thread, so that all threads end at about the same time."""


@dataclass(frozen=True)
class LoadedPhotos:
    """Photos in the order in which they were asked for."""

    paths: tuple[Path, ...]
    pixels: UInt8Array
    """(rows, height, width, channels), margin included; in no particular order, possibly with rows of other photos."""
    row: Int64Array
    """(paths,): each photo's row of ``pixels``, -1 if it can't be used. Equal files share a row. If faces were looked
    for, it is the row of the first of ``faces``; those of the others follow."""
    sha256: tuple[str, ...]
    """SHA-256 of each file, hexadecimal; empty if it couldn't be read."""
    hashes: npt.NDArray[np.uint64]
    """(paths,): see ``fingerprint.dct_hash``; 0 if the photo can't be used."""
    sizes: Int64Array
    """(paths, 2): width and height of the upright original in pixels; 0 if the photo can't be used."""
    faces: tuple[tuple[Face, ...], ...]
    """(paths,): the faces found in each, the main one first; empty if they weren't looked for."""
    reasons: tuple[str | None, ...]
    """Why a photo can't be used, as "reason: what to do"; None if it can."""
    notes: tuple[tuple[int, str], ...]
    """Remarks on photos that are used, each with the index of its path: "3 frames, the first used"."""
    warnings: tuple[str, ...]
    """About the cache."""


@dataclass(frozen=True)
class Crops:
    """Crops of some photos, ordered by photo, each photo's main face first."""

    rows: Int64Array
    """(crops,): index into the photos' ``pixels``."""
    photo: Int64Array
    """(crops,): which of the photos each belongs to, ascending."""
    face: Int64Array
    """(crops,): index among the crops of its photo; the main face has 0."""

    def by_photo(self, values: Iterable[_T]) -> list[list[_T]]:
        """Group ``values``, one of each crop, by photo."""
        found: list[list[_T]] = [[] for _ in range(self.photo[-1] + 1)] if len(self.photo) else []
        for photo, value in zip(self.photo.tolist(), values, strict=True):
            found[photo].append(value)
        return found


def crops_of(rows: Int64Array, faces: Sequence[Sequence[Face]]) -> Crops:
    """All crops of some photos: one for each face, or one of the middle.

    Args:
        rows: (photos,) row of each photo's first crop; the others follow.
        faces: (photos,) the faces found in each.
    """
    counts = np.array([max(1, len(found)) for found in faces], np.int64)
    photo = np.repeat(np.arange(len(rows)), counts)
    face = np.arange(len(photo)) - np.repeat(np.cumsum(counts) - counts, counts)
    return Crops(rows[photo] + face, photo, face)


def load_photos(
    photos: Sequence[Path | Picture],
    settings: PhotoSettings,
    *,
    finder: Finder | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> LoadedPhotos:
    """Read, decode, crop and fingerprint photos, or take them from the cache.

    A photo that can't be used has a reason in the result. A refusal because of a file's content is cached; one because
    the file couldn't be read is not.

    Args:
        photos: files, or pictures in memory, in the order of the result.
        finder: finds the faces to crop; None: crop the middle of each photo.
        progress: called after each photo with the number of photos done and of all.
        workers: threads that decode (Pillow releases the GIL); by default one for each processor, at most 8.
    """
    return _Loader(photos, settings, finder, progress).load(workers or min(8, os.cpu_count() or 1))


def _named(photo: Path | Picture) -> Path:
    """A photo's file, or for messages what a picture in memory is called."""
    return photo if isinstance(photo, Path) else Path(photo.name)


def _refused(sha256: str, error: UnusablePhoto) -> Prepared:
    """``sha256``: of the file; empty if it couldn't be read."""
    return Prepared(sha256 if error.in_content else "", reason=error.reason)


class _Entry(NamedTuple):
    """A photo that was asked for."""

    photo: Path | Picture
    status: os.stat_result | None
    """Identifies the file next time; None for a picture in memory, or a file that can't be examined or is known."""
    known: Prepared | None
    """What the cache has."""


@dataclass(frozen=True)
class _Opened:
    """A photo that is read and decoded, and not prepared yet."""

    photo: Path | Picture
    sha256: str
    data: bytes
    """Of its file; empty for a picture in memory."""
    decoded: Decoded

    @property
    def sought(self) -> Sought:
        """Its faces. A picture read at a fraction of its size may give the finder other ones."""
        reduction = self.decoded.reduction
        content = self.sha256 if reduction == 1 else f"{self.sha256}/{reduction}"
        return Sought(content, self.decoded.image, keep=isinstance(self.photo, Path))


class _Loader:
    """One call of ``load_photos``."""

    def __init__(
        self,
        photos: Sequence[Path | Picture],
        settings: PhotoSettings,
        finder: Finder | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._photos = tuple(photos)
        self._on_disk = any(isinstance(photo, Path) for photo in self._photos)
        self._settings = settings
        self._folder = store_folder(settings, finder)
        self._found = None
        if finder is not None:
            kept_in = photo_cache_folder() / "faces" if self._on_disk else None
            self._found = FoundFaces(finder, kept_in, alone=len(photos) == 1)
        self._progress = progress or (lambda done, total: None)
        self._warnings: list[str] = []
        self._contents: dict[str, Prepared] = {}
        self._results: list[Prepared | str] = []  # known content is given by its SHA-256
        self._waiting: list[tuple[Path, os.stat_result, Prepared]] = []
        self._store: PhotoStore | None = None
        self._pixels: UInt8Array = np.zeros((0, *settings.margin_shape), dtype=np.uint8)

    def load(self, workers: int) -> LoadedPhotos:
        with contextlib.ExitStack() as stack:
            if self._found is not None:
                stack.enter_context(self._found)
            if self._on_disk:
                self._open_store(stack)
            self._read_all(workers)
            self._flush()
            self._warn_of_size()
        return self._result()

    def _open_store(self, stack: contextlib.ExitStack) -> None:
        with self._cache():
            self._store = stack.enter_context(PhotoStore(self._folder, self._settings))
            self._pixels = self._store.pixels()
            if self._store.was_damaged:
                self._warnings.append(f"{shown(self._folder)}: the cache of prepared photos was damaged: made anew")

    def _warn_of_size(self) -> None:
        size, largest = 0 if self._store is None else self._store.size(), largest_photo_cache()
        if size > largest:
            self._warnings.append(
                f"{shown(self._folder)}: the prepared photos take {size / 2**30:.2g} GiB, more than the "
                f"{largest / 2**30:.2g} that may be kept: after an hour without use they are removed, and made anew "
                f"when they are needed; {SIZE_VARIABLE}={math.ceil(size / 2**30)} keeps them"
            )

    @contextlib.contextmanager
    def _cache(self) -> Iterator[None]:
        """If something is wrong with the cache, warn and go on from memory."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            self._store = None
            text = shown(getattr(error, "strerror", None) or str(error))
            if is_damage(error, self._folder / INDEX):
                shutil.rmtree(self._folder, ignore_errors=True)
                self._warnings.append(
                    f"{shown(self._folder)}: the cache of prepared photos is damaged ({text}), and removed: "
                    "working from memory this time"
                )
                return
            self._warnings.append(
                f"{shown(photo_cache_folder())}: the cache can't be used ({text}): working from memory; "
                f"free space there or set {CACHE_VARIABLE} to another folder"
            )

    def _read_all(self, workers: int) -> None:
        """Get all photos in order, with at most a few groups per worker in progress."""
        executor = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        pending: deque[tuple[list[_Entry], Future[list[Prepared]]]] = deque()
        try:
            for group in self._groups(max(1, min(_TOGETHER, len(self._photos) // (_GROUPS * workers)))):
                pending.append((group, self._start(group, executor)))
                if len(pending) > 3 * workers:
                    self._finish(*pending.popleft())
            while pending:
                self._finish(*pending.popleft())
        finally:
            # After Ctrl-C, don't wait for photos that haven't been started.
            executor.shutdown(wait=True, cancel_futures=True)

    def _groups(self, most: int) -> Iterator[list["_Entry"]]:
        """The photos in order, in groups of which at most ``most`` aren't known."""
        group: list[_Entry] = []
        unknown = size = 0
        for photo in self._photos:
            entry = self._look_up(photo)
            group.append(entry)
            if entry.known is None:
                unknown += 1
                size += 0 if entry.status is None else entry.status.st_size
            if unknown >= most or size > _BYTES_TOGETHER or len(group) >= _BATCH:
                yield group
                group, unknown, size = [], 0, 0
        if group:
            yield group

    def _look_up(self, photo: Path | Picture) -> "_Entry":
        status = None
        if isinstance(photo, Path):
            with contextlib.suppress(OSError, ValueError):  # ``read`` will report it
                status = photo.stat()
        if self._store is not None and isinstance(photo, Path) and status is not None:
            with self._cache():
                sha256 = self._store.known_file(photo, status)
                known = None if sha256 is None else self._known(sha256)
                if known is not None:
                    return _Entry(photo, None, known)
        return _Entry(photo, status, None)

    def _start(self, group: Sequence["_Entry"], executor: ThreadPoolExecutor) -> Future[list[Prepared]]:
        photos = [entry.photo for entry in group if entry.known is None]
        with contextlib.suppress(RuntimeError):  # no more threads (ulimit -u): do it in this one
            if photos:
                return executor.submit(self._prepare, photos)
        done: Future[list[Prepared]] = Future()
        done.set_result(self._prepare(photos))
        return done

    def _known(self, sha256: str) -> Prepared | None:
        known, store = self._contents.get(sha256), self._store
        return known if known is not None or store is None else store.prepared(sha256, self._pixels)

    def _prepare(self, photos: Sequence[Path | Picture]) -> list[Prepared]:
        """Everything but writing to the cache; runs in a worker."""
        prepared: list[Prepared] = []
        opened: list[_Opened | Prepared] = []
        pixels = 0
        for number, photo in enumerate(photos, 1):
            one = self._open(photo)
            opened.append(one)
            pixels += 0 if isinstance(one, Prepared) else math.prod(one.decoded.image.size)
            if pixels > _PIXELS_TOGETHER or number == len(photos):
                prepared += self._cut(opened)
                opened, pixels = [], 0
        return prepared

    def _open(self, photo: Path | Picture) -> "_Opened | Prepared":
        """Read and decode a photo, unless its content is known or it can't be used."""
        sha256, largest = "", self._settings.largest_pixels
        try:
            if isinstance(photo, Picture):
                decoded = upright(photo.image, photo.name, largest)
                return _Opened(photo, content_hash(decoded.image), b"", decoded)
            data = read(photo, largest)
            sha256 = hashlib.sha256(data).hexdigest()
            with contextlib.suppress(sqlite3.Error):  # the main thread will meet it, too
                known = self._known(sha256)
                if known is not None:
                    return known
            decoded = decode(data, photo, largest) if self._found is None else decode_to_find(data, photo, largest)
            return _Opened(photo, sha256, data, decoded)
        except UnusablePhoto as error:
            return _refused(sha256, error)

    def _cut(self, photos: Sequence["_Opened | Prepared"]) -> list[Prepared]:
        """Find the faces of the photos that aren't prepared yet, and cut them out."""
        opened = [photo for photo in photos if isinstance(photo, _Opened)]
        found: Iterator[list[Face] | None] = iter([None] * len(opened))
        if self._found is not None and opened:
            found = iter(self._found.find([photo.sought for photo in opened]))
        return [photo if isinstance(photo, Prepared) else self._crop(photo, next(found)) for photo in photos]

    def _crop(self, photo: "_Opened", found: list[Face] | None) -> Prepared:
        """``found``: the photo's faces; None: they weren't looked for."""
        sha256, decoded = photo.sha256, photo.decoded
        image, notes = decoded.image, decoded.notes
        if found is None:
            crops, faces = crop_with_margin(image, self._settings)[None], None
        else:
            if not found:
                return Prepared(sha256, reason=NO_FACE)
            found = [face for face in found if self._is_large_enough(face, image, decoded.reduction)]
            if not found:
                return Prepared(sha256, reason=TOO_SMALL)
            if len(found) > 1:
                sharpness = face_sharpness(image, found, samples_for(decoded))
                found = main_first(found, *image.size, sharpness)
            try:
                crops = cut_faces(photo.data, _named(photo.photo), decoded, found, self._settings)
            except UnusablePhoto as error:
                return _refused(sha256, error)
            faces = tuple(face.scaled(decoded.reduction) for face in found)
            notes += notes_of(faces)
        return Prepared(sha256, *decoded.size, dct_hash(image), notes, faces, pixels=crops)

    def _is_large_enough(self, face: Face, image: Image.Image, reduction: int) -> bool:
        least = self._settings.smallest_face
        return reduction * face.side >= least.pixels and face.side >= least.share * min(image.size)

    def _finish(self, group: Sequence["_Entry"], task: Future[list[Prepared]]) -> None:
        prepared = iter(task.result())
        for path, status, known in group:
            photo = next(prepared) if known is None else known
            if photo.sha256:
                photo = self._contents.setdefault(photo.sha256, photo)
                if isinstance(path, Path) and status is not None:
                    self._waiting.append((path, status, photo))
            self._results.append(photo.sha256 or photo)
            if len(self._waiting) >= _BATCH:
                self._flush()
            self._progress(len(self._results), len(self._photos))

    def _flush(self) -> None:
        """Write the waiting photos into the store, whose file then replaces their pixels in memory."""
        if self._store is not None and self._waiting:
            with self._cache():
                rows = self._store.add(self._waiting)
                self._pixels = self._store.pixels()
                for sha256, row in rows.items():
                    self._contents[sha256] = replace(self._contents[sha256], pixels=None, row=row)
        self._waiting.clear()

    def _result(self) -> LoadedPhotos:
        self._gather()
        photos = [self._contents[result] if isinstance(result, str) else result for result in self._results]
        return LoadedPhotos(
            paths=tuple(map(_named, self._photos)),
            pixels=self._pixels,
            row=np.array([-1 if photo.row is None else photo.row for photo in photos], dtype=np.int64),
            sha256=tuple(photo.sha256 for photo in photos),
            hashes=np.array([photo.hash for photo in photos], dtype=np.uint64),
            faces=tuple(photo.faces or () for photo in photos),
            sizes=np.array([(photo.width, photo.height) for photo in photos], dtype=np.int64).reshape(-1, 2),
            reasons=tuple(photo.reason for photo in photos),
            notes=tuple((index, note) for index, photo in enumerate(photos) for note in photo.notes),
            warnings=tuple(self._warnings),
        )

    def _gather(self) -> None:
        """If the cache failed and some pixels are only in memory, bring all of them together there."""
        usable = [photo for photo in self._contents.values() if photo.reason is None]
        if all(photo.row is not None for photo in usable):
            return
        pixels = np.empty((sum(photo.crops for photo in usable), *self._settings.margin_shape), dtype=np.uint8)
        row = 0
        for photo in usable:
            end = row + photo.crops
            if photo.pixels is None:
                assert photo.row is not None
                pixels[row:end] = self._pixels[photo.row : photo.row + photo.crops]
            else:
                pixels[row:end] = photo.pixels
            self._contents[photo.sha256] = replace(photo, pixels=None, row=row)
            row = end
        self._pixels = pixels
