"""Decoded and cropped photos, kept on the disk so that each is decoded once, and loaded by several threads.

Everything here can be made again from the photos, so whatever is wrong with the cache leads to decoding anew, or to
working from memory, never to an error or to another answer.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from facecnn.errors import shown
from facecnn.photos.cache_folder import CACHE_VARIABLE, cache_folder, make_private
from facecnn.photos.database import checksum, is_damage, open_checked
from facecnn.photos.decode import DECODER_VERSION, UnusablePhoto, decode, heic_supported, read
from facecnn.photos.face import NO_FACE, TOO_SMALL, Face, Finder, as_json, from_json, main_first, notes_of
from facecnn.photos.fingerprint import dct_hash
from facecnn.photos.found_faces import FoundFaces
from facecnn.photos.preparation import (
    PREPARATION_VERSION,
    PhotoSettings,
    aligned_crop,
    crop_with_margin,
    face_sharpness,
)

_T = TypeVar("_T")

LARGEST_CACHE = 4 << 30
"""Bytes that the preparations which aren't in use may take up together with the one that is."""

_STORE_VERSION = 4
_INDEX, _PIXELS = "index.sqlite", "pixels.bin"
_BATCH = 64  # photos written at once
_IN_USE_SECONDS = 3600.0  # a preparation used more lately than this may be another process's

_TABLES = """
create table if not exists files (
    path blob primary key, size integer not null, modified integer not null, sha256 text not null,
    checksum integer not null
) without rowid;
create table if not exists photos (
    sha256 text primary key, row integer, crc integer, width integer, height integer, hash blob, notes text not null,
    faces text, reason text, checksum integer not null
) without rowid;
"""


@dataclass(frozen=True)
class LoadedPhotos:
    """Photos in the order they were asked for."""

    paths: tuple[Path, ...]
    pixels: npt.NDArray[np.uint8]
    """(rows, height, width, channels) with the margin, in no particular order, maybe with rows of other photos."""
    row: npt.NDArray[np.int64]
    """(paths,): each photo's row of ``pixels``, -1 where it can't be used. Equal files share a row. Where faces were
    looked for, it is the row of the first of ``faces``, and the others' rows follow."""
    sha256: tuple[str, ...]
    """Of each file's bytes, hexadecimal; empty where it couldn't be read."""
    hashes: npt.NDArray[np.uint64]
    """(paths,): see ``fingerprint.dct_hash``; 0 where the photo can't be used."""
    sizes: npt.NDArray[np.int64]
    """(paths, 2): width and height of the upright original in pixels, 0 where the photo can't be used."""
    faces: tuple[tuple[Face, ...], ...]
    """(paths,): the faces found in each, the main one first; empty where they weren't looked for."""
    reasons: tuple[str | None, ...]
    """Why a photo can't be used, as "reason: what to do"; None where it can."""
    notes: tuple[tuple[int, str], ...]
    """What there is to know about photos that are used: a path's index and a note, "3 frames, the first used"."""
    warnings: tuple[str, ...]
    """What there is to know about the cache."""


@dataclass(frozen=True)
class Crops:
    """Crops of some photos, photo by photo, each photo's main face first."""

    rows: npt.NDArray[np.int64]
    """(crops,): index into the photos' ``pixels``."""
    photo: npt.NDArray[np.int64]
    """(crops,): which of the photos each is of, ascending."""
    face: npt.NDArray[np.int64]
    """(crops,): which of its photo's crops each is, the main face's being 0."""

    def by_photo(self, values: Iterable[_T]) -> list[list[_T]]:
        """Of each photo what there is of its crops; ``values``: of all crops, in their order."""
        found: list[list[_T]] = [[] for _ in range(self.photo[-1] + 1)] if len(self.photo) else []
        for photo, value in zip(self.photo.tolist(), values, strict=True):
            found[photo].append(value)
        return found


def crops_of(rows: npt.NDArray[np.int64], faces: Sequence[Sequence[Face]]) -> Crops:
    """All crops of photos whose first ones are at ``rows`` (photos,) and in which ``faces`` (photos,) were found: one
    for each face, the others' after the first one's, or the photo's middle."""
    counts = np.array([max(1, len(found)) for found in faces], np.int64)
    photo = np.repeat(np.arange(len(rows)), counts)
    face = np.arange(len(photo)) - np.repeat(np.cumsum(counts) - counts, counts)
    return Crops(rows[photo] + face, photo, face)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What is known about the content of one file, whatever its name."""

    sha256: str
    width: int = 0
    height: int = 0
    hash: int = 0
    notes: tuple[str, ...] = ()
    faces: tuple[Face, ...] | None = None
    """None where they weren't looked for."""
    reason: str | None = None
    pixels: npt.NDArray[np.uint8] | None = None
    """(crops, height, width, channels): of each face, or of the photo's middle."""
    row: int | None = None
    """Of the first crop; the others follow."""

    @property
    def crops(self) -> int:
        return 1 if self.faces is None else len(self.faces)


class PhotoStore:
    """Prepared photos in the cache folder, for one preparation: an SQLite index and a file of rows of equal size.

    Rows are only ever appended, in a transaction: written, flushed, then committed. Each has a checksum, as has each
    entry of the index. So two processes may use a store at once, and after a crash or damage the index at worst knows
    less than is there.

    Any method may raise OSError or sqlite3.Error, after which the store is of no more use.
    """

    def __init__(self, folder: Path, settings: PhotoSettings) -> None:
        """In ``folder``, which is made if need be."""
        self.folder = folder
        self._shape = settings.margin_shape
        self._row_bytes = int(np.prod(self._shape))
        self._lock = threading.Lock()
        make_private(self.folder)
        _make_room(self.folder)
        self.folder.touch()  # its time says when it was used
        self._index, self.was_damaged = open_checked(self.folder / _INDEX, _TABLES)
        if self.was_damaged:
            (self.folder / _PIXELS).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()

    def pixels(self) -> npt.NDArray[np.uint8]:
        """All rows that are there, (rows, height, width, channels), mapped into memory, not to be written."""
        path = self.folder / _PIXELS
        rows = path.stat().st_size // self._row_bytes if path.exists() else 0
        if rows == 0:
            return np.zeros((0, *self._shape), dtype=np.uint8)
        return np.memmap(path, dtype=np.uint8, mode="r", shape=(rows, *self._shape))

    def known_file(self, path: Path, status: os.stat_result) -> str | None:
        """The SHA-256 of a file that hasn't changed, by size and time, since it was read."""
        with self._lock:
            found = self._index.execute("select * from files where path = ?", (_key(path),)).fetchone()
        if found is None or checksum(found[:-1]) != found[-1]:
            return None
        key, size, modified, sha256 = found[:-1]
        unchanged = (key, size, modified) == (_key(path), status.st_size, status.st_mtime_ns)
        return sha256.decode() if unchanged else None

    def prepared(self, sha256: str, pixels: npt.NDArray[np.uint8]) -> _Prepared | None:
        """What is known about a content; None where that is nothing or its row of ``pixels`` is damaged."""
        with self._lock:
            found = self._index.execute("select * from photos where sha256 = ?", (sha256,)).fetchone()
        if found is None or checksum(found[:-1]) != found[-1] or found[0] != sha256.encode():
            return None
        row, crc, width, height, fingerprint, notes, faces, reason = found[1:-1]
        if reason is not None:
            return _Prepared(sha256, reason=reason.decode())
        photo = _Prepared(
            sha256,
            width,
            height,
            int.from_bytes(fingerprint, "big"),
            tuple(json.loads(notes)),
            None if faces is None else from_json(faces.decode()),
            row=row,
        )
        end = row + photo.crops
        return None if end > len(pixels) or zlib.crc32(pixels[row:end].data) != crc else photo

    def add(self, files: Sequence[tuple[Path, os.stat_result, _Prepared]]) -> dict[str, int]:
        """Keep what was found out about files.

        Args:
            files: each file, its status before it was read, and its content.

        Returns:
            The row of each content that has pixels.
        """
        rows: dict[str, int] = {}
        with self._transaction(), (self.folder / _PIXELS).open("ab") as file:
            file.truncate(file.tell() // self._row_bytes * self._row_bytes)  # half a row of somebody who was killed
            file.seek(0, os.SEEK_END)
            for path, status, photo in files:
                self._put("files", (_key(path), status.st_size, status.st_mtime_ns, photo.sha256))
                if photo.row is not None or photo.sha256 in rows:
                    continue
                crc = None
                if photo.pixels is not None:
                    rows[photo.sha256] = file.tell() // self._row_bytes  # of its first crop
                    crc = zlib.crc32(photo.pixels.data)
                    file.write(photo.pixels.data)
                self._put(
                    "photos",
                    (
                        photo.sha256,
                        rows.get(photo.sha256),
                        crc,
                        photo.width,
                        photo.height,
                        photo.hash.to_bytes(8, "big"),
                        json.dumps(photo.notes),
                        None if photo.faces is None else as_json(photo.faces),
                        photo.reason,
                    ),
                )
            file.flush()
        self.folder.touch()
        return rows

    def _put(self, table: str, values: tuple[object, ...]) -> None:
        places = ", ".join("?" * (len(values) + 1))
        self._index.execute(f"insert or replace into {table} values ({places})", (*values, checksum(values)))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """No other thread or process writes within."""
        with self._lock:
            self._index.execute("begin immediate")
            try:
                yield
            except BaseException:
                self._index.execute("rollback")
                raise
            self._index.execute("commit")


def load_photos(
    paths: Sequence[Path],
    settings: PhotoSettings,
    *,
    finder: Finder | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> LoadedPhotos:
    """Read, decode, crop and fingerprint photos, or take them from the cache.

    A photo that can't be used has a reason in the answer. A refusal because of a file's content is remembered, one
    because it couldn't be read is not.

    Args:
        paths: files, in the order of the answer.
        settings: the preparation.
        finder: finds the faces that crops are made of; without one, the middle of each photo is cut out.
        progress: called with the number of photos done and the number of all, after each.
        workers: threads that decode (Pillow lets them run side by side); as many as processors, 8 at most, unless said.
    """
    return _Loader(paths, settings, finder, progress).load(workers or min(8, os.cpu_count() or 1))


class _Loader:
    """One call of ``load_photos``."""

    def __init__(
        self,
        paths: Sequence[Path],
        settings: PhotoSettings,
        finder: Finder | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._paths = tuple(paths)
        self._settings = settings
        self._folder = _store_folder(settings, finder)
        self._finder = None if finder is None else FoundFaces(finder, cache_folder() / "faces")
        self._progress = progress or (lambda done, total: None)
        self._warnings: list[str] = []
        self._contents: dict[str, _Prepared] = {}
        self._answers: list[_Prepared | str] = []  # of a file whose content is known: its SHA-256
        self._waiting: list[tuple[Path, os.stat_result, _Prepared]] = []
        self._store: PhotoStore | None = None
        self._pixels: npt.NDArray[np.uint8] = np.zeros((0, *settings.margin_shape), dtype=np.uint8)

    def load(self, workers: int) -> LoadedPhotos:
        with contextlib.ExitStack() as stack:
            if self._finder is not None:
                stack.enter_context(self._finder)
            with self._cache():
                self._store = stack.enter_context(PhotoStore(self._folder, self._settings))
                self._pixels = self._store.pixels()
                if self._store.was_damaged:
                    self._warnings.append(f"{shown(self._folder)}: the cache of prepared photos was damaged: made anew")
            self._read_all(workers)
            self._flush()
        return self._answer()

    @contextlib.contextmanager
    def _cache(self) -> Iterator[None]:
        """Go on from memory, with one warning, when something is wrong with the cache."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            self._store = None
            text = shown(getattr(error, "strerror", None) or str(error))
            if is_damage(error, self._folder / _INDEX):
                shutil.rmtree(self._folder, ignore_errors=True)
                self._warnings.append(
                    f"{shown(self._folder)}: the cache of prepared photos is damaged ({text}), and removed: "
                    "working from memory this time"
                )
                return
            self._warnings.append(
                f"{shown(cache_folder())}: the cache can't be used ({text}): working from memory; "
                f"free space there or set {CACHE_VARIABLE} to another folder"
            )

    def _read_all(self, workers: int) -> None:
        """Answer for every path in order, with at most a few photos per worker under way."""
        executor = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        under_way: deque[tuple[Path, os.stat_result | None, Future[_Prepared] | _Prepared]] = deque()
        try:
            for path in self._paths:
                under_way.append((path, *self._start(path, executor)))
                if len(under_way) > 4 * workers:
                    self._finish(*under_way.popleft())
            while under_way:
                self._finish(*under_way.popleft())
        finally:
            # After Ctrl-C don't wait for what hasn't begun.
            executor.shutdown(wait=True, cancel_futures=True)

    def _start(
        self, path: Path, executor: ThreadPoolExecutor
    ) -> tuple[os.stat_result | None, Future[_Prepared] | _Prepared]:
        status = None
        with contextlib.suppress(OSError, ValueError):  # ``read`` says what is wrong with it
            status = path.stat()
        if self._store is not None and status is not None:
            with self._cache():
                sha256 = self._store.known_file(path, status)
                known = None if sha256 is None else self._known(sha256)
                if known is not None:
                    return None, known
        try:
            return status, executor.submit(self._prepare, path)
        except RuntimeError:  # no thread can be started: a limit (ulimit -u), so it is done here
            return status, self._prepare(path)

    def _known(self, sha256: str) -> _Prepared | None:
        known, store = self._contents.get(sha256), self._store
        return known if known is not None or store is None else store.prepared(sha256, self._pixels)

    def _prepare(self, path: Path) -> _Prepared:
        """Runs in a worker: everything but the cache."""
        sha256 = ""
        try:
            data = read(path, self._settings.largest_pixels)
            sha256 = hashlib.sha256(data).hexdigest()
            with contextlib.suppress(sqlite3.Error):  # the main thread comes upon it, too
                known = self._known(sha256)
                if known is not None:
                    return known
            decoded = decode(data, path, self._settings.largest_pixels)
            image = decoded.image
            faces, crops, notes = None, [], decoded.notes
            if self._finder is None:
                crops = [crop_with_margin(image, self._settings)]
            else:
                # The same picture read at another fraction is another one to the finder.
                key = sha256 if decoded.reduction == 1 else f"{sha256}/{decoded.reduction}"
                found = self._finder.find(key, lambda: np.asarray(image.convert("RGB")))
                if not found:
                    return _Prepared(sha256, reason=NO_FACE)
                found = [face for face in found if self._is_large_enough(face, image, decoded.reduction)]
                if not found:
                    return _Prepared(sha256, reason=TOO_SMALL)
                if len(found) > 1:
                    found = main_first(found, *image.size, face_sharpness(image, found))
                crops = [aligned_crop(image, face, self._settings) for face in found]
                faces = tuple(face.scaled(decoded.reduction) for face in found)
                notes += notes_of(faces)
            return _Prepared(sha256, *decoded.size, dct_hash(image), notes, faces, pixels=np.stack(crops))
        except UnusablePhoto as error:
            return _Prepared(sha256 if error.in_content else "", reason=error.reason)

    def _is_large_enough(self, face: Face, image: Image.Image, reduction: int) -> bool:
        least = self._settings.smallest_face
        return reduction * face.side >= least.pixels and face.side >= least.share * min(image.size)

    def _finish(self, path: Path, status: os.stat_result | None, task: Future[_Prepared] | _Prepared) -> None:
        photo = task if isinstance(task, _Prepared) else task.result()
        if photo.sha256:
            photo = self._contents.setdefault(photo.sha256, photo)
            if status is not None:
                self._waiting.append((path, status, photo))
        self._answers.append(photo.sha256 or photo)
        if len(self._waiting) >= _BATCH:
            self._flush()
        self._progress(len(self._answers), len(self._paths))

    def _flush(self) -> None:
        """Write what is waiting into the store; its pixels are in the store's file, not in memory, from then on."""
        if self._store is not None and self._waiting:
            with self._cache():
                rows = self._store.add(self._waiting)
                self._pixels = self._store.pixels()
                for sha256, row in rows.items():
                    self._contents[sha256] = replace(self._contents[sha256], pixels=None, row=row)
        self._waiting.clear()

    def _answer(self) -> LoadedPhotos:
        self._gather()
        photos = [self._contents[answer] if isinstance(answer, str) else answer for answer in self._answers]
        return LoadedPhotos(
            paths=self._paths,
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
        """Where photos are in memory, as the cache can't be used, bring all together there."""
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


def _store_folder(settings: PhotoSettings, finder: Finder | None) -> Path:
    key = {
        "photos": settings.cropping(aligned=finder is not None),
        "finder": None if finder is None else finder.identity,
        "versions": [_STORE_VERSION, DECODER_VERSION, PREPARATION_VERSION, PIL.__version__, heic_supported()],
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "photos" / name


def _key(path: Path) -> bytes:
    return os.fsencode(path.absolute())


def _make_room(own: Path) -> None:
    """Remove the preparations that were used least lately until all together are within ``LARGEST_CACHE``.

    The one that is about to be used goes only where it is too large alone. One that another process may be using
    stays; it would lose nothing, as an open file outlives its name, but would no longer find its photos next time.
    """
    used = sorted((_stat(folder, "st_mtime"), folder) for folder in own.parent.iterdir())
    sizes = {folder: sum(int(_stat(folder / name, "st_size")) for name in (_INDEX, _PIXELS)) for _, folder in used}
    total = sum(sizes.values())
    for moment, folder in used:
        too_large = sizes[folder] > LARGEST_CACHE if folder == own else total > LARGEST_CACHE
        if too_large and time.time() - moment > _IN_USE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
            total -= sizes[folder]
    own.mkdir(mode=0o700, exist_ok=True)


def _stat(path: Path, field: str) -> float:
    """A file's time or size, 0 where another process has just removed it."""
    try:
        return float(getattr(path.stat(), field))
    except OSError:
        return 0.0
