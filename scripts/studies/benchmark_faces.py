"""How many faces does facecnn find, where, and how fast, beside other finders? They take turns, photo by photo.

    benchmark_faces.py FOLDER... [--peers] [--turned] [--empty FOLDER]
    benchmark_faces.py FOLDER... --cut-empty FOLDER

The peers are the package mtcnn on TensorFlow (the same networks), OpenCV's Haar cascade and dlib. They are best
installed into a virtual environment of their own, whose Python --peer-python names:

    pip install tensorflow-cpu mtcnn==1.0.0 "opencv-python-headless<5" dlib-bin face_recognition_models==0.3.0

Those that aren't installed are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageStat

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import at_least, exit_on_error, parser, say
from common.tables import percent, table
from common.worker import LineProcess
from facecnn.errors import DeviceError, FacecnnError, OutputError, PhotoError, UsageError, shown
from facecnn.kernels import available_threads, processor_name
from facecnn.photos.folder import list_photos
from studies.face_finders import FINDERS

HERE = Path(__file__).parent
OWN = "facecnn"
REFERENCE = "dlib"
"""The finder whose landmarks the others' are compared with."""

TURNS = (90, 180, 270)
SAME = 0.25
"""Mean distance of landmarks of the same face, in eye distances, is less than this."""
CUT_SIDE = 40
"""Side of the corners that are cut out as pictures without a face, in pixels."""
PLAIN = 8.0
"""Standard deviation of grey values below which a corner is plain: no finder sees a face there."""
SHEET_COLUMNS = 20

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """The faces that a finder found in a photo."""

    milliseconds: float
    boxes: list[list[float]]
    """left, top, right, bottom"""
    landmarks: list[Points | None]
    """(5, 2) each: eyes, tip of the nose, corners of the mouth; the left one in the picture first."""


class Finder:
    """A finder in a process of its own, which is idle between questions."""

    def __init__(self, name: str, python: Path, threads: int) -> None:
        """Raises ModuleNotFoundError where it isn't installed for that Python."""
        self.name = name
        try:
            self._lines = LineProcess([python, HERE / "face_finders.py", name, str(threads)])
        except OSError as error:
            raise UsageError(f"--peer-python {shown(python)}: can't be run ({error.strerror})") from error
        self.close = self._lines.close
        first = self._lines.answer()
        if "missing" in first:
            self.close()
            raise ModuleNotFoundError(first["missing"])
        self.version: str = first["version"]

    def find(self, photo: Path) -> Answer:
        """Show it a photo. Raises FacecnnError where the process has ended."""
        try:
            content = self._lines.ask(str(photo.resolve()))
        except FacecnnError as error:
            raise FacecnnError(f"{self.name}: {error}") from None
        faces = content["faces"]
        landmarks = [None if face["landmarks"] is None else np.array(face["landmarks"]) for face in faces]
        return Answer(content["milliseconds"], [face["box"] for face in faces], landmarks)


@dataclass
class Tally:
    """The results of a finder on a folder's photos."""

    finder: str
    photos: int = 0
    found: int = 0
    several: int = 0
    milliseconds: list[float] = field(default_factory=list)
    distances: list[Points] = field(default_factory=list)
    """(5,) for each photo with a face by both finders: distances of landmarks, in the reference's eye distances."""

    def add(self, answer: Answer) -> None:
        self.photos += 1
        self.found += bool(answer.boxes)
        self.several += len(answer.boxes) > 1
        self.milliseconds.append(answer.milliseconds)


def middle_landmarks(answer: Answer, photo: Path) -> Points | None:
    """The landmarks of the face nearest the middle, measured in sides of its box; None without face or landmarks."""
    with Image.open(photo) as image:
        width, height = image.size

    def distance(number: int) -> float:
        left, top, right, bottom = answer.boxes[number]
        return math.hypot(left + right - width, top + bottom - height) / max(right - left, bottom - top, 1.0)

    return answer.landmarks[min(range(len(answer.boxes)), key=distance)] if answer.boxes else None


def compare(finders: Sequence[Finder], photos: Sequence[Path], label: str) -> list[Tally]:
    """Show every photo to all finders, one after the other."""
    tallies = [Tally(finder.name) for finder in finders]
    for finder in finders:
        finder.find(photos[0])  # compiles, and fills caches
    for number, photo in enumerate(photos):
        _progress(label, number, len(photos))
        answers = {finder.name: finder.find(photo) for finder in finders}
        reference = middle_landmarks(answers[REFERENCE], photo) if REFERENCE in answers else None
        for tally in tallies:
            tally.add(answers[tally.finder])
            own = middle_landmarks(answers[tally.finder], photo)
            if reference is not None and own is not None and tally.finder != REFERENCE:
                eyes = np.hypot(*(reference[1] - reference[0]))
                tally.distances.append(np.hypot(*(own - reference).T) / eyes)
    return tallies


def _progress(label: str, number: int, count: int) -> None:
    if number % 50 == 0:
        say(f"{label}: {number} of {count}")


def tables(rows: Sequence[tuple[str, Tally]], finders: Sequence[Finder], threads: int) -> Iterator[str]:
    """Format tables of faces found and of landmarks."""
    names = {finder.name: f"{finder.name} {finder.version}" for finder in finders}
    many = "s" if threads > 1 else ""
    yield f"{processor_name()}, {threads} thread{many} (dlib: 1), milliseconds without decoding:\n"
    yield table(
        [
            (
                folder,
                names[tally.finder],
                tally.photos,
                tally.found,
                percent(tally.found / tally.photos),
                tally.several,
                f"{statistics.median(tally.milliseconds):.1f}",
            )
            for folder, tally in rows
        ],
        ("photos of", "finder", "photos", "a face found", "share", "several", "median ms a photo"),
    )
    compared = [(folder, tally) for folder, tally in rows if tally.distances]
    if not compared:
        return
    yield f"\nMean distance to {REFERENCE}'s landmarks in eye distances, of the face nearest the middle:\n"
    yield table(
        [
            (
                folder,
                names[tally.finder],
                len(tally.distances),
                f"{distances[:, :2].mean():.3f}",
                f"{distances[:, 2].mean():.3f}",
                f"{distances[:, 3:].mean():.3f}",
                f"{np.quantile(distances.mean(axis=1), 0.99):.3f}",
                f"{distances.mean(axis=1).max():.3f}",
            )
            for folder, tally in compared
            for distances in [np.array(tally.distances)]
        ],
        ("photos of", "finder", "photos", "eyes", "nose", "mouth", "all, 99 % of photos below", "all, worst photo"),
    )


def turned_table(finder: Finder, folders: Sequence[tuple[str, list[Path]]]) -> str:
    """Turn photos, and count those in which the face is found where it is in the upright photo."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        lying = Path(temporary, "lying.png")
        for label, photos in folders:
            for degrees in TURNS:
                same, milliseconds = 0, []
                for number, photo in enumerate(photos):
                    _progress(f"{label}, turned by {degrees}", number, len(photos))
                    expected = middle_landmarks(finder.find(photo), photo)
                    with Image.open(photo) as image:
                        width, height = image.size
                        image.convert("RGB").rotate(-degrees, expand=True).save(lying)
                    answer = finder.find(lying)
                    milliseconds.append(answer.milliseconds)
                    found = middle_landmarks(answer, lying)
                    if expected is not None and found is not None:
                        eyes = np.hypot(*(expected[1] - expected[0]))
                        off = np.hypot(*(found - turned(expected, width, height, degrees)).T).mean() / eyes
                        same += bool(off < SAME)
                share = percent(same / len(photos))
                rows.append((label, degrees, len(photos), same, share, f"{statistics.median(milliseconds):.1f}"))
    headers = ("photos of", "turned clockwise by", "photos", "the same face found", "share", "median ms a photo")
    return f"\nfacecnn on turned photos:\n\n{table(rows, headers)}"


def turned(points: Points, width: int, height: int, degrees: int) -> Points:
    """Turn points (n, 2) clockwise, together with a picture of that size."""
    for _ in range(degrees // 90):
        points = np.stack([height - points[:, 1], points[:, 0]], axis=1)
        width, height = height, width
    return points


def cut_empty(finders: Sequence[Finder], photos: Sequence[Path], destination: Path, count: int) -> int:
    """Cut corners without a face out of photos, unscaled, and write them and a sheet of them all to a new folder.

    Corners overlap neither facecnn's face nearest the middle nor any face of the other finders. Other faces have to be
    sorted out by eye: if facecnn itself did it, the pictures would be no test of facecnn.

    Raises PhotoError where there is no such corner, OutputError where the folder exists or can't be written.
    """
    corners: list[tuple[str, Image.Image]] = []
    for number, photo in enumerate(photos):
        _progress("cutting corners", number, len(photos))
        with Image.open(photo) as opened:
            image = opened.convert("RGB")
        boxes = []
        for finder in finders:
            found = finder.find(photo).boxes
            boxes += found if finder.name != OWN else _nearest(found, image.size)
        if min(image.size) < CUT_SIDE:
            continue
        right, bottom = image.width - CUT_SIDE, image.height - CUT_SIDE
        for name, left, top in (("tl", 0, 0), ("tr", right, 0), ("bl", 0, bottom), ("br", right, bottom)):
            part = image.crop((left, top, left + CUT_SIDE, top + CUT_SIDE))
            plain = ImageStat.Stat(part.convert("L")).stddev[0] < PLAIN
            if not plain and not any(_overlaps((left, top), box) for box in boxes):
                corners.append((f"{photo.stem}_{name}.png", part))
    # In an order that doesn't depend on what they show.
    corners.sort(key=lambda corner: hashlib.sha256(corner[0].encode()).digest())
    chosen = corners[:count]
    if not chosen:
        raise PhotoError("--cut-empty: no corner of these photos is free of faces and shows anything")
    sheet = Image.new("RGB", (SHEET_COLUMNS * CUT_SIDE, -(-len(chosen) // SHEET_COLUMNS) * CUT_SIDE))
    try:
        destination.mkdir(parents=True)
        for number, (name, part) in enumerate(chosen):
            part.save(destination / f"{number:03}_{name}")
            sheet.paste(part, (number % SHEET_COLUMNS * CUT_SIDE, number // SHEET_COLUMNS * CUT_SIDE))
        sheet.save(destination.with_name(f"{destination.name}_sheet.png"))
    except OSError as error:
        raise OutputError(f"--cut-empty {shown(destination)}: {error.strerror}: name a new folder") from error
    return len(chosen)


def _nearest(boxes: list[list[float]], size: tuple[int, int]) -> list[list[float]]:
    middle = np.array(size) / 2
    return sorted(boxes, key=lambda box: float(np.hypot(*(np.reshape(box, (2, 2)).mean(axis=0) - middle))))[:1]


def _overlaps(corner: tuple[int, int], box: list[float]) -> bool:
    left, top = corner
    return left < box[2] and left + CUT_SIDE > box[0] and top < box[3] and top + CUT_SIDE > box[1]


def parse_arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="photos with one face in the middle")
    made.add_argument("--peers", action="store_true", help="compare with the other finders")
    made.add_argument(
        "--peer-python", type=Path, default=Path(sys.executable), help="the Python that has them (default: this one)"
    )
    made.add_argument("--empty", type=Path, metavar="FOLDER", help="also pictures without a face")
    made.add_argument("--turned", action="store_true", help="also facecnn on turned photos")
    made.add_argument("--threads", type=at_least(1), default=available_threads(), help="of each finder (default: all)")
    made.add_argument("--limit", type=at_least(1), help="this many photos of each folder, picked evenly")
    made.add_argument(
        "--cut-empty", type=Path, metavar="FOLDER", help="instead, cut pictures without a face out of the photos"
    )
    made.add_argument("--count", type=at_least(1), default=400, help="how many to cut (default: 400)")
    return made.parse_args()


def picked(folder: Path, limit: int | None) -> list[Path]:
    """List the photos in a folder and below it. Raises PhotoError if there are none."""
    photos = list_photos(folder).files
    return photos if limit is None else photos[:: -(-len(photos) // limit)]


def open_finders(names: Sequence[str], arguments: argparse.Namespace, opened: contextlib.ExitStack) -> list[Finder]:
    """Open the finders that are installed; others are named on stderr. Raises DeviceError without facecnn's own."""
    finders = []
    for name in names:
        python = Path(sys.executable) if name == OWN else arguments.peer_python
        try:
            finder = Finder(name, python, arguments.threads)
        except ModuleNotFoundError as error:
            if name == OWN:
                raise DeviceError(f"faces can't be found: {error}: pip install 'facecnn[faces]'") from error
            say(f"{name} is left out: {error}")
            continue
        opened.callback(finder.close)
        finders.append(finder)
    return finders


@exit_on_error()
def main() -> None:
    arguments = parse_arguments()
    if arguments.threads > available_threads():
        raise UsageError(f"--threads {arguments.threads}: there are {available_threads()}")
    folders = [(folder.name, picked(folder, arguments.limit)) for folder in arguments.folders]
    if arguments.empty is not None:
        folders.append((f"{arguments.empty.name} (no face)", picked(arguments.empty, arguments.limit)))
    with contextlib.ExitStack() as opened:
        if arguments.cut_empty is not None:
            finders = open_finders((OWN, REFERENCE), arguments, opened)
            photos = [photo for _, some in folders for photo in some]
            count = cut_empty(finders, photos, arguments.cut_empty, arguments.count)
            print(
                f"{count} pictures in {shown(arguments.cut_empty)}: look at the sheet beside it, and delete the faces"
            )
            return
        finders = open_finders(tuple(FINDERS) if arguments.peers else (OWN,), arguments, opened)
        rows = [(label, tally) for label, photos in folders for tally in compare(finders, photos, label)]
        for text in tables(rows, finders, arguments.threads):
            print(text)
        if arguments.turned:
            with_faces = folders[: len(arguments.folders)]
            print(turned_table(next(finder for finder in finders if finder.name == OWN), with_faces))


if __name__ == "__main__":
    main()
