"""Is the right face trained on if photos show several people? Group pictures are pasted, so the truth is known.

PEOPLE is a folder with one folder of photos per person. A share (``--shares``) of each folder becomes group pictures:
the person's face and one to five strangers' faces, each with its surroundings, in various sizes and places. In half of
them the person's face isn't the one nearest the middle (in sides of its own box). Of the strangers' photos, sorted by
name, the first, third ... are pasted into groups, and the others are the folder unknown/.

"chosen right": the share of group pictures, of those trained on or left out because no face fits, in which the face
trained on is the pasted one; "main right": the share in which the main face is. With ``--train`` a fifth of each
person's photos, chosen by ``--fold``, is kept apart. "named right" is how many of these ``predict`` names right, and
"closed set" for how many the likeliest person is the right one, after training on the groups, and on the same photos
unchanged. ``--sorted N`` pastes N more groups from these photos: "in their folder" counts the groups in which the
person is named, so that ``sort`` puts them there, and "spectators named" the strangers' faces that get a name.

``--keep FOLDER`` keeps the pictures of each share, with the box of each true face in SHARE.json.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import add_config, at_least, exit_on_error, parser
from common.tables import percent, table
from facecnn.arrays import Array
from facecnn.config import Loaded, apply_overrides, load
from facecnn.errors import UsageError
from facecnn.jobs.evaluate import EvaluateOptions, evaluate
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.photos import TrainingPhotos, read_photos
from facecnn.jobs.training.train import train
from facecnn.photos.dataset import Dataset, load_files
from facecnn.photos.face import Face
from facecnn.photos.folder import UNKNOWN, list_photos
from studies.album import CONSOLE, read_album

CANVAS = 640, 440
"""Pixels of a group picture, width and height."""
SURROUNDINGS = 1.6
"""Side of the square that is cut out around a face, in sides of its box."""
SIZES = 40, 110
"""Least and largest side of a pasted face's box, in pixels."""
KEPT = 5
"""One in so many photos of each person is kept apart for tests."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Portrait:
    """A photo and the face in it."""

    path: Path
    face: Face

    def cut_out(self, side: int) -> Image.Image:
        """Cut out the face with its surroundings, and resize it until the longer side of its box is ``side`` pixels."""
        left, top, right, bottom = self.face.box
        half = SURROUNDINGS / 2 * max(right - left, bottom - top)
        x, y = (left + right) / 2, (top + bottom) / 2
        with Image.open(self.path) as photo:
            square = photo.convert("RGB").crop((round(x - half), round(y - half), round(x + half), round(y + half)))
        size = round(SURROUNDINGS * side)
        return square.resize((size, size), Image.Resampling.BICUBIC)


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("people", type=Path, help="a folder with one folder of photos per person")
    arguments.add_argument("strangers", type=Path, help="a folder of photos of other people")
    add_config(arguments)
    arguments.add_argument("--shares", type=float, nargs="+", default=[0.2, 0.5, 0.8], help="(default: 0.2 0.5 0.8)")
    arguments.add_argument("--seed", type=at_least(0), default=0, help="of the pictures (default: 0)")
    arguments.add_argument("--train", action="store_true", help="train, and count what is named right")
    arguments.add_argument("--fold", type=int, choices=range(KEPT), default=0, help="that is kept apart (default: 0)")
    arguments.add_argument(
        "--sorted", type=at_least(1), metavar="N", help="with --train: also paste and name this many groups"
    )
    arguments.add_argument("--threads", type=at_least(1), help="(default: all)")
    arguments.add_argument("--keep", type=Path, metavar="FOLDER", help="where the pictures are kept")
    options = arguments.parse_args()
    loaded = apply_overrides(load(options.config), options.set)
    with tempfile.TemporaryDirectory() as folder:
        run(options, loaded, options.keep or Path(folder))


def run(options: Any, loaded: Loaded, work: Path) -> None:
    """Paste, train if asked to, and print."""
    people, finder = read_album(options.people, loaded.settings.photos, options.threads)
    if finder is None:
        raise UsageError("faces aren't found: install the extra faces, and leave photos.faces at auto")
    photos = list_photos(options.strangers).files
    spectators = load_files(photos[::2], loaded.settings.photos, finder=finder)
    strangers = [
        Portrait(path, faces[0]) for path, faces in zip(spectators.paths, spectators.faces, strict=True) if faces
    ]
    kept = np.flatnonzero(number_in_class(people) % KEPT == options.fold)[: None if options.train else 0]
    for number in kept.tolist():
        copy(people.files[number], work / "kept" / people.paths[number])
    groups = Groups(people, strangers, kept, options.seed)
    to_sort = groups.paste_kept(options.sorted or 0, work / "sorted")

    def trained_right(folder: Path) -> list[str]:
        result = train(loaded, TrainOptions(photos=folder, out=work / "runs", threads=options.threads), CONSOLE)
        run = Path(result["run"])
        figures = evaluate(EvaluateOptions(run, work / "kept"), CONSOLE).figures
        known, closed_set = figures["known"], figures["closed_set_accuracy"]
        found = [f"{known['named_right']} of {known['photos']}", percent(closed_set)]
        if not to_sort:
            return [*found, "-", "-"]
        return [*found, *judge_sorted(evaluate(EvaluateOptions(run, work / "sorted"), CONSOLE).predictions, to_sort)]

    rows = []
    for share in (0.0, *options.shares) if options.train else options.shares:
        folder = work / f"{share:g}"
        truth = groups.paste_to_train_on(share, folder)
        for path in photos[1::2]:
            copy(path, folder / UNKNOWN / path.name)
        (work / f"{share:g}.json").write_text(json.dumps(truth, indent=1))
        data = read_photos(loaded, TrainOptions(photos=folder, threads=options.threads), CONSOLE)
        trained_on, main, chosen, left_out = judge(data, truth)
        named = trained_right(folder) if options.train else ["-"] * 4
        shares = [percent(count / trained_on) if trained_on else "-" for count in (main, chosen)]
        rows.append([f"{100 * share:g} %", trained_on, *shares, left_out, *named])
    titles = ["groups", "trained on", "main right", "chosen right", "left out", "named right", "closed set"]
    print(table(rows, [*titles, "in their folder", "spectators named"]))


def number_in_class(people: Dataset) -> Array:
    """Count the photos of the same person before each photo, (photos,)."""
    first = np.searchsorted(people.labels, people.labels)
    return np.arange(len(people.labels)) - first


def copy(source: str | Path, place: Path) -> None:
    """Copy a file, and make its folder."""
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, place)


@dataclass(frozen=True)
class Groups:
    """Pastes group pictures. Its methods return the box of the person's face in each of them, by PERSON/FILE."""

    people: Dataset
    strangers: Sequence[Portrait]
    kept: Array
    """Numbers of the photos that are kept apart."""
    seed: int

    def paste_to_train_on(self, share: float, folder: Path) -> dict[str, Box]:
        """Make a folder for ``facecnn train`` of the photos that aren't kept apart, a share of them group pictures."""
        random = np.random.default_rng(self.seed)
        truth: dict[str, Box] = {}
        for label in range(len(self.people.people)):
            own = np.setdiff1d(np.flatnonzero(self.people.labels == label), self.kept)
            grouped = random.permutation(own)[: round(share * len(own))].tolist()
            for number in own.tolist():
                place = folder / self.people.paths[number]
                if number in grouped:
                    truth |= self._paste(number, place.with_suffix(".png"), grouped.index(number) % 2 == 0, random)
                else:
                    copy(self.people.files[number], place)
        return truth

    def paste_kept(self, count: int, folder: Path) -> dict[str, Box]:
        """Make a folder of ``count`` group pictures of the photos that are kept apart, in turn."""
        random = np.random.default_rng([self.seed, 1])
        truth: dict[str, Box] = {}
        for index, number in enumerate(np.resize(self.kept, count).tolist()):
            person = self.people.classes[self.people.labels[number]]
            truth |= self._paste(number, folder / person / f"{index:03}.png", index % 2 == 0, random)
        return truth

    def _paste(self, number: int, place: Path, in_the_middle: bool, random: np.random.Generator) -> dict[str, Box]:
        place.parent.mkdir(parents=True, exist_ok=True)
        person = Portrait(Path(self.people.files[number]), self.people.faces[number][0])
        box = group_picture(person, self.strangers, in_the_middle, random, place)
        return {f"{place.parent.name}/{place.name}": box}


def group_picture(
    person: Portrait, strangers: Sequence[Portrait], in_the_middle: bool, random: np.random.Generator, path: Path
) -> Box:
    """Write a picture of a person beside one to five strangers. Returns the box of the person's face, which is the one
    nearest the middle or another one."""
    others = [strangers[i] for i in random.choice(len(strangers), int(random.integers(1, 6)), replace=False)]
    width, height = CANVAS
    with Image.open(person.path) as photo:
        blurred = photo.convert("RGB").resize((16, 11)).resize(CANVAS, Image.Resampling.BICUBIC)
    picture = blurred.filter(ImageFilter.GaussianBlur(20))
    sides, places = arrangement(1 + len(others), random)
    middles = places + SURROUNDINGS * sides[:, None] / 2
    distances = np.hypot(*(middles - (width / 2, height / 2)).T) / sides
    nearest = int(distances.argmin())
    its = nearest if in_the_middle else int(random.choice(np.delete(np.arange(len(sides)), nearest)))
    portraits = list(others)
    portraits.insert(its, person)
    for portrait, side, place in zip(portraits, sides.tolist(), places.tolist(), strict=True):
        picture.paste(portrait.cut_out(side), tuple(place))
    x, y = middles[its].tolist()
    half = sides[its] / 2
    picture.save(path)
    return x - half, y - half, x + half, y + half


def arrangement(count: int, random: np.random.Generator) -> tuple[Array, Array]:
    """Draw sides (count,) of faces, and places (count, 2) of the squares around them, which don't overlap."""
    while True:
        sides = random.integers(SIZES[0], SIZES[1] + 1, count)
        squares = np.round(SURROUNDINGS * sides).astype(int)
        places = np.array([[random.integers(0, length - square + 1) for length in CANVAS] for square in squares])
        ends = places + squares[:, None]
        apart = (places[:, None] >= ends[None]) | (ends[:, None] <= places[None])
        if (apart.any(axis=2) | np.eye(count, dtype=bool)).all():
            return sides, places


def judge(data: TrainingPhotos, truth: dict[str, Box]) -> tuple[int, int, int, int]:
    """Count the group pictures to train on: in all, with the true one as main face, with the true one as the face
    trained on, and left out."""
    dataset = data.dataset
    numbers = [*data.train_indices.tolist(), *data.training.left_out]
    groups = [number for number in numbers if dataset.paths[number] in truth]
    first = [is_at(dataset.faces[number][0].box, truth[dataset.paths[number]]) for number in groups]
    faces = dict(zip(data.train_indices.tolist(), data.training.faces.tolist(), strict=True))
    chosen = [
        number in faces and is_at(dataset.faces[number][faces[number]].box, truth[dataset.paths[number]])
        for number in groups
    ]
    return len(groups), sum(first), sum(chosen), sum(number not in faces for number in groups)


def judge_sorted(predictions: Sequence[dict[str, Any]], truth: dict[str, Box]) -> list[str]:
    """Count the group pictures in which the person is named, and the other faces in them that are."""
    right = sum(photo["truth"] in photo["names"] for photo in predictions)
    others = [
        face["label"]
        for photo in predictions
        for face in photo.get("faces", [])
        if not is_at(face["box"], truth[photo["path"]])
    ]
    named = sum(label != UNKNOWN for label in others)
    return [f"{right} of {len(truth)}", f"{named} of {len(others)}"]


def is_at(face: Sequence[float], box: Box) -> bool:
    """Whether a face was found where one was pasted: the middle of each is in the other's box."""
    return all(
        one[0] < (other[0] + other[2]) / 2 < one[2] and one[1] < (other[1] + other[3]) / 2 < one[3]
        for one, other in ((face, box), (box, face))
    )


if __name__ == "__main__":
    main()
