"""Find the pairs of points that score high, in memory linear in the points."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from facecnn.arrays import BoolArray, Float32Array, Int64Array

Int32Array = npt.NDArray[np.int32]

MOST = 32
"""Pairs kept for each point, the best: more would only repeat what they say, in a crowd of near-copies."""

_ROWS, _COLUMNS = 512, 2048  # 4 MB of scores at a time, for each thread: larger blocks leave the caches


class ClosePairs(NamedTuple):
    """Pairs of points, sorted by the first."""

    first: Int32Array
    """(pairs,)"""
    second: Int32Array
    """(pairs,)"""
    crowded: BoolArray
    """(points,): whether a point is in pairs that were left out because it had ``MOST`` better ones."""


class _Found(NamedTuple):
    """The pairs of some rows."""

    row: Int32Array
    column: Int32Array
    score: Float32Array


def close_pairs(
    units: Float32Array,
    offsets: Float32Array,
    rows: Int64Array,
    least: float,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ClosePairs:
    """The pairs whose score, the cosine plus both points' offsets, is at least ``least``.

    The same pairs are found whatever the number of threads: each block of products is computed by one thread.

    Args:
        units: (points, dimensions) of length 1.
        offsets: (points,)
        rows: (n,) the points that are compared with all, ascending. At least one point of each pair is one of these.
        threads: that compare blocks (default: one for each processor).
        progress: called with the number of ``rows`` done and of all.

    Returns:
        Each pair in both orders, but no point is ``first`` in more than 2 * ``MOST`` of them.
    """
    ones = np.ones(len(units), np.float32)
    left = np.column_stack([units, offsets, ones])  # so that one product gives the whole score
    right = np.column_stack([units, ones, offsets])
    blocks = [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]
    compare = partial(_compare, left, right, least)
    executor = ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="compare")
    found: list[_Found] = []
    done = 0
    try:
        with threadpool_limits(1):  # BLAS sums in another order with more threads
            for block, of_block in zip(blocks, executor.map(compare, blocks), strict=True):
                found.append(of_block)
                done += len(block)
                if progress is not None:
                    progress(done, len(rows))
    finally:
        executor.shutdown(wait=True, cancel_futures=True)  # after Ctrl-C, don't compare the rest
    del left, right, compare
    row, column, score = (np.concatenate(parts) for parts in zip(*found, strict=True))
    found.clear()
    crowded = np.zeros(len(units), bool)
    keys = []
    for one_way in (_Found(row, column, score), _Found(column, row, score)):
        crowded |= np.bincount(one_way.row, minlength=len(units)) > MOST
        best = _best(one_way, MOST)
        keys.append(best.row.astype(np.int64) * len(units) + best.column)
    pairs = np.unique(np.concatenate(keys))
    return ClosePairs(_int32(pairs // len(units)), _int32(pairs % len(units)), crowded)


def _int32(values: Int64Array) -> Int32Array:
    """Half the memory."""
    return values.astype(np.int32)


def _compare(left: Float32Array, right: Float32Array, least: float, rows: Int64Array) -> _Found:
    """The pairs of a block of rows with all columns; of a row with more than ``MOST``, at least its best ``MOST + 1``,
    by which it is known as crowded."""
    own = left[rows]
    parts: list[_Found] = []
    for start in range(0, len(right), _COLUMNS):
        scores = own @ right[start : start + _COLUMNS].T
        itself = np.flatnonzero((rows >= start) & (rows < start + scores.shape[1]))
        scores[itself, rows[itself] - start] = -np.inf
        row, column = np.divmod(np.flatnonzero(scores >= least), scores.shape[1])
        full = np.flatnonzero(np.bincount(row, minlength=len(rows)) > MOST + 1)
        if len(full):
            best = np.argpartition(scores[full], -MOST - 1, axis=1)[:, -MOST - 1 :]
            others = ~np.isin(row, full)
            row = np.concatenate([row[others], np.repeat(full, MOST + 1)])
            column = np.concatenate([column[others], best.ravel()])
        parts.append(_Found(_int32(rows[row]), _int32(start + column), scores[row, column]))
    return _best(_Found(*(np.concatenate(values) for values in zip(*parts, strict=True))), MOST + 1)


def _best(found: _Found, most: int) -> _Found:
    """The ``most`` best pairs of each row, sorted by row, then from the best down."""
    order = np.lexsort((found.column, -found.score, found.row))
    row = found.row[order]
    starts = np.flatnonzero(np.r_[True, row[1:] != row[:-1]]) if len(row) else np.zeros(0, np.int64)
    counts = np.diff(np.r_[starts, len(row)])
    rank = np.arange(len(row)) - np.repeat(starts, counts)
    kept = order[rank < most]
    return _Found(found.row[kept], found.column[kept], found.score[kept])
