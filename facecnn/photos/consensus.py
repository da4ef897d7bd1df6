"""Finds the face of the person whose folder a photo lies in: the one that looks like the folder's other photos.

A ridge regression on the features of all faces (``hog``) learns what each folder's person looks like. Each face is
scored by what the *other* photos taught the regression. The best face of each photo is what the regression learns from
in the next round, until no choice changes. On pasted groups with known truth, 96.6 to 100 % of the choices are right
(docs/FACES.md).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from facecnn.arrays import BoolArray, Float64Array, Int64Array
from facecnn.photos.hog import Features

RIDGE = 15.0
"""Penalty on squared weights."""

CONSTANT = 98.0
"""Square of the constant feature, about a face's squared feature norm; the penalty on the intercept is thus small."""

ROUNDS = 8
"""Maximum number of rounds."""

LEAST_APART = 0.2
"""Minimum of the unit of fits: the distance between the median scores of a folder's faces and of others."""

DECIMALS = 6
"""Scores are rounded before they are compared, since their last bits differ between machines."""

_AT_ONCE = 1024


class LeavePhotoOut:
    """Ridge regression that predicts each photo's faces from all other photos, exactly.

    With Z the centred features and the constant, P = (Z Z' + RIDGE I)^-1, and B the faces of one photo, a regression on
    the targets Y of all other photos predicts for B

        Y_B - P_BB^-1 (P Y)_B

    (the block form of leave-one-out: Allen's PRESS). If there are more faces than features, P is applied as
    (I - Z (Z' Z + RIDGE I)^-1 Z') / RIDGE. BLAS runs on one thread, so that results don't depend on their number.
    """

    def __init__(self, features: Features, photo: Int64Array) -> None:
        """
        Args:
            features: (faces, features), see ``hog.describe``.
            photo: (faces,): which photo each is of, ascending from 0, without gaps.
        """
        self._mean = features.mean(axis=0, dtype=np.float64)
        self._features = features
        self._starts = np.searchsorted(photo, np.arange(photo[-1] + 2 if len(photo) else 1))
        faces, numbers = features.shape
        self._is_dual = faces <= numbers
        with threadpool_limits(limits=1):
            if self._is_dual:
                z = self._rows(slice(None))
                self._inverse = np.linalg.inv(z @ z.T + RIDGE * np.eye(faces))
            else:
                gram = RIDGE * np.eye(numbers + 1)
                for part in self._parts():
                    z = self._rows(part)
                    gram += z.T @ z
                self._inverse = np.linalg.inv(gram)
            self._blocks = self._inverses_of_blocks()

    def scores(self, targets: Float64Array) -> Float64Array:
        """Predict each face from the other photos, given the ``targets`` (faces, columns)."""
        with threadpool_limits(limits=1):
            residuals = self._apply(targets)
            answers = targets.copy()
            for faces, blocks in self._blocks:
                answers[faces] -= blocks @ residuals[faces]
        return answers

    def of_others(self, features: Features, targets: Float64Array) -> Float64Array:
        """Predict other faces (others, features) from all photos, given the ``targets`` (faces, columns)."""
        with threadpool_limits(limits=1):
            return np.asarray(self._centred(features) @ self._weights(targets))

    def _rows(self, part: slice | Int64Array) -> Float64Array:
        """Rows of Z."""
        return self._centred(self._features[part])

    def _centred(self, features: Features) -> Float64Array:
        """Subtract the mean and append the constant."""
        return np.concatenate([features - self._mean, np.full((len(features), 1), np.sqrt(CONSTANT))], axis=1)

    def _parts(self) -> Iterator[slice]:
        return (slice(start, start + _AT_ONCE) for start in range(0, len(self._features), _AT_ONCE))

    def _apply(self, targets: Float64Array) -> Float64Array:
        """P Y"""
        if self._is_dual:
            return np.asarray(self._inverse @ targets)
        weights = self._weights(targets)
        answers = np.concatenate([self._rows(part) @ weights for part in self._parts()])
        return np.asarray((targets - answers) / RIDGE)

    def _weights(self, targets: Float64Array) -> Float64Array:
        """(Z' Z + RIDGE I)^-1 Z' Y, which is Z' P Y."""
        if self._is_dual:
            return np.asarray(self._rows(slice(None)).T @ (self._inverse @ targets))
        products = np.zeros((len(self._inverse), targets.shape[1]))
        for part in self._parts():
            products += self._rows(part).T @ targets[part]
        return np.asarray(self._inverse @ products)

    def _inverses_of_blocks(self) -> list[tuple[Int64Array, Float64Array]]:
        """P_BB^-1 of each photo, grouped by the number of faces: indices (photos, k), inverses (photos, k, k)."""
        counts = np.diff(self._starts)
        blocks = []
        for count in np.unique(counts).tolist():
            photos = np.flatnonzero(counts == count)
            for start in range(0, len(photos), max(1, _AT_ONCE // count)):
                faces = self._starts[photos[start : start + max(1, _AT_ONCE // count)], None] + np.arange(count)
                if self._is_dual:
                    own = self._inverse[faces[:, :, None], faces[:, None, :]]
                else:
                    z = self._rows(faces.reshape(-1)).reshape(*faces.shape, -1)
                    own = (np.eye(count) - z @ self._inverse @ z.transpose(0, 2, 1)) / RIDGE
                blocks.append((faces, np.linalg.inv(own)))
        return blocks


def folder_scores(features: Features, photo: Int64Array, labels: Int64Array, chosen: BoolArray) -> Float64Array:
    """Score how much each face looks like each folder's person, by the photos other than its own.

    Args:
        features: (faces, features), see ``hog.describe``.
        photo: (faces,): which photo each is of, ascending from 0, without gaps.
        labels: (photos,): the folder of each, from 0 up.
        chosen: (faces,): whether it is the face of its folder's person; the other faces belong to nobody.

    Returns:
        (faces, folders): about 1 for a face that looks like that folder's person, about -1 for any other.
    """
    targets = np.full((len(features), int(labels.max()) + 1), -1.0)
    targets[chosen, labels[photo[chosen]]] = 1.0
    return LeavePhotoOut(features, photo).scores(targets)


def likeness(features: Features, labels: Int64Array, others: Features) -> Float64Array:
    """Score how well each of the faces ``others`` (others, features) fits the folder that it fits best.

    The regression isn't trained on them: otherwise a person of one folder beside that of another would count as nobody.

    Args:
        features: (faces, features), of people and of strangers, one face of each photo.
        labels: (faces,): the folder of each, from 0; -1 for strangers, without whom there is no scale.

    Returns:
        (others,): 1 for a face like the median of a folder's faces, 0 for one like the median of the strangers.
    """
    targets = np.full((len(features), int(labels.max()) + 1), -1.0)
    targets[labels >= 0, labels[labels >= 0]] = 1.0
    regression = LeavePhotoOut(features, np.arange(len(features)))
    scores = regression.scores(targets)
    low = np.median(scores[labels < 0], axis=0)
    high = np.array([np.median(scores[labels == label, label]) for label in range(targets.shape[1])])
    fits = (regression.of_others(others, targets) - low) / np.maximum(high - low, LEAST_APART)
    return np.asarray(np.round(fits.max(axis=1), DECIMALS))


@dataclass(frozen=True)
class Choice:
    """The chosen face of each photo."""

    face: Int64Array
    """(photos,): index into the faces."""
    fit: Float64Array
    """(photos,): how well it fits its folder, judged by the other photos: 1 like the median of the folder's chosen
    faces, 0 like the median of the faces that weren't chosen."""
    companion: Float64Array
    """(photos,): the same for the best of the remaining faces, chosen as if these were a folder of their own; 0 if
    there is none, or if the folder has a photo with a single face."""


def choose(features: Features, photo: Int64Array, labels: Int64Array, prior: Float64Array) -> Choice:
    """In each photo, choose the face of the person whose folder the photo lies in.

    Args:
        features: (faces, features), see ``hog.describe``.
        photo: (faces,): which photo each is of, ascending from 0, without gaps; a photo's main face comes first.
        labels: (photos,): the folder of each, from 0 up, without gaps.
        prior: (faces,): added to a face's score, for its size and position.
    """
    regression = LeavePhotoOut(features, photo)
    faces = np.arange(len(photo))
    face = _rounds(regression, photo, labels, prior, faces)
    chosen = np.isin(faces, face)
    fit, apart = _fits(regression, photo, labels, face, ~chosen)
    alone = np.bincount(photo)[np.arange(len(labels))] == 1
    others = faces[~np.isin(labels, labels[alone])[photo] & ~chosen]
    companion = np.zeros(len(labels))
    if len(others):
        beside = _rounds(regression, photo, labels, prior, others)
        companion, _ = _fits(regression, photo, labels, beside, ~chosen & ~np.isin(faces, beside), apart)
    return Choice(face, fit, companion)


def _fits(
    regression: LeavePhotoOut,
    photo: Int64Array,
    labels: Int64Array,
    face: Int64Array,
    nobody: BoolArray,
    apart: Float64Array | None = None,
) -> tuple[Float64Array, Float64Array]:
    """Score how well the face chosen in each photo fits.

    Args:
        regression: has the features.
        photo: (faces,) index of each face's photo.
        labels: (photos,) folder of each.
        face: (photos,) index of the chosen face, -1 for none.
        nobody: (faces,) whether a face belongs to nobody.
        apart: (folders,) the unit; by default the distance between the medians of chosen faces and of nobody's.

    Returns:
        (photos,) scores above the median of nobody's faces in that unit, 0 where none is chosen; and (folders,) units.
    """
    there = face >= 0
    targets = np.full((len(photo), int(labels.max()) + 1), -1.0)
    targets[face[there], labels[there]] = 1.0
    scores = regression.scores(targets)
    fits, found = np.zeros(len(labels)), np.full(targets.shape[1], LEAST_APART)
    for label in np.unique(labels[there]).tolist():
        own = there & (labels == label)
        elsewhere = nobody if nobody.any() else labels[photo] != label
        low = np.median(scores[elsewhere, label]) if elsewhere.any() else -1.0
        if apart is None:
            found[label] = max(np.median(scores[face[own], label]) - low, LEAST_APART)
        unit = found[label] if apart is None else apart[label]
        fits[own] = np.round((scores[face[own], label] - low) / unit, DECIMALS)
    return fits, found


def _rounds(
    regression: LeavePhotoOut, photo: Int64Array, labels: Int64Array, prior: Float64Array, among: Int64Array
) -> Int64Array:
    """The best of the faces ``among`` for each photo, -1 for one without any of them."""
    own = labels[photo]
    first = np.full(len(labels), -1)
    first[photo[among][::-1]] = among[::-1]
    share = np.zeros(len(photo))
    share[among] = 1 / np.bincount(photo[among], minlength=len(labels))[photo[among]]
    for _ in range(ROUNDS):
        targets = np.full((len(photo), int(labels.max()) + 1), -1.0)
        targets[np.arange(len(photo)), own] = 2 * share - 1
        scores = regression.scores(targets)[np.arange(len(photo)), own]
        # By photo, then by score; of equals the main face is first.
        order = among[np.lexsort((among, -np.round(scores[among] + prior[among], DECIMALS), photo[among]))]
        best = first.copy()
        best[photo[order][::-1]] = order[::-1]
        before, share = share, np.zeros(len(photo))
        share[best[best >= 0]] = 1
        if np.array_equal(before, share):
            break
    return best
