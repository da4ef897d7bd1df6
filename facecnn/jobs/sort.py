"""Copy photos into a folder per person, by a model's answers.

Originals are only read. Copies keep their name and times, and are written atomically. A copy that exists already is
left, so a run can be repeated or completed; if the name belongs to a file with other contents, the copy gets a number:
photo-2.jpg. No file is ever replaced except ``sorted.csv``, which keeps the rows of earlier runs about other photos.
"""

import csv
import filecmp
import io
import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from facecnn.errors import CheckpointError, OutputError, UsageError, folded, natural_order, shown
from facecnn.jobs.answers import as_csv
from facecnn.jobs.console import Console
from facecnn.jobs.copying import Copier, numbered_name, photos_to_place
from facecnn.jobs.predict import NO_FACE_LABEL, predict
from facecnn.parallel.ranks import ALONE, Ranks
from facecnn.photos.decode import UnusablePhoto
from facecnn.photos.folder import UNKNOWN, is_folder
from facecnn.runs.atomic import make_folder, output_error, write_atomically
from facecnn.runs.checkpoint import load_checkpoint

SEVERAL = "several"
"""Folder of photos with more than one face, with ``--several separate``."""

TABLE = "sorted.csv"

_SPECIAL = (UNKNOWN, NO_FACE_LABEL, SEVERAL)
_FIRST_COLUMNS = ("path", "face", "label", "confidence", "unknown_score", "box", "copied_to", "error")
"""The first columns of ``TABLE`` in every version of facecnn, by which it recognises its tables."""
_COLUMNS = (*_FIRST_COLUMNS, "also_like")
"""The columns of ``TABLE``, before those of the people's probabilities."""

Several = Literal["per-person", "main", "separate"]
"""Where a photo with several faces goes: into the folder of each person named in it (else ``unknown/``), into that of
its main face's answer, or into ``several/``."""


def sort(
    source: Path,
    destination: Path,
    model_path: Path,
    threshold: float | str,
    console: Console,
    device_name: str = "auto",
    threads: int | None = None,
    *,
    several: Several = "per-person",
    link: bool = False,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Copy photos into ``destination``/PERSON/.

    Strangers go into ``unknown/``, photos without a face into ``no_face/``. Photos that can't be read stay where they
    are. ``sorted.csv`` has a row for each face; its ``copied_to`` is the copy in the folder of that face's answer, or
    in ``several/``, and empty where the photo was copied for other faces only.

    A photo that is also in another of the folders, from an earlier answer or because somebody moved it, stays there
    and is listed in ``elsewhere``. Files in ``destination`` are not read, even where it lies within ``source``.

    Args:
        source: a folder of photos, or one photo.
        destination: is made if missing.
        threshold: as of ``predict``.
        several: where photos with several faces go.
        link: make hard links, which take no space, and copies only where that fails.
        ranks: the processes that share the answers, with the same arguments; rank 0 alone copies.

    Returns:
        Empty on other ranks than 0, else ``source, destination, model`` and ``_Placing.figures``.

    Raises:
        UsageError: the two are the same folder, or a person has the name of a special folder.
        PhotoError: there are no photos in ``source``.
        CheckpointError: the model can't be read, or a person's name can't be that of a folder.
        DeviceError: as from ``predict``.
        OutputError: something couldn't be written, or ``sorted.csv`` isn't from facecnn.
    """
    if ranks.rank:
        predict(model_path, ranks.broadcast(None, patiently=True), threshold, console, device_name, threads, ranks)
        return {}
    ranks.busy()
    files = photos_to_place(source, destination, console)
    people = _people(model_path)
    earlier = _earlier_rows(destination / TABLE)
    placing = _Placing(destination, people, several, link)
    ranks.broadcast(files)
    results = predict(model_path, files, threshold, console, device_name, threads, ranks)
    ranks.busy()
    placing.place_all(results, console)
    _write_table(destination / TABLE, earlier, placing.rows)
    return {
        "source": str(source),
        "destination": str(destination),
        "model": str(model_path),
        **placing.figures(),
    }


def _people(model_path: Path) -> list[str]:
    """The people of a model. Raises CheckpointError or UsageError for a name that can't be a folder's."""
    people = [name for name in load_checkpoint(model_path).classes if name != UNKNOWN]
    for name in people:
        # The model may be somebody else's: don't trust its names.
        if Path(name).parts != (name,) or name == os.pardir or "\0" in name:
            raise CheckpointError(f"The model has a person named {shown(name)!r}, which can't be a folder's name")
        if folded(name) in _SPECIAL:
            raise UsageError(
                f"The model has a person named {shown(name)}, but so is a special folder ({', '.join(_SPECIAL)})"
            )
    return people


class _Placing:
    """Copies photos into folders, and counts what it does."""

    def __init__(self, destination: Path, people: Sequence[str], several: Several, link: bool) -> None:
        make_folder(destination)  # before the work, in case it can't be made
        self._destination = destination
        self._earlier_folders = [name for name in (*people, *_SPECIAL) if is_folder(destination / name)]
        self._several = several
        self._photos = self._with_several_faces = 0
        self._copier = Copier(link=link)
        self.folders: Counter[str] = Counter()
        self.elsewhere: list[dict[str, str]] = []
        self.unreadable: list[dict[str, str]] = []
        self.rows: list[dict[str, Any]] = []

    def place_all(self, results: Sequence[dict[str, Any]], console: Console) -> None:
        """Copy the photos of the ``predict`` JSON. Raises OutputError."""
        with console.counting(self._copier.doing) as progress:
            for number, result in enumerate(results, 1):
                self._place(result)
                progress(number, len(results))
        self._copier.report(console)

    def figures(self) -> dict[str, Any]:
        """Counts and lists of what was done.

        Returns:
            ``photos, several {mode, photos}, folders {name: photos}, copied, linked, already_there, elsewhere [{path,
            also}], unreadable [{path, reason}], table``. A photo counts in each folder that it went to, so ``copied``,
            ``linked`` and ``already_there`` add up to the sum of ``folders``, which may be more than ``photos``;
            ``several`` counts the photos with more than one face.
        """
        order = {name: place for place, name in enumerate(_SPECIAL)}
        return {
            "photos": self._photos,
            "several": {"mode": self._several, "photos": self._with_several_faces},
            "folders": dict(
                sorted(self.folders.items(), key=lambda item: (order.get(item[0], -1), natural_order(item[0])))
            ),
            "copied": self._copier.copied,
            "linked": self._copier.linked,
            "already_there": self._copier.already_there,
            "elsewhere": self.elsewhere,
            "unreadable": self.unreadable,
            "table": str(self._destination / TABLE),
        }

    def _place(self, result: dict[str, Any]) -> None:
        """Copy one photo of the ``predict`` JSON, and add its rows. Raises OutputError."""
        photo, error = Path(result["path"]), result["error"]
        self._photos += 1
        self._with_several_faces += len(result["faces"]) > 1
        copies: dict[str, Path] = {}
        if error is None:
            try:
                for folder in _folders(result, self._several):
                    copies[folder] = self._put(photo, folder)
                    self.folders[folder] += 1
                self._look_elsewhere(photo, copies)
            except UnusablePhoto as unusable:  # it was readable a moment ago
                error = unusable.reason
        if error is not None:
            self.unreadable.append({"path": result["path"], "reason": error})
        for number, face in enumerate(result["faces"] or [result], 1):
            row = dict.fromkeys(_COLUMNS) | {key: face[key] for key in _COLUMNS if key in face}
            row |= {"path": result["path"], "face": number if result["faces"] else None, "error": error}
            copy = copies.get(face["label"], copies.get(SEVERAL))
            row["copied_to"] = None if copy is None else copy.relative_to(self._destination).as_posix()
            row |= {key: face[key] for key in ("probabilities", "others") if key in face}
            self.rows.append(row)

    def _put(self, photo: Path, folder: str) -> Path:
        parent = self._destination / folder
        make_folder(parent)
        target, is_there = _place_for(photo, parent)
        if is_there:
            self._copier.already_there += 1
        else:
            self._copier.put(photo, target)
        return target

    def _look_elsewhere(self, photo: Path, copies: Mapping[str, Path]) -> None:
        """Add to ``elsewhere`` where the photo also lies in another folder than those of its ``copies``."""
        right = {os.path.realpath(copy.parent) for copy in copies.values()}  # a folder may be a link to another
        for other in self._earlier_folders:
            if os.path.realpath(self._destination / other) in right:
                continue
            there, is_there = _place_for(photo, self._destination / other)
            if is_there and os.path.realpath(there) != os.path.realpath(photo):
                self.elsewhere.append({"path": str(photo), "also": str(there)})


def _folders(result: dict[str, Any], several: Several) -> list[str]:
    """The folders of an answered photo, at least one."""
    if len(result["faces"]) < 2 or several == "main":
        return [result["label"]]
    if several == "separate":
        return [SEVERAL]
    named = dict.fromkeys(face["label"] for face in result["faces"] if face["label"] != UNKNOWN)
    return list(named) or [UNKNOWN]


def _place_for(photo: Path, folder: Path) -> tuple[Path, bool]:
    """The path of a photo's copy, numbered if another file has its name; and whether the copy exists already."""
    for number in itertools.count(1):
        target = folder / numbered_name(photo.name, number)
        if not _exists(target):
            return target, False
        try:
            if filecmp.cmp(photo, target, shallow=False):
                return target, True
        except OSError:
            continue  # a broken link or no permission: not our copy
    raise AssertionError("numbers don't end")


def _exists(target: Path) -> bool:
    try:
        os.lstat(target)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise output_error(target, error) from error
    return True


def _earlier_rows(table: Path) -> list[dict[str, str]]:
    """The rows of earlier runs. Raises OutputError if the file isn't facecnn's."""
    try:
        reader = csv.DictReader(io.StringIO(table.read_bytes().decode("utf-8"), newline=""), strict=True)
        if tuple(reader.fieldnames or ())[: len(_FIRST_COLUMNS)] == _FIRST_COLUMNS:
            return [{key: value or "" for key, value in row.items() if key} for row in reader]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise output_error(table, error) from error
    except (UnicodeDecodeError, csv.Error):
        pass
    raise OutputError(f"{shown(table)}: not a table of this program, so it isn't overwritten: move it away")


def _write_table(table: Path, earlier: Sequence[dict[str, str]], rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows of earlier runs about other photos, then the new ones, with columns for all people in them."""
    new = list(csv.DictReader(io.StringIO(as_csv(rows), newline="")))
    about = {row["path"] for row in new}
    kept = [row for row in earlier if row["path"] not in about]
    columns = list(dict.fromkeys(key for row in (*new, *kept) for key in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows([*kept, *new])
    write_atomically(table, stream.getvalue().encode("utf-8"))
