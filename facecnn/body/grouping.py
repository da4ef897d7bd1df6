"""Group faces by person, without knowing anybody: merge the groups whose means are most alike, again and again.

The score of two groups of a and b faces is

    cos(mean a, mean b) + w · (1/a + 1/b - 2)

and the pair with the highest one is merged as long as it reaches a threshold. The second term is 0 for two single faces
and negative for groups: a mean of many faces is less noisy, so the means of two groups of one person are closer.

Only pairs of faces that reach the threshold are looked at, and then, in further rounds, pairs of groups, until no two
groups reach it. Memory is linear in the faces.
"""

import heapq
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from facecnn.arrays import Array, Float32Array, Int64Array
from facecnn.body.close_pairs import close_pairs

THRESHOLD = 0.9375
"""The lowest score at which groups are merged, in albums of up to ``FACES`` faces."""

FACES = 1000
PER_DECADE = 0.012
"""How much ``THRESHOLD`` grows whenever the faces become ten times as many. Among more people, the one who looks most
like somebody looks more like them."""

SIZE_WEIGHT = 0.015
"""In albums of up to ``FACES`` faces."""

ALONE = -1
"""The group of a face that is like no other."""


def threshold_for(faces: int) -> float:
    """The threshold for an album of ``faces`` faces; above some thousand it is extrapolated."""
    return THRESHOLD + PER_DECADE * max(0.0, math.log10(max(faces, 1) / FACES))


def size_weight_for(faces: int) -> float:
    """The weight of the groups' sizes: what is asked of two large groups doesn't grow with the album.

    The means of large groups have little noise by which strangers could come close. If the threshold were raised for
    them, too, people of whom there are many photos would fall apart.
    """
    return max(0.0, SIZE_WEIGHT - (threshold_for(faces) - THRESHOLD) / 2)


def group_faces(
    embeddings: Float32Array,
    photos: Int64Array | None = None,
    threshold: float | None = None,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Int64Array:
    """Number the people among faces.

    Args:
        embeddings: (faces, dimensions), of any length but 0.
        photos: (faces,) the number of each face's photo. Of several faces of a photo in one group, only the one nearest
            to the group's mean stays: the others are of somebody else, or a reflection.
        threshold: the lowest score at which groups are merged (default: ``threshold_for`` the number of faces).
        threads: that compare faces (default: one for each processor); the result doesn't depend on it.
        progress: called with the number of faces compared and of all.

    Returns:
        (faces,) 0 for those of the largest group, 1 for those of the next; of equal ones, the one with the earlier face
        comes first. ``ALONE`` for a face that is alone.
    """
    count = len(embeddings)
    if count < 2:
        return np.full(count, ALONE, np.int64)
    least = threshold_for(count) if threshold is None else threshold
    groups = _Groups(embeddings, size_weight_for(count))
    again = groups.alive()
    while len(again):
        alive = groups.alive()
        units, offsets = groups.units[alive], groups.offsets[alive]
        rows = np.searchsorted(alive, again)
        pairs = close_pairs(units, offsets, rows, least, threads=threads, progress=progress)
        changed = groups.merge(alive[pairs.first], alive[pairs.second], least)
        # A pair of groups that haven't changed has been looked at, unless it was left out.
        again = np.union1d(changed, groups.root[alive[pairs.crowded]]) if len(changed) else changed
        progress = None  # later rounds are shorter
    group = groups.root
    if photos is not None:
        nearness = np.einsum("ij,ij->i", _of_length_one(embeddings), groups.units[group])
        group = _once_a_photo(group, photos, nearness)
    return _numbered(group)


def _once_a_photo(group: Int64Array, photos: Int64Array, nearness: Float32Array) -> Int64Array:
    """The groups, with all faces of a photo taken out of a group but the one nearest to its mean."""
    order = np.lexsort((-nearness, photos, group))
    again = (np.diff(group[order]) == 0) & (np.diff(photos[order]) == 0)
    taken_out = order[1:][again]
    left = group.copy()
    left[taken_out] = len(group) + taken_out  # a group of its own
    return left


def _numbered(group: Int64Array) -> Int64Array:
    """Number groups by size."""
    _, first, group, size = np.unique(group, return_index=True, return_inverse=True, return_counts=True)
    number = np.empty(len(size), np.int64)
    number[np.lexsort((first, -size))] = np.arange(len(size))
    number[size == 1] = ALONE
    return number[group]


class _Groups:
    """Groups of faces, each known by the number of one of its faces."""

    def __init__(self, embeddings: Float32Array, size_weight: float) -> None:
        count = len(embeddings)
        self._size_weight = size_weight
        self.root = np.arange(count)
        """(faces,) the group of each face."""
        self.units = _of_length_one(embeddings).astype(np.float32)
        """(faces, dimensions) the direction of each group's mean, at its number."""
        self.offsets = np.zeros(count, np.float32)
        """(faces,) the term for each group's size, at its number."""
        self._sums = embeddings.astype(np.float64)
        self._members: list[list[int]] = [[face] for face in range(count)]
        self._changes = [0] * count
        self._near: dict[int, Int64Array] = {}
        _, first, copy_of = np.unique(embeddings, axis=0, return_index=True, return_inverse=True)
        for face in np.flatnonzero(first[copy_of] != self.root).tolist():
            self._join(int(self.root[first[copy_of[face]]]), face)  # equal ones, which would take long one by one

    def alive(self) -> Int64Array:
        """The numbers of all groups, ascending."""
        return np.flatnonzero(self.root == np.arange(len(self.root)))

    def merge(self, first: Int64Array, second: Int64Array, least: float) -> Int64Array:
        """Merge the pair of groups with the highest score as long as it is at least ``least``.

        Groups are compared if any of their faces, or of the groups that they were made of, are a pair.

        The heap holds the best partner of each group, as it was when that group last changed. The best pair of all is
        always among them, since the one of the two groups that changed last has compared itself with the other. An
        entry whose partner has changed is replaced when it comes up.

        Args:
            first: (pairs,) groups, ascending.
            second: (pairs,) groups that each is compared with.

        Returns:
            The groups that others were merged into, ascending.
        """
        groups, starts = np.unique(first, return_index=True)
        near = np.split(second, starts[1:])
        self._near = dict(zip(groups.tolist(), near, strict=False))  # without pairs, there is one empty part
        heap = list(self._entries(list(self._near), least))
        heapq.heapify(heap)
        changed: set[int] = set()
        while heap:
            _, group, partner, *changes = heapq.heappop(heap)
            if self.root[group] != group or self._changes[group] != changes[0]:
                continue
            if self.root[partner] == partner and self._changes[partner] == changes[1]:
                group = self._join(group, partner)
                changed.add(group)
            for entry in self._entries([group], least):
                heapq.heappush(heap, entry)
        return np.array(sorted(int(group) for group in changed if self.root[group] == group), np.int64)

    def _entries(self, groups: Sequence[int], least: float) -> Iterator[tuple[float, int, int, int, int]]:
        """For each group that has one, its best partner: negated score, both numbers, and how often each changed."""
        for group in groups:
            near = np.unique(self.root[self._near[group]])
            self._near[group] = near = near[near != group]
            if not len(near):
                continue
            scores = self.units[near] @ self.units[group] + self.offsets[near] + self.offsets[group]
            best = int(scores.argmax())
            if scores[best] >= least:
                partner = int(near[best])
                yield -float(scores[best]), group, partner, self._changes[group], self._changes[partner]

    def _join(self, one: int, other: int) -> int:
        """Merge two groups. Returns the number of both, which is that of the larger."""
        if len(self._members[one]) < len(self._members[other]):
            one, other = other, one
        self.root[self._members[other]] = one
        self._members[one] += self._members[other]
        self._members[other] = []
        self._sums[one] += self._sums[other]
        self.units[one] = _of_length_one(self._sums[one])
        self.offsets[one] = self._size_weight * (1 / len(self._members[one]) - 1)
        nothing = np.zeros(0, np.int64)
        self._near[one] = np.concatenate([self._near.get(one, nothing), self._near.pop(other, nothing)])
        self._changes[one] += 1
        return one


def _of_length_one(vectors: Array) -> Array:
    """(..., dimensions) divided by their lengths."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
