"""Group the faces of an unsorted album by person, into a folder for each.

The destination is new. Its table, which has the whole plan, is written first, and the page last: if there is no page,
the run was interrupted, and another one with the same photos completes it. No file is ever replaced but the table.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facecnn.body.embedder import Embedder
from facecnn.errors import OutputError, folded, shown
from facecnn.jobs.answers import as_csv
from facecnn.jobs.console import Console
from facecnn.jobs.copying import Copier, numbered_name, photos_to_place
from facecnn.jobs.devices import open_and_show, part_of_machine
from facecnn.jobs.face_groups import GroupedFaces, find_groups, look_beforehand
from facecnn.parallel.ranks import ALONE, Ranks
from facecnn.photos.cache import LoadedPhotos
from facecnn.photos.decode import UnusablePhoto, read
from facecnn.photos.face import NO_FACE
from facecnn.photos.folder import GROUPS, UNCLEAR
from facecnn.reports.contact_sheet import PAGE, FaceCard, GroupSection, GroupSheet, write_group_sheet
from facecnn.runs.atomic import TEMPORARY_SUFFIX, make_folder, output_error, write_atomically

_FACES_A_GROUP, _GROUPS = 30, 100
"""More would make a page too large for browsers: 3,000 faces take about 20 MB."""


@dataclass
class Grouping:
    """The result of grouping an album."""

    source: Path
    destination: Path
    faces: list[dict[str, Any]]
    """The ``group`` JSON: a row for each face, and one for each photo without."""
    photos: int
    without_face: list[str]
    """Paths of the photos without a face."""
    unreadable: list[dict[str, Any]]
    """``path, reason`` of the photos that couldn't be read."""
    folders: dict[str, int] = field(default_factory=dict)
    """Photos in each folder, the largest group first, then ``UNCLEAR``."""
    copied: int = 0
    linked: int = 0
    already_there: int = 0

    @property
    def people(self) -> list[str]:
        """The folders of people."""
        return [name for name in self.folders if name != UNCLEAR]


def group(
    source: Path,
    destination: Path,
    console: Console,
    device_name: str = "auto",
    threads: int | None = None,
    *,
    link: bool = False,
    ranks: Ranks = ALONE,
) -> Grouping | None:
    """Copy the photos of an unsorted album into ``destination``/person-001/ and so on, the largest group first.

    A photo with several people goes into the folder of each, and one in which nobody is in a group into ``unclear/``.
    Photos without a face, and those that can't be read, stay where they are. ``groups.csv`` has a row for each face,
    ``index.html`` shows them.

    Args:
        source: a folder of photos, or one photo.
        destination: a folder that is missing, empty, or of an interrupted run.
        link: make hard links, which take no space, and copies only where that fails.
        ranks: the processes that share finding and embedding the faces, with the same arguments; rank 0 does the rest.

    Returns:
        None on other ranks than 0.

    Raises:
        UsageError: the two are the same folder, or face finding isn't installed.
        PhotoError: there are no photos in ``source``.
        CheckpointError: the weights of the face network aren't installed, or are damaged.
        DeviceError: the device can't be used.
        OutputError: ``destination`` holds other things, or something couldn't be written.
    """
    ranks.busy()
    files = photos_to_place(source, destination, console) if ranks.rank == 0 else []
    device_name, threads = part_of_machine(device_name, threads, ranks)
    device = open_and_show(device_name, threads, console)
    embedder = Embedder(device.backend)
    if ranks.rank == 0:
        ranks.busy()
        _prepare(destination)
    files = ranks.broadcast(files if ranks.rank == 0 else None, patiently=True)
    look_beforehand(files, embedder, console, threads, ranks)
    if ranks.rank:
        return None
    ranks.busy()
    faces = find_groups(files, embedder, console, threads)
    plan = _Plan(faces, destination)
    result = Grouping(source, destination, plan.rows, len(files), plan.without_face, plan.unreadable)
    _begin(destination, plan.rows)
    _copy(plan, result, Copier(link=link), console)
    with console.counting("Making the contact sheet", unit="groups") as progress:
        sheet = _make_sheet(source, faces, plan.copies, plan.folders, progress)
    write_group_sheet(destination, sheet)
    return result


class _Plan:
    """Where each photo goes."""

    def __init__(self, faces: GroupedFaces, destination: Path) -> None:
        self.rows: list[dict[str, Any]] = []
        """The ``group`` JSON, which is the table, too."""
        self.copies: list[dict[str, Path]] = []
        """For each photo its copy in each of its folders, the one of the first face first."""
        self.without_face: list[str] = []
        self.unreadable: list[dict[str, Any]] = []
        self._destination = destination
        self._names: dict[str, dict[str, str]] = defaultdict(dict)
        self._taken: dict[str, set[str]] = defaultdict(set)
        loaded = faces.loaded
        self.photos = loaded.paths
        of_photo: dict[int, list[int]] = defaultdict(list)
        for face, number in enumerate(faces.photo.tolist()):
            of_photo[number].append(face)
        for number, path in enumerate(loaded.paths):
            self._add(str(path), loaded, number, of_photo[number], faces)

    @property
    def folders(self) -> list[str]:
        """The folders, the largest group first, then ``UNCLEAR``."""
        return sorted(self._names, key=lambda name: (name == UNCLEAR, name))

    def _add(self, path: str, loaded: LoadedPhotos, number: int, found: list[int], faces: GroupedFaces) -> None:
        row: dict[str, Any] = {"path": path, "face": None, "box": None, "group": None, "reason": None}
        if not found:
            reason = loaded.reasons[number]
            if reason == NO_FACE:
                reason = "no face found"
                self.without_face.append(path)
            else:
                self.unreadable.append({"path": path, "reason": reason})
            self.copies.append({})
            self.rows.append(row | {"reason": reason, "copied_to": None})
            return
        named = [folder for folder in map(faces.folder_of, found) if folder is not None]
        folders = list(dict.fromkeys(named)) or [UNCLEAR]
        copies = {folder: self._destination / folder / self._name(folder, loaded, number) for folder in folders}
        self.copies.append(copies)
        for index, face in enumerate(found):
            group = faces.folder_of(face)
            copy = copies.get(group or UNCLEAR)
            self.rows.append(
                row
                | {
                    "face": index + 1,
                    "box": list(loaded.faces[number][index].box),
                    "group": group,
                    "reason": faces.reason[face],
                    "copied_to": None if copy is None else copy.relative_to(self._destination).as_posix(),
                }
            )

    def _name(self, folder: str, loaded: LoadedPhotos, number: int) -> str:
        """The name of a photo in a folder; copies of one file get one name."""
        names, taken, sha256 = self._names[folder], self._taken[folder], loaded.sha256[number]
        if sha256 not in names:
            count = 1
            while folded(name := numbered_name(loaded.paths[number].name, count)) in taken:
                count += 1
            names[sha256] = name
            taken.add(folded(name))
        return names[sha256]


def _prepare(destination: Path) -> None:
    """Make the destination. Raises OutputError if it holds anything but what an interrupted run has left."""
    make_folder(destination)
    try:
        names = {entry.name for entry in destination.iterdir() if not entry.name.endswith(TEMPORARY_SUFFIX)}
    except OSError as error:
        raise output_error(destination, error) from error
    if PAGE in names and GROUPS in names:
        raise OutputError(f"{shown(destination)}: holds the groups of an earlier run: choose another folder")
    if names and GROUPS not in names:
        raise OutputError(f"{shown(destination)}: not an empty folder: choose another, or empty it")


def _begin(destination: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the table. Raises OutputError if there is another one."""
    table, content = destination / GROUPS, as_csv(rows).encode("utf-8")
    try:
        if os.path.lexists(table) and table.read_bytes() != content:
            raise OutputError(
                f"{shown(table)}: from an interrupted run with other photos, or not facecnn's table: choose another "
                "folder, or delete this one"
            )
    except OSError as error:
        raise output_error(table, error) from error
    write_atomically(table, content)


def _copy(plan: _Plan, result: Grouping, copier: Copier, console: Console) -> None:
    """Copy the photos, and write the table anew where one is gone. Raises OutputError."""
    folders: Counter[str] = Counter()
    gone: dict[str, str] = {}
    with console.counting(copier.doing) as progress:
        for number, (photo, copies) in enumerate(zip(plan.photos, plan.copies, strict=True), 1):
            try:
                for folder, target in copies.items():
                    make_folder(target.parent)
                    if _is_there(photo, target):
                        copier.already_there += 1
                    else:
                        copier.put(photo, target)
                    folders[folder] += 1
            except UnusablePhoto as unusable:  # it was readable a moment ago
                gone[str(photo)] = unusable.reason
            progress(number, len(plan.photos))
    copier.report(console)
    if gone:
        for row in plan.rows:
            if row["path"] in gone:
                row |= {"reason": gone[row["path"]], "group": None, "copied_to": None}
        result.unreadable += [{"path": path, "reason": reason} for path, reason in gone.items()]
        write_atomically(result.destination / GROUPS, as_csv(plan.rows).encode("utf-8"))
    result.folders = {folder: folders[folder] for folder in plan.folders}
    result.copied, result.linked, result.already_there = copier.copied, copier.linked, copier.already_there


def _is_there(photo: Path, target: Path) -> bool:
    """Whether a photo was copied already. Raises UnusablePhoto, and OutputError if another file has the name."""
    if not os.path.lexists(target):
        return False
    content = read(photo, largest=None)
    try:
        if target.read_bytes() == content:
            return True
    except OSError as error:
        raise output_error(target, error) from error
    raise OutputError(f"{shown(target)}: another file has the name of a copy: move it away")


def _make_sheet(
    album: Path,
    faces: GroupedFaces,
    copies: Sequence[Mapping[str, Path]],
    folders: Sequence[str],
    progress: Callable[[int, int], None],
) -> GroupSheet:
    """The contact sheet: the largest groups, each with the faces least like it first, then the unclear faces.

    ``copies`` are those of each photo, by folder.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for face, photo in enumerate(faces.photo.tolist()):
        folder = faces.folder_of(face) or UNCLEAR
        if folder in copies[photo]:  # an unclear face beside others isn't in unclear/
            members[folder].append(face)
    people = [folder for folder in folders if folder != UNCLEAR]
    on_page = people[:_GROUPS] + [folder for folder in folders if folder == UNCLEAR]
    sections = []
    for number, folder in enumerate(on_page, 1):
        order = sorted(members[folder], key=lambda face: (faces.nearness[face], face))
        cards = []
        for face in order[:_FACES_A_GROUP]:
            file = copies[faces.photo[face]][folder]
            cards.append(FaceCard(file, faces.pixels[faces.crops.rows[face]], faces.reason[face]))
        sections.append(GroupSection(folder, len(members[folder]), cards))
        progress(number, len(on_page))
    return GroupSheet(album.resolve().name or str(album), len(people), sections)
