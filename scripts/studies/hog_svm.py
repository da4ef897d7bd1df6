"""How good are hand-made features? Histograms of oriented gradients and a support vector machine, on facecnn's crops
and in facecnn's folds, to compare with ``facecnn cross-validate``.

Faces are found and cropped as the config says (``photos.faces``, ``size``, ...). The features are those of Dalal and
Triggs (2005): 9 directions in cells of ``--cell`` pixels, blocks of 2x2 cells, L2-Hys. In each fold, kernel and C are
chosen by three-fold cross-validation of the training photos. A second row also uses mirror images: in training and, by
the mean of both decisions, in answers, as facecnn does.

Needs scikit-image and scikit-learn, which facecnn doesn't: ``pip install scikit-image scikit-learn``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import add_config, at_least, exit_on_error, parser
from common.tables import table
from facecnn.arrays import Array
from facecnn.config import apply_overrides, load
from facecnn.errors import UsageError
from facecnn.photos.folder import UNKNOWN
from studies.album import read_album

try:
    from skimage.feature import hog
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
    from sklearn.svm import SVC
except ImportError as error:
    print(f"error: {error.name} isn't installed: pip install scikit-image scikit-learn", file=sys.stderr)
    sys.exit(UsageError.exit_code)

CHOICES = {"kernel": ["linear", "rbf"], "C": [0.1, 1, 10, 100]}
COLUMNS = ("cell", "mirrored", "features", "accuracy", "folds", "chosen")


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("photos", type=Path, help="a folder with one folder of photos per person")
    add_config(arguments)
    arguments.add_argument("--folds", type=at_least(2), default=5, help="(default: 5)")
    arguments.add_argument(
        "--cell", type=at_least(2), nargs="+", default=[6, 8], metavar="PIXELS", help="(default: 6 8)"
    )
    options = arguments.parse_args()
    photos = apply_overrides(load(options.config), options.set).settings.photos
    too_large = [cell for cell in options.cell if 2 * cell > min(photos.height, photos.width)]
    if too_large:
        raise UsageError(f"--cell {too_large[0]}: a crop of {photos.height}x{photos.width} has no 2x2 of such cells")
    album, _ = read_album(options.photos, photos)
    rows, columns = photos.margin
    stored = album.pixels[album.rows]
    crops = stored[:, rows : stored.shape[1] - rows, columns : stored.shape[2] - columns]
    known = np.flatnonzero([album.classes[label] != UNKNOWN for label in album.labels])
    folds = [np.intersect1d(fold, known) for fold in album.folds(options.folds)]
    lines: list[list[object]] = []
    for cell in options.cell:
        features = [describe(pictures, cell) for pictures in (crops, crops[:, :, ::-1])]
        for views in (features[:1], features):
            found = [judge(views, album.labels, np.setdiff1d(known, fold), fold) for fold in folds]
            accuracies = [100 * accuracy for accuracy, _ in found]
            lines.append(
                [
                    cell,
                    "yes" if len(views) > 1 else "no",
                    features[0].shape[1],
                    f"{np.mean(accuracies):.1f} % ± {np.std(accuracies):.1f} %",
                    " ".join(f"{accuracy:.1f}" for accuracy in accuracies),
                    ", ".join(sorted({chosen for _, chosen in found})),
                ]
            )
    print(f"{len(known)} photos of {len(album.people)} people, crops of {photos.height}x{photos.width}\n")
    print(table(lines, COLUMNS))


def describe(crops: Array, cell: int) -> Array:
    """Compute the features (n, features) of crops (n, H, W, C) uint8."""
    settings = {"orientations": 9, "pixels_per_cell": (cell, cell), "cells_per_block": (2, 2), "channel_axis": 2}
    return np.array([hog(crop, **settings) for crop in crops])


def judge(views: Sequence[Array], labels: Array, trained: Array, fold: Array) -> tuple[float, str]:
    """Train on some photos, and answer for those of a fold.

    Args:
        views: (photos, features) each: of the photos and, if used, of their mirror images.
        labels: (photos,)
        trained: Numbers of the training photos.
        fold: Numbers of the test photos.

    Returns:
        Accuracy, and the chosen kernel and C.
    """
    x, y = np.concatenate([view[trained] for view in views]), np.tile(labels[trained], len(views))
    # A photo and its mirror image stay on the same side, or else training photos would make the choice.
    inner = StratifiedGroupKFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(SVC(decision_function_shape="ovr"), CHOICES, cv=inner)
    search.fit(x, y, groups=np.tile(trained, len(views)))
    decisions = np.mean([search.decision_function(view[fold]) for view in views], axis=0)
    answers = (decisions > 0).astype(int) if decisions.ndim == 1 else decisions.argmax(axis=1)
    best = search.best_params_
    return float((answers == labels[fold]).mean()), f"{best['kernel']} C={best['C']}"


if __name__ == "__main__":
    main()
