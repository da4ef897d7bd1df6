"""Groups related things, directly or through others, without comparing all pairs."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from facecnn.arrays import BoolArray, Int64Array

Indices = Int64Array

Related = Callable[[Indices, Indices], BoolArray]
"""Whether the things with indices (n,) and (m,) are related, (n, m); symmetric."""

CELLS = 1 << 21
"""Comparisons made at a time, to bound the memory."""


def repeated(values: npt.NDArray[np.integer]) -> list[Indices]:
    """For each value that occurs more than once, in order, the indices where it does."""
    order = np.argsort(values, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(values[order])) + 1)
    return [part for part in parts if len(part) > 1]


class Groups:
    """A partition of ``count`` things, each alone at first (union-find)."""

    def __init__(self, count: int) -> None:
        self._parent: Indices = np.arange(count, dtype=np.int64)

    def roots(self, things: Indices) -> Indices:
        """The representative of each thing's group, (n,)."""
        root = self._parent[things]
        while True:
            above = self._parent[root]
            if np.array_equal(above, root):
                break
            root = above
        self._parent[things] = root
        return root

    def join_related(self, members: Indices, related: Related) -> None:
        """Join the groups of all members (n,) that are related; the result doesn't depend on their order.

        Members of the same group aren't compared any more, so n near-copies of one thing take about n comparisons. The
        worst case, n unrelated things, takes n².
        """
        waiting = _largest_group_first(members, self.roots(members))
        may_be_alone = True
        while len(waiting) > 1:
            root = self.roots(waiting)
            own = root == root[0]
            reached, waiting = waiting[own], waiting[~own]
            is_alone, before = len(reached) == 1, len(waiting)
            while len(reached) and len(waiting):
                rows = max(1, CELLS // len(waiting))
                joins = related(reached[:rows], waiting).any(axis=0)
                reached = reached[rows:]
                if joins.any():
                    others = self.roots(waiting)
                    joined = np.unique(others[joins])
                    self._parent[joined] = root[0]
                    joins = np.isin(others, joined)
                    reached, waiting = np.concatenate([reached, waiting[joins]]), waiting[~joins]
            if may_be_alone and is_alone and len(waiting) == before:  # there are usually more: drop all of them at once
                waiting, may_be_alone = _not_alone(waiting, related), False


def _largest_group_first(members: Indices, roots: Indices) -> Indices:
    """The members with those of the largest group first; empty if all are in one group."""
    _, group, size = np.unique(roots, return_inverse=True, return_counts=True)
    if len(size) < 2:
        return members[:0]
    return members[np.argsort(-size[group], kind="stable")]


def _not_alone(things: Indices, related: Related) -> Indices:
    """The things that are related to another one."""
    is_related = np.zeros(len(things), dtype=np.bool_)
    rows = max(1, CELLS // max(1, len(things)))
    for start in range(0, len(things), rows):
        found = related(things[start : start + rows], things)
        number = np.arange(len(found))
        found[number, start + number] = False  # itself
        is_related[start : start + rows] = found.any(axis=1)
    return things[is_related]
