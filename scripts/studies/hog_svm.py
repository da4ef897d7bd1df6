"""Histograms of oriented gradients and a support vector machine on facecnn's crops, in facecnn's folds: what hand-made
features reach, to hold ``facecnn cross-validate`` against.

Faces are found and cropped as the config says (``photos.faces``, ``size``, ...). The features are those of Dalal and
Triggs (2005): 9 directions in cells of ``--cell`` pixels, blocks of 2x2 cells, L2-Hys. In each fold kernel and C are
chosen by three-fold cross-validation of the photos that it trains on. A second row has every photo mirrored too, in
training and, by the mean of both decisions, in its answer, as facecnn does.

Needs scikit-image and scikit-learn, which facecnn doesn't: ``pip install scikit-image scikit-learn``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import errors_told
from common.experiment import at_least, table
from facecnn.cli.console import StderrConsole
from facecnn.config import apply_overrides, load
from facecnn.errors import UsageError
from facecnn.jobs.faces import installed_finder
from facecnn.jobs.people import read_people
from facecnn.photos.folder import UNKNOWN

try:
    from skimage.feature import hog
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
    from sklearn.svm import SVC
except ImportError as error:
    print(f"error: {error.name} isn't installed: pip install scikit-image scikit-learn", file=sys.stderr)
    sys.exit(UsageError.exit_code)

CHOICES = {"kernel": ["linear", "rbf"], "C": [0.1, 1, 10, 100]}
COLUMNS = ("cell", "mirrored", "features", "accuracy", "folds", "chosen")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("photos", type=Path, help="a folder with one folder of photos per person")
    arguments.add_argument("-c", "--config", default="default", help="of which `photos` counts (default: default)")
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments.add_argument("--folds", type=at_least(2), default=5, help="(default: 5)")
    arguments.add_argument(
        "--cell", type=at_least(2), nargs="+", default=[6, 8], metavar="PIXELS", help="(default: 6 8)"
    )
    options = arguments.parse_args()
    photos = apply_overrides(load(options.config), options.set).settings.photos
    too_large = [cell for cell in options.cell if 2 * cell > min(photos.height, photos.width)]
    if too_large:
        raise UsageError(f"--cell {too_large[0]}: a crop of {photos.height}x{photos.width} has no 2x2 of such cells")

    console = StderrConsole(quiet=True, verbose=False)
    finder = installed_finder(photos, console)
    dataset = read_people(options.photos, photos, finder, console, strict=False, for_training=True)
    rows, columns = photos.margin
    stored = dataset.pixels[dataset.rows]
    crops = stored[:, rows : stored.shape[1] - rows, columns : stored.shape[2] - columns]
    known = np.array([dataset.classes[label] != UNKNOWN for label in dataset.labels])
    folds = [fold[known[fold]] for fold in dataset.folds(options.folds)]
    found = []
    for cell in options.cell:
        features, mirrored = (describe(pictures, cell) for pictures in (crops, crops[:, :, ::-1]))
        for mirrors in (False, True):
            accuracies, chosen = zip(
                *(
                    judge(features, mirrored if mirrors else None, dataset.labels, fold, known, len(dataset.people))
                    for fold in folds
                ),
                strict=True,
            )
            found.append(
                [
                    cell,
                    "yes" if mirrors else "no",
                    features.shape[1],
                    f"{100 * np.mean(accuracies):.1f} % ± {100 * np.std(accuracies):.1f} %",
                    " ".join(f"{100 * accuracy:.1f}" for accuracy in accuracies),
                    ", ".join(sorted(set(chosen))),
                ]
            )
    print(f"{known.sum()} photos of {len(dataset.people)} people, crops of {photos.height}x{photos.width}")
    print()
    print(table(found, COLUMNS))


def describe(crops: np.ndarray, cell: int) -> np.ndarray:
    """(n, features) of uint8 (n, H, W, C)."""
    return np.array(
        [
            hog(crop, orientations=9, pixels_per_cell=(cell, cell), cells_per_block=(2, 2), channel_axis=2)
            for crop in crops
        ]
    )


def judge(
    features: np.ndarray,
    mirrored: np.ndarray | None,
    labels: np.ndarray,
    fold: np.ndarray,
    known: np.ndarray,
    people: int,
) -> tuple[float, str]:
    """Accuracy on the photos of a fold after training on all others, and the kernel and C chosen for that."""
    trained = np.setdiff1d(np.flatnonzero(known), fold)
    x, y, photo = features[trained], labels[trained], trained
    if mirrored is not None:
        x, y, photo = np.concatenate([x, mirrored[trained]]), np.tile(y, 2), np.tile(photo, 2)
    # A photo and its mirror image stay on one side, else the choice would be made by photos that were trained on.
    inner = StratifiedGroupKFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(SVC(decision_function_shape="ovr"), CHOICES, cv=inner).fit(x, y, groups=photo)
    views = [features[fold]] if mirrored is None else [features[fold], mirrored[fold]]
    decisions = np.mean([search.decision_function(view) for view in views], axis=0)
    answers = (decisions > 0).astype(int) if people == 2 else decisions.argmax(axis=1)
    best = search.best_params_
    return float((answers == labels[fold]).mean()), f"{best['kernel']} C={best['C']}"


if __name__ == "__main__":
    with errors_told():
        main()
