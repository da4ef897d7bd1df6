"""Groups of things that are related, directly or over others, found without comparing all of them with all."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

Related = Callable[[Indices, Indices], npt.NDArray[np.bool_]]
"""For indices (n,) and (m,), whether each of the first and each of the second are related, (n, m); symmetric."""

CELLS = 1 << 21
"""So many comparisons are made at once, which bounds the memory that they take."""


class Groups:
    """A partition of ``count`` things, each in a group of its own at first (a union-find structure)."""

    def __init__(self, count: int) -> None:
        self._parent: Indices = np.arange(count, dtype=np.int64)

    def roots(self, things: Indices) -> Indices:
        """For each thing (n,) the one that stands for its group."""
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

        What is in one group already is not compared any more, so that n near-copies of one thing take about n
        comparisons. The worst case, n things none of which is related to another, takes n².
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
            if may_be_alone and is_alone and len(waiting) == before:  # seldom the only one: drop all such in one go
                waiting, may_be_alone = _not_alone(waiting, related), False


def _largest_group_first(members: Indices, roots: Indices) -> Indices:
    """The members with those of the largest group first; none where all are in one group."""
    _, group, size = np.unique(roots, return_inverse=True, return_counts=True)
    if len(size) < 2:
        return members[:0]
    return members[np.argsort(-size[group], kind="stable")]


def _not_alone(things: Indices, related: Related) -> Indices:
    """Those that are related to another one of them."""
    is_related = np.zeros(len(things), dtype=np.bool_)
    rows = max(1, CELLS // max(1, len(things)))
    for start in range(0, len(things), rows):
        found = related(things[start : start + rows], things)
        number = np.arange(len(found))
        found[number, start + number] = False  # to itself
        is_related[start : start + rows] = found.any(axis=1)
    return things[is_related]
