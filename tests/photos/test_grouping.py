"""Groups are those of comparing everything with everything, without doing so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.photos import grouping
from facecnn.photos.grouping import Groups, Indices


class Counted:
    """A relation between things given as a symmetric matrix, and how many comparisons were made with it."""

    def __init__(self, related: np.ndarray) -> None:
        self._related = related
        self.comparisons = 0

    def __call__(self, one: Indices, other: Indices) -> np.ndarray:
        self.comparisons += len(one) * len(other)
        return self._related[np.ix_(one, other)].copy()


def partition(groups: Groups, count: int) -> set[frozenset[int]]:
    roots = groups.roots(np.arange(count))
    return {frozenset(np.flatnonzero(roots == root).tolist()) for root in set(roots.tolist())}


def by_comparing_all(related: np.ndarray) -> set[frozenset[int]]:
    reached = related | np.eye(len(related), dtype=bool)
    for _ in range(len(related)):
        reached = (reached.astype(int) @ reached.astype(int)) > 0
    return {frozenset(np.flatnonzero(row).tolist()) for row in reached}


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from([1, 7, 1 << 21]))
def test_groups_are_the_transitive_ones_in_any_order(data: st.DataObject, cells: int) -> None:
    count = data.draw(st.integers(1, 14))
    related = np.zeros((count, count), dtype=bool)
    things = st.integers(0, count - 1)
    for one, other in data.draw(st.lists(st.tuples(things, things), max_size=20)):
        related[one, other] = related[other, one] = True
    order = np.array(data.draw(st.permutations(range(count))))
    groups = Groups(count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "CELLS", cells)
        cut = data.draw(st.integers(0, count))  # what is joined in part before makes no difference
        groups.join_related(order[:cut], Counted(related))
        groups.join_related(order, Counted(related))
    assert partition(groups, count) == by_comparing_all(related)


def test_copies_are_not_compared_with_each_other() -> None:
    picture = np.random.default_rng(0).permutation(3000) % 5
    groups = Groups(3000)
    relation = Counted(picture[:, None] == picture)
    for number in range(5):
        groups.join_related(np.flatnonzero(picture == number), relation)
    assert len(partition(groups, 3000)) == 5
    assert relation.comparisons < 3000
    groups.join_related(np.arange(3000), relation)  # only with those of other pictures
    assert relation.comparisons < 3000 + 3000**2 * 4 / 5 / 2 + 3000


def test_what_is_alone_is_found_out_in_one_go() -> None:
    relation = Counted(np.eye(500, dtype=bool))
    groups = Groups(500)
    groups.join_related(np.arange(500), relation)
    assert len(partition(groups, 500)) == 500
    assert relation.comparisons < 500 * 502
