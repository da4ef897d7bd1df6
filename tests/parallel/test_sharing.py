"""A list of items that ranks share: each is done once, in whatever order, and none is lost with a rank."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from facecnn.parallel.ranks import ALONE, PortionSize, Silent
from facecnn.parallel.sharing import Portion, SharedItems

from .threads import on_ranks


def squares(start: int, stop: int, done: Any) -> list[int]:
    done(stop - start)
    return [number * number for number in range(start, stop)]


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
@pytest.mark.parametrize("size", [PortionSize(), PortionSize(smallest=30), PortionSize(largest=1)])
def test_the_results_are_those_of_one_rank_in_the_order_of_the_items(count: int, size: PortionSize) -> None:
    wanted = [number * number for number in range(count)]
    assert ALONE.share_out(count, squares, size) == wanted
    assert on_ranks(3, lambda ranks: ranks.share_out(count, squares, size)) == [wanted, [], []]


def portions(items: SharedItems, *ranks: int) -> list[Portion]:
    """What ranks get when they ask in this order."""
    found = [items.take(rank) for rank in ranks]
    assert None not in found
    return [portion for portion in found if portion is not None]


def test_portions_become_smaller_but_not_smaller_than_asked_for() -> None:
    items = SharedItems(1000, 2, PortionSize(smallest=30))
    sizes = []
    while (portion := items.take(0)) is not None:
        sizes.append(portion.stop - portion.start)
        items.put(0, portion, squares(*portion, int))
    assert sum(sizes) == 1000
    assert sizes[0] == 250
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes[:-1]) == 30
    assert items.finished


def test_a_rank_that_is_slow_gets_fewer_items() -> None:
    items = SharedItems(10, 2, PortionSize(largest=1))
    (slow,) = portions(items, 1)
    while (portion := items.take(0)) is not None:
        items.put(0, portion, squares(*portion, int))
    assert not items.finished
    items.put(1, slow, squares(*slow, int))
    assert items.results == [number * number for number in range(10)]


def test_what_a_lost_rank_was_at_work_on_is_done_by_another_that_waits_for_it() -> None:
    items = SharedItems(4, 2, PortionSize(smallest=2))
    own, lost = portions(items, 0, 1)
    items.put(0, own, squares(*own, int))
    waiting = threading.Thread(target=items.work, args=(0, squares))
    waiting.start()
    items.lose(1, "rank 1: gone")
    waiting.join(60)
    assert items.finished
    assert items.results == [0, 1, 4, 9]
    items.put(1, lost, [None, None])  # it was only slow: what others have done stays
    assert items.results == [0, 1, 4, 9]


def test_items_that_two_ranks_are_lost_over_are_named_and_nobody_tries_them_again() -> None:
    items = SharedItems(3, 3, PortionSize(largest=1))
    first = portions(items, 1)
    items.lose(1, "rank 1: gone")
    assert portions(items, 2) == first
    items.lose(2, "rank 2: gone")
    items.work(0, squares)
    assert items.results == [Silent("rank 2: gone"), 1, 4]


def test_a_rank_that_comes_back_before_another_has_taken_its_portion_has_done_it() -> None:
    items = SharedItems(2, 2, PortionSize(largest=1))
    (slow,) = portions(items, 1)
    items.lose(1, "rank 1: slow")
    items.put(1, slow, [0])
    assert portions(items, 0) == [Portion(1, 2)]


def test_who_waits_for_a_portion_is_ended_by_a_failure() -> None:
    items = SharedItems(1, 2)
    portions(items, 1)
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            items.take_or_wait(0)
        except OSError as error:
            caught.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    items.fail(OSError("no network"))
    waiting.join(60)
    assert [str(error) for error in caught] == ["no network"]


def test_progress_counts_the_items_of_all_ranks_once() -> None:
    told: list[tuple[int, int]] = []
    items = SharedItems(4, 2, PortionSize(smallest=2), lambda done, total: told.append((done, total)))
    own, other = portions(items, 0, 1)
    items.advance(0, 1)
    items.put(1, other, [0, 0])
    items.advance(0, 2)
    items.put(0, own, [0, 0])
    assert told == [(1, 4), (3, 4), (4, 4), (4, 4)]
