"""Does ``facecnn data check --faces`` find photos in the wrong folder?

With each seed a random share of an album's photos, k of them, is moved to the folder of another person, each equally
likely. Then the album is checked, and the moved photos among the first k and the first 2k of the list are counted; also
with the ridge regression alone (``--quick``), the network alone, and the sum of their ranks alone (the list also puts
blurred and small faces before the others).

"unlike": photos that are more like another folder, by the ridge or by the network; "of them right": those of them that
are in the right folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import add_config, at_least, exit_on_error, parser, say
from common.tables import percent, table
from facecnn.config import apply_overrides, load
from facecnn.errors import UsageError, shown
from facecnn.jobs.label_check import score_photos
from facecnn.jobs.label_doubts import UnseenAnswers, rank_by_doubt
from facecnn.kernels import open_device
from facecnn.learning import scores
from facecnn.photos.dataset import Dataset
from facecnn.photos.folder import UNKNOWN
from studies.album import CONSOLE, read_album

COLUMNS = ("seed", "photos", "flipped", "ridge", "network", "ranks added", "the list", "unlike", "of them right")


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("people", type=Path, help="a folder with one folder of photos per person")
    add_config(arguments)
    arguments.add_argument("--share", type=float, default=0.1, help="of photos to move (default: 0.1)")
    arguments.add_argument("--seeds", type=at_least(0), nargs="+", default=[0, 1, 2, 3, 4], help="(default: 0 1 2 3 4)")
    arguments.add_argument("--threads", type=at_least(1), help="(default: all)")
    options = arguments.parse_args()
    loaded = apply_overrides(load(options.config), options.set)
    album, _ = read_album(options.people, loaded.settings.photos, options.threads)
    if UNKNOWN in album.classes:
        raise UsageError(f"{shown(options.people)}: take an album without {UNKNOWN}/, where anybody may be")
    device = open_device("cpu", options.threads)
    rows, found, flipped = [], np.zeros((4, 2), int), 0
    for seed in options.seeds:
        mixed, wrong = flip(album, options.share, seed)
        say(f"seed {seed}: training")
        answers = score_photos(loaded, mixed, device, CONSOLE)
        counts = count(mixed, answers, wrong)
        unlike = unlike_folder(mixed, answers)
        found, flipped = found + counts, flipped + len(wrong)
        cells = [f"{first}, {second}" for first, second in counts.tolist()]
        rows.append([seed, len(album.paths), len(wrong), *cells, len(unlike), len(unlike - wrong)])
    print(table(rows, COLUMNS))
    shares = [f"{percent(first / flipped)}, {percent(second / flipped)}" for first, second in found.tolist()]
    print(f"\nOf {flipped} flipped, among the first k and the first 2k:\n")
    print(table([shares], COLUMNS[3:7]))


def flip(album: Dataset, share: float, seed: int) -> tuple[Dataset, set[int]]:
    """Move a share of the photos to other folders. Returns the album, and the numbers of these photos."""
    random = np.random.default_rng(seed)
    chosen = random.choice(len(album.labels), round(share * len(album.labels)), replace=False)
    labels = album.labels.copy()
    labels[chosen] += random.integers(1, len(album.people), len(chosen))
    return replace(album, labels=labels % len(album.people)), set(chosen.tolist())


def count(album: Dataset, answers: UnseenAnswers, wrong: set[int]) -> np.ndarray:
    """Count wrong ones among the first k and the first 2k, (4, 2): by ridge, by network, by both, and as listed."""
    ranks = [scores.ranks(each) for each in answers.margins(album.labels)]
    orders: list[Sequence[int]] = [np.argsort(each, kind="stable").tolist() for each in (*ranks, ranks[0] + ranks[1])]
    orders.append([inspected.photo for inspected in rank_by_doubt(album, answers)])
    k = len(wrong)
    return np.array([[len(wrong & set(order[:most])) for most in (k, 2 * k)] for order in orders])


def unlike_folder(album: Dataset, answers: UnseenAnswers) -> set[int]:
    """The photos that are more like another folder than their own, by the ridge or by the network."""
    return set(np.flatnonzero((answers.margins(album.labels) < 0).any(axis=0)).tolist())


if __name__ == "__main__":
    main()
