"""Is the right face trained on where photos show several people? Group pictures are pasted whose truth is known.

PEOPLE is a folder with one folder of photos per person. A share (``--shares``) of each folder becomes group pictures:
the person's face and one to five strangers' faces, each with its surroundings, of various sizes at various places. In
half of them the person's face isn't the one nearest the middle (in sides of its own box). The strangers' photos, sorted
by name, are dealt in two halves: the first, third ... stand in the groups, the others are the folder unknown/.

"chosen right": of the group pictures that are trained on, or left out as no face in them fits, in how many the face
trained on is the pasted one; "main right": in how many the main face is. With ``--train`` a fifth of each person's
photos, the one that ``--fold`` says, is kept apart. "named right" is how many of these ``predict`` names right, "closed
set" of how many the likeliest person is the right one, trained on the groups and on the same photos as they were.
``--sorted N`` pastes N more groups of these photos: "in their folder" is in how many the person is named, so that
``sort`` puts them there, and "spectators named" how many of the strangers' faces in them get a name.

``--keep FOLDER`` keeps the pictures of each share, with truth.json: the box of the true face of each.
"""

from __future__ import annotations

import argparse
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

from common.command import errors_told
from common.experiment import at_least, table
from facecnn.cli.console import StderrConsole
from facecnn.config import Loaded, apply_overrides, load
from facecnn.errors import UsageError
from facecnn.jobs.evaluate import EvaluateOptions, evaluate
from facecnn.jobs.faces import installed_finder
from facecnn.jobs.people import read_people
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.photos import TrainingPhotos, read_photos
from facecnn.jobs.training.train import train
from facecnn.photos.dataset import Dataset, load_files
from facecnn.photos.face import Face
from facecnn.photos.folder import UNKNOWN, list_photos

CANVAS = 640, 440
"""Pixels of a group picture, width and height."""
SURROUNDINGS = 1.6
"""Sides of its box that are cut out around a face."""
SIZES = 40, 110
"""Pixels a side that a face's box comes to have."""
KEPT = 5
"""One in so many photos of each person is kept to judge by."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Portrait:
    """A photo and the face in it."""

    path: Path
    face: Face

    def cut_out(self, side: int) -> Image.Image:
        """The face with its surroundings, so large that the longer side of its box is ``side`` pixels."""
        left, top, right, bottom = self.face.box
        half = SURROUNDINGS / 2 * max(right - left, bottom - top)
        x, y = (left + right) / 2, (top + bottom) / 2
        with Image.open(self.path) as photo:
            square = photo.convert("RGB").crop((round(x - half), round(y - half), round(x + half), round(y + half)))
        size = round(SURROUNDINGS * side)
        return square.resize((size, size), Image.Resampling.BICUBIC)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("people", type=Path, help="a folder with one folder of photos per person")
    arguments.add_argument("strangers", type=Path, help="a folder of photos of other people")
    arguments.add_argument("-c", "--config", default="default", help="(default: default)")
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments.add_argument("--shares", type=float, nargs="+", default=[0.2, 0.5, 0.8], help="(default: 0.2 0.5 0.8)")
    arguments.add_argument("--seed", type=at_least(0), default=0, help="of the pictures (default: 0)")
    arguments.add_argument("--train", action="store_true", help="train, and judge what is named right")
    arguments.add_argument("--fold", type=int, choices=range(KEPT), default=0, help="that is kept apart (default: 0)")
    arguments.add_argument("--sorted", type=at_least(1), metavar="N", help="with --train: groups to answer, too")
    arguments.add_argument("--threads", type=at_least(1), help="(default: all)")
    arguments.add_argument("--keep", type=Path, metavar="FOLDER", help="where the pictures are kept")
    options = arguments.parse_args()
    loaded = apply_overrides(load(options.config), options.set)
    with tempfile.TemporaryDirectory() as folder:
        run(options, loaded, options.keep or Path(folder))


def run(options: Any, loaded: Loaded, work: Path) -> None:
    """Paste, choose, train where that is wanted, and print."""
    console = StderrConsole(quiet=True, verbose=False)
    settings = loaded.settings.photos
    finder = installed_finder(settings, console, options.threads)
    if finder is None:
        raise UsageError("faces aren't found: install the extra faces, and leave photos.faces at auto")
    people = read_people(options.people, settings, finder, console, strict=False, for_training=True)
    photos = list_photos(options.strangers).files
    spectators = load_files(photos[::2], settings, finder=finder)
    strangers = [
        Portrait(path, faces[0]) for path, faces in zip(spectators.paths, spectators.faces, strict=True) if faces
    ]
    kept = np.flatnonzero(number_in_class(people) % KEPT == options.fold)[: None if options.train else 0]
    link([(people.files[number], work / "kept" / people.paths[number]) for number in kept.tolist()])

    to_sort = paste_kept(people, kept, strangers, options.sorted or 0, work / "sorted", options.seed)

    def trained_right(folder: Path) -> list[str]:
        result = train(loaded, TrainOptions(photos=folder, out=work / "runs", threads=options.threads), console)
        run = Path(result["run"])
        figures = evaluate(EvaluateOptions(run, work / "kept"), console).figures
        known, closed_set = figures["known"], figures["closed_set_accuracy"]
        found = [f"{known['named_right']} of {known['photos']}", f"{100 * closed_set:.1f} %"]
        if not to_sort:
            return [*found, "-", "-"]
        return [*found, *judge_sorted(evaluate(EvaluateOptions(run, work / "sorted"), console).predictions, to_sort)]

    rows = []
    for share in (0.0, *options.shares) if options.train else options.shares:
        folder = work / f"{share:g}"
        truth = paste_groups(people, kept, share, strangers, folder, options.seed)
        link([(path, folder / UNKNOWN / path.name) for path in photos[1::2]])
        (work / f"{share:g}.json").write_text(json.dumps(truth, indent=1))
        data = read_photos(loaded, TrainOptions(photos=folder, threads=options.threads), console)
        groups, main, chosen, left_out = judge(data, truth)
        named = trained_right(folder) if options.train else ["-"] * 4
        rows.append([f"{100 * share:g} %", groups, per_cent(main, groups), per_cent(chosen, groups), left_out, *named])
    titles = ["groups", "trained on", "main right", "chosen right", "left out", "named right", "closed set"]
    print(table(rows, [*titles, "in their folder", "spectators named"]))


def number_in_class(people: Dataset) -> np.ndarray:
    """(photos,): how many photos of the same person come before each."""
    first = np.searchsorted(people.labels, people.labels)
    return np.arange(len(people.labels)) - first


def link(places: Sequence[tuple[str | Path, Path]]) -> None:
    """Put files at other places."""
    for source, place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)


def paste_groups(
    people: Dataset, kept: np.ndarray, share: float, strangers: Sequence[Portrait], folder: Path, seed: int
) -> dict[str, Box]:
    """A folder for ``facecnn train`` of the photos that aren't ``kept``, a share of each person's made group pictures.

    Returns:
        By PERSON/FILE the box of the person's face in each group picture.
    """
    random = np.random.default_rng(seed)
    truth = {}
    for label in range(len(people.people)):
        own = np.setdiff1d(np.flatnonzero(people.labels == label), kept)
        grouped = random.permutation(own)[: round(share * len(own))].tolist()
        for number in own.tolist():
            place = folder / people.paths[number]
            link([(people.files[number], place)])
            if number in grouped:
                person = Portrait(Path(people.files[number]), people.faces[number][0])
                place.unlink()
                place = place.with_suffix(".png")
                truth[f"{place.parent.name}/{place.name}"] = group_picture(
                    person, strangers, grouped.index(number) % 2 == 0, random, place
                )
    return truth


def paste_kept(
    people: Dataset, kept: np.ndarray, strangers: Sequence[Portrait], count: int, folder: Path, seed: int
) -> dict[str, Box]:
    """A folder of group pictures of the photos ``kept``, one after the other, for each person one. Returns what
    ``paste_groups`` does."""
    random = np.random.default_rng([seed, 1])
    truth = {}
    for index, number in enumerate(np.resize(kept, count).tolist()):
        place = folder / people.classes[people.labels[number]] / f"{index:03}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        person = Portrait(Path(people.files[number]), people.faces[number][0])
        truth[f"{place.parent.name}/{place.name}"] = group_picture(person, strangers, index % 2 == 0, random, place)
    return truth


def group_picture(
    person: Portrait, strangers: Sequence[Portrait], in_the_middle: bool, random: np.random.Generator, path: Path
) -> Box:
    """Write a picture of a person beside one to five strangers. Returns the box of the person's face, the one nearest
    the middle or another one."""
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


def arrangement(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sides (count,) of faces, and the places (count, 2) of the squares around them, which don't overlap."""
    while True:
        sides = random.integers(SIZES[0], SIZES[1] + 1, count)
        squares = np.round(SURROUNDINGS * sides).astype(int)
        places = np.array([[random.integers(0, length - square + 1) for length in CANVAS] for square in squares])
        ends = places + squares[:, None]
        apart = (places[:, None] >= ends[None]) | (ends[:, None] <= places[None])
        if (apart.any(axis=2) | np.eye(count, dtype=bool)).all():
            return sides, places


def judge(data: TrainingPhotos, truth: dict[str, Box]) -> tuple[int, int, int, int]:
    """Of the group pictures to train on: how many, of how many the main face is the true one, of how many the face
    that is trained on, and how many are left out."""
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
    """In how many of the group pictures the person is named, and how many of the other faces in them are."""
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
    """Whether a face was found (its box) where one was pasted: the middle of each lies in the other's box."""
    return all(
        one[0] < (other[0] + other[2]) / 2 < one[2] and one[1] < (other[1] + other[3]) / 2 < one[3]
        for one, other in ((face, box), (box, face))
    )


def per_cent(count: int, of: int) -> str:
    return f"{100 * count / of:.1f} %" if of else "-"


if __name__ == "__main__":
    with errors_told():
        main()
