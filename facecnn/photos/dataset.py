"""A folder of photos as arrays to train on, and what is wrong with it."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from facecnn.arrays import BoolArray, Int64Array, UInt8Array
from facecnn.errors import PhotoError, shown
from facecnn.photos.cache import Crops, LoadedPhotos, crops_of, load_photos
from facecnn.photos.decode import NO_CONTENT
from facecnn.photos.doubts import same_content, same_picture, warn_of_copies, warn_of_unbalanced
from facecnn.photos.face import Face, Finder
from facecnn.photos.folder import UNKNOWN, Scan, Skipped, is_folder, list_photos, readable_name, remarks, scan, some
from facecnn.photos.preparation import PhotoSettings
from facecnn.photos.roster import NO_CHANGES, Roster
from facecnn.photos.split import Photo, folds, split


class Note(NamedTuple):
    """The printable path of a photo and a remark: ``3 frames, the first used``."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def grouped(notes: Sequence[Note]) -> list[str]:
    """One line for each kind of note, with a count and the first few photos; a kind is a text without its number."""
    kinds: dict[str, list[Note]] = {}
    for note in notes:
        kinds.setdefault(re.sub(r"^[0-9]+ ", "several ", note.text), []).append(note)
    return [
        str(same[0]) if len(same) == 1 else f"{text}: {len(same)} photos ({some([note.path for note in same])})"
        for text, same in kinds.items()
    ]


@dataclass(frozen=True)
class Dataset:
    """The usable photos of a folder, sorted by class and path."""

    folder: Path
    settings: PhotoSettings
    finder: Finder | None
    """The finder that the photos were prepared with."""
    classes: tuple[str, ...]
    """The people's names, sorted; ``unknown`` last if there are strangers."""
    paths: tuple[str, ...]
    """(photos,): PERSON/FILE as valid UTF-8, the same on every computer; may need ``shown``."""
    files: tuple[str, ...]
    """(photos,): the files; as text, which takes a sixth of the memory of ``Path``."""
    labels: Int64Array
    """(photos,): index into ``classes``."""
    pixels: UInt8Array
    """(rows, height, width, channels), margin included; not in the photos' order, and there may be more rows."""
    rows: Int64Array
    """(photos,): index into ``pixels``; if faces were looked for, that of the first of ``faces``, followed by those of
    the others."""
    faces: tuple[tuple[Face, ...], ...]
    """(photos,): the faces found in each, the main one first; empty if they weren't looked for."""
    sha256: tuple[str, ...]
    """(photos,): SHA-256 of the files, hexadecimal."""
    hashes: npt.NDArray[np.uint64]
    """(photos,): see ``fingerprint.dct_hash``."""
    sizes: Int64Array
    """(photos, 2): width and height of the upright originals in pixels."""
    skipped: tuple[Skipped, ...]
    """Photos that aren't used, as PERSON/FILE, or FILE outside of any person's folder."""
    warnings: tuple[str, ...]
    """What is questionable about the data."""
    notes: tuple[Note, ...]
    """Remarks on single photos."""
    same_pictures: tuple[list[int], ...] = ()
    """Groups of indices of photos with different bytes that show the same picture; see ``doubts.same_picture``."""
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Number of files of each suffix that aren't photos by their names; see ``companions``."""

    @property
    def people(self) -> tuple[str, ...]:
        """The classes without ``unknown``."""
        return tuple(name for name in self.classes if name != UNKNOWN)

    def split(self, seed: int, among: Int64Array | None = None) -> "IndexSplit":
        """Hold out photos, of all or of the indices ``among``; see ``facecnn.photos.split.split``.

        Raises:
            PhotoError: a person has too few photos for ``settings.validation``.
        """
        chosen = split(self._by_class(among), self.settings.validation, seed)
        return IndexSplit(self._indices(chosen.training), self._indices(chosen.validation), chosen.warnings)

    def folds(self, count: int = 5, among: Int64Array | None = None) -> tuple[Int64Array, ...]:
        """The indices of each fold's photos for cross-validation, of all or of the indices ``among``; see
        ``facecnn.photos.split.folds``. Raises UsageError where a person has fewer photos than there are folds."""
        return tuple(self._indices(fold) for fold in folds(self._by_class(among), count))

    def crops(self, among: Int64Array) -> Crops:
        """All crops of the photos with indices ``among``: one for each face, or one of the photo's middle."""
        return crops_of(self.rows[among], [self.faces[number] for number in among.tolist()])

    def show_one_face(self, among: Int64Array) -> BoolArray:
        """Which of the photos with indices ``among`` have a single face, or were cropped to the middle."""
        return np.array([len(self.faces[number]) <= 1 for number in among.tolist()], bool)

    def _by_class(self, among: Int64Array | None = None) -> dict[str, list[Photo]]:
        """The photos of each class, all or those with the indices ``among``."""
        people: dict[str, list[Photo]] = {name: [] for name in self.classes}
        chosen = None if among is None else {*among.tolist()}
        photos = zip(self.paths, self.labels.tolist(), self.sha256, self.hashes.tolist(), self.faces, strict=True)
        for number, (path, label, sha256, fingerprint, faces) in enumerate(photos):
            if chosen is None or number in chosen:
                people[self.classes[label]].append(Photo(path, sha256, fingerprint, max(1, len(faces))))
        return people

    def _indices(self, paths: Iterable[str]) -> Int64Array:
        index = {path: number for number, path in enumerate(self.paths)}
        return np.array(sorted(index[path] for path in paths), dtype=np.int64)


@dataclass(frozen=True)
class IndexSplit:
    """Indices of a data set's photos, ascending, and what a user should know about the split."""

    training: Int64Array
    validation: Int64Array
    warnings: tuple[str, ...]


def load_dataset(
    folder: str | Path,
    settings: PhotoSettings,
    progress: Callable[[int, int], None] | None = None,
    *,
    finder: Finder | None = None,
    for_training: bool = True,
    one_is_enough: bool = False,
    roster: Roster = NO_CHANGES,
) -> Dataset:
    """Read a folder with one folder of photos per person.

    Args:
        folder: see ``facecnn.photos.folder.scan``.
        settings: how photos are prepared; ``settings.folder`` is ignored.
        finder: finds the faces to crop; None: crop the middle.
        progress: called with the number of photos done and of all.
        for_training: whether there must be two classes, and people with photos that show something.
        one_is_enough: whether one person is enough for it, because the model knows strangers without photos of any.
        roster: who is added or left out.

    Raises:
        PhotoError: the folder can't be scanned; no photo is usable; or there is nothing to tell apart.
    """
    found = scan(folder)
    roster.apply(found)
    owners = [name for name, files in found.classes.items() for _ in files]
    files = [file for files in found.classes.values() for file in files]
    loaded = load_photos(files, settings, finder=finder, progress=progress)
    counts = Counter(owner for owner, row in zip(owners, loaded.row.tolist(), strict=True) if row >= 0)
    warnings = [*found.warnings, *_warn_of_unusable(found.classes, counts, loaded.reasons)]
    usable = {name: counts[name] for name in found.classes if counts[name]}
    if not usable:
        raise PhotoError(f"{shown(found.folder)}: none of {len(files)} photos can be used: {warnings[-1]}")
    if for_training:
        _refuse_one_class(tuple(usable), found.folder, warnings, one_is_enough=one_is_enough)
        _refuse_empty_people(owners, loaded)
    return _assemble(found, owners, loaded, usable, warnings, settings, finder)


def _assemble(
    found: Scan,
    owners: Sequence[str],
    loaded: LoadedPhotos,
    usable: Mapping[str, int],
    warnings: list[str],
    settings: PhotoSettings,
    finder: Finder | None,
) -> Dataset:
    """Sort the usable photos by class and path; ``owners``: each photo's class, ``usable``: photos of each class."""
    classes = tuple(usable)
    number = {name: index for index, name in enumerate(classes)}
    names = [photo_name(owner, file, found.folder) for owner, file in zip(owners, loaded.paths, strict=True)]
    kept = sorted((number[owners[index]], names[index], index) for index in np.flatnonzero(loaded.row >= 0).tolist())
    order = [index for _, _, index in kept]
    labels = np.array([label for label, _, _ in kept], dtype=np.int64)
    paths = tuple(path for _, path, _ in kept)
    sha256 = tuple(loaded.sha256[index] for index in order)
    rows, hashes = loaded.row[order], loaded.hashes[order]
    same_pictures = same_picture(loaded.pixels, rows, hashes)
    warnings += warn_of_copies(paths, labels, same_content(sha256), same_pictures)
    warnings += warn_of_unbalanced({name: usable[name] for name in classes if name != UNKNOWN})
    notes = [Note(shown(names[index]), text) for index, text in loaded.notes]
    warnings += grouped([note for note in notes if note.text == NO_CONTENT])
    notes += [Note(*warning.partition(": ")[::2]) for warning in loaded.warnings]  # about the cache, not a photo
    refused = [(path, reason) for path, reason in zip(names, loaded.reasons, strict=True) if reason is not None]
    return Dataset(
        folder=found.folder,
        settings=settings,
        finder=finder,
        classes=classes,
        paths=paths,
        files=tuple(str(loaded.paths[index]) for index in order),
        labels=labels,
        pixels=loaded.pixels,
        rows=rows,
        faces=tuple(loaded.faces[index] for index in order),
        sha256=sha256,
        hashes=hashes,
        sizes=loaded.sizes[order],
        skipped=(*(Skipped(shown(path), reason) for path, reason in refused), *found.left_out),
        warnings=tuple(warnings),
        notes=tuple(notes),
        same_pictures=tuple(same_pictures),
        passed_over=dict(sorted(found.passed_over.items())),
    )


@dataclass(frozen=True)
class Listing:
    """Photos that belong to nobody yet."""

    files: tuple[Path, ...]
    """In the order given. A folder is replaced by the photos in it, sorted; it stays if there are none."""
    empty: Mapping[int, str]
    """Why there are none, by the folder's index."""
    warnings: tuple[str, ...]
    """What was skipped."""

    def part(self, start: int, stop: int) -> "Listing":
        """The photos from ``start`` to ``stop``. Only the whole listing says what was skipped."""
        empty = {index - start: reason for index, reason in self.empty.items() if start <= index < stop}
        return Listing(self.files[start:stop], empty, ())


def list_files(paths: Iterable[str | Path]) -> Listing:
    """List photos in the order given; a folder stands for the photos in it."""
    files: list[Path] = []
    empty: dict[int, str] = {}
    passed_over: Counter[str] = Counter()
    warnings: list[str] = []
    for path in map(Path, paths):
        if is_folder(path):
            try:
                listing = list_photos(path)
            except PhotoError as error:
                empty[len(files)] = str(error).removeprefix(f"{shown(path)}: ")
            else:
                files += listing.files
                passed_over += listing.passed_over
                warnings += listing.warnings
                continue
        files.append(path)
    return Listing(tuple(files), empty, tuple(remarks(passed_over, warnings)))


def load_files(
    paths: Iterable[str | Path] | Listing,
    settings: PhotoSettings,
    progress: Callable[[int, int], None] | None = None,
    *,
    finder: Finder | None = None,
    workers: int | None = None,
) -> LoadedPhotos:
    """Read photos that belong to nobody yet: see ``Listing``.

    Each photo has a row of pixels or a reason, and so does a folder without photos. The warnings say what was skipped.
    ``workers``: see ``load_photos``.
    """
    listing = paths if isinstance(paths, Listing) else list_files(paths)
    loaded = load_photos(listing.files, settings, finder=finder, progress=progress, workers=workers)
    reasons = (listing.empty.get(index, reason) for index, reason in enumerate(loaded.reasons))
    said = (*loaded.warnings, *listing.warnings)
    return replace(loaded, reasons=tuple(reasons), warnings=said)


def photo_name(person: str, file: Path, root: Path | None = None) -> str:
    """PERSON/FILE of a file in the person's folder in ``root``. For any other, such as one of an added person, FILE is
    its whole path, because only that is unique."""
    parts = file.relative_to(root).parts if root is not None and file.is_relative_to(root) else file.absolute().parts
    return "/".join([person, *map(readable_name, parts[1:])])


def _warn_of_unusable(
    classes: Mapping[str, Sequence[Path]], usable: Mapping[str, int], reasons: Sequence[str | None]
) -> list[str]:
    """Warnings about classes without a usable photo; ``reasons``: of all photos, in the order of ``classes``."""
    warnings, start = [], 0
    for name, files in classes.items():
        if not usable[name]:
            common = Counter(reasons[start : start + len(files)]).most_common(1)[0][0]
            warnings.append(f"{shown(name)}: 0 of {len(files)} photos usable, left out ({common})")
        start += len(files)
    return warnings


def _refuse_empty_people(names: Sequence[str], loaded: LoadedPhotos) -> None:
    """Raise PhotoError for people whose usable photos are all uniform; ``names``: the class of each photo."""
    empty = {index for index, note in loaded.notes if note == NO_CONTENT}
    usable = np.flatnonzero(loaded.row >= 0).tolist()
    shows = {names[index] for index in usable if index not in empty}
    nothing = [shown(name) for name in dict.fromkeys(names[index] for index in usable) if name not in shows]
    if nothing:
        raise PhotoError(f"{some(nothing)}: no photo that shows anything (every pixel of each is the same): add others")


def _refuse_one_class(classes: tuple[str, ...], folder: Path, warnings: list[str], *, one_is_enough: bool) -> None:
    if len(classes) > 1 or (one_is_enough and classes != (UNKNOWN,)):
        return
    left_out = f" ({warnings[-1]})" if warnings else ""
    if classes == (UNKNOWN,):
        raise PhotoError(f"{shown(folder)}: strangers only{left_out}: add a folder of photos for each person")
    raise PhotoError(
        f"{shown(folder)}: only one person ({shown(classes[0])}){left_out}; at least two are needed, "
        f"or a folder {UNKNOWN}/ with photos of other people (-c pretrained needs neither)"
    )
