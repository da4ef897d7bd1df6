"""Does ``facecnn data check --faces`` find photos that lie in the wrong folder?

For each seed a share of an album's photos, chosen at random, are put into the folder of another person, each equally
likely: k photos. Then the album is looked through, and it is counted how many of the k are among the first k and the
first 2k of the list; beside that by the ridge alone (``--quick``), by the network alone, and by their added ranks
without what else the list heeds (a blurred or small face comes before the rest).

"unlike": photos that are more like another folder, to the ridge or to the network; "of them right": those of them that
lie where they belong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import errors_told
from common.experiment import at_least, table
from facecnn.cli.console import StderrConsole
from facecnn.config import apply_overrides, load
from facecnn.errors import UsageError, shown
from facecnn.jobs.faces import installed_finder
from facecnn.jobs.label_check import ask
from facecnn.jobs.label_doubts import Answers, in_order_of_doubt
from facecnn.jobs.people import read_people
from facecnn.kernels import open_device
from facecnn.learning import scores
from facecnn.photos.dataset import Dataset
from facecnn.photos.folder import UNKNOWN

COLUMNS = ("seed", "photos", "flipped", "ridge", "network", "ranks added", "the list", "unlike", "of them right")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("people", type=Path, help="a folder with one folder of photos per person")
    arguments.add_argument("-c", "--config", default="default", help="(default: default)")
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments.add_argument("--share", type=float, default=0.1, help="of the photos that are flipped (default: 0.1)")
    arguments.add_argument("--seeds", type=at_least(0), nargs="+", default=[0, 1, 2, 3, 4], help="(default: 0 1 2 3 4)")
    arguments.add_argument("--threads", type=at_least(1), help="(default: all)")
    options = arguments.parse_args()
    loaded = apply_overrides(load(options.config), options.set)
    console = StderrConsole(quiet=True, verbose=False)
    settings = loaded.settings.photos
    finder = installed_finder(settings, console, options.threads)
    album = read_people(options.people, settings, finder, console, strict=False, for_training=True)
    if UNKNOWN in album.classes:
        raise UsageError(f"{shown(options.people)}: take an album without {UNKNOWN}/, where everybody may lie")
    device = open_device("cpu", options.threads)
    rows, found, flipped = [], np.zeros((4, 2), int), 0
    for seed in options.seeds:
        mixed, wrong = flip(album, options.share, seed)
        print(f"seed {seed}: training", file=sys.stderr)
        answers = ask(loaded, mixed, device, console)
        counts = count(mixed, answers, wrong)
        unlike = unlike_folder(mixed, answers)
        found, flipped = found + counts, flipped + len(wrong)
        cells = [f"{first}, {second}" for first, second in counts.tolist()]
        rows.append([seed, len(album.paths), len(wrong), *cells, len(unlike), len(unlike - wrong)])
    print(table(rows, COLUMNS))
    shares = [f"{100 * first / flipped:.1f} %, {100 * second / flipped:.1f} %" for first, second in found.tolist()]
    print(f"\nOf {flipped} flipped, among the first k and the first 2k:\n")
    print(table([shares], COLUMNS[3:7]))


def flip(album: Dataset, share: float, seed: int) -> tuple[Dataset, set[int]]:
    """The album with a share of its photos in folders of others, and their numbers."""
    random = np.random.default_rng(seed)
    chosen = random.choice(len(album.labels), round(share * len(album.labels)), replace=False)
    labels = album.labels.copy()
    labels[chosen] += random.integers(1, len(album.people), len(chosen))
    return replace(album, labels=labels % len(album.people)), set(chosen.tolist())


def count(album: Dataset, answers: Answers, wrong: set[int]) -> np.ndarray:
    """(4, 2): by ridge, network, both, and as listed, how many of the wrong are among the first k, and the first 2k."""
    ranks = [scores.ranks(each) for each in answers.margins(album.labels)]
    orders: list[Sequence[int]] = [np.argsort(each, kind="stable").tolist() for each in (*ranks, ranks[0] + ranks[1])]
    orders.append([looked.photo for looked in in_order_of_doubt(album, answers)])
    k = len(wrong)
    return np.array([[len(wrong & set(order[:most])) for most in (k, 2 * k)] for order in orders])


def unlike_folder(album: Dataset, answers: Answers) -> set[int]:
    """The photos that are more like another folder than their own, to the ridge or to the network."""
    return set(np.flatnonzero((answers.margins(album.labels) < 0).any(axis=0)).tolist())


if __name__ == "__main__":
    with errors_told():
        main()
