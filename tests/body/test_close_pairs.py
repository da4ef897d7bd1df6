"""Pairs of points that score high."""

import numpy as np
import pytest

from facecnn.arrays import Float32Array
from facecnn.body import close_pairs as module
from facecnn.body.close_pairs import close_pairs


def points(count: int, seed: int = 0) -> tuple[Float32Array, Float32Array]:
    random = np.random.default_rng(seed)
    vectors = random.normal(0, 1, (count, 8)) + 1
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units.astype(np.float32), random.uniform(-0.1, 0, count).astype(np.float32)


def all_pairs(units: Float32Array, offsets: Float32Array, least: float) -> set[tuple[int, int]]:
    scores = units.astype(np.float64) @ units.T.astype(np.float64) + offsets + offsets[:, None]
    np.fill_diagonal(scores, -np.inf)
    return set(zip(*map(np.ndarray.tolist, np.nonzero(scores >= least)), strict=True))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS", 7)
    monkeypatch.setattr(module, "_COLUMNS", 11)


@pytest.mark.usefixtures("small_blocks")
def test_all_pairs_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 60)
    units, offsets = points(60)
    found = close_pairs(units, offsets, np.arange(60), 0.4)
    pairs = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert pairs == sorted(all_pairs(units, offsets, 0.4))
    assert len(pairs) > 400
    assert not found.crowded.any()


@pytest.mark.usefixtures("small_blocks")
def test_pairs_of_some_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 60)
    units, offsets = points(60)
    rows = np.array([3, 4, 30, 59])
    found = close_pairs(units, offsets, rows, 0.4)
    wanted = {pair for pair in all_pairs(units, offsets, 0.4) if set(pair) & set(rows.tolist())}
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) == wanted


@pytest.mark.usefixtures("small_blocks")
def test_the_best_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    units, offsets = points(50)
    found = close_pairs(units, offsets, np.arange(50), 0.2)
    kept = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    scores = units @ units.T + offsets + offsets[:, None]
    np.fill_diagonal(scores, -np.inf)
    for point in range(50):
        best = np.argsort(-scores[point])[:3]
        assert {(point, other) for other in best.tolist() if scores[point, other] >= 0.2} <= kept
    assert kept <= all_pairs(units, offsets, 0.2)
    assert np.bincount(found.first).max() <= 6
    np.testing.assert_array_equal(found.crowded, (scores >= 0.2).sum(axis=1) > 3)


def test_equal_points_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 4)
    found = close_pairs(np.ones((200, 1), np.float32), np.zeros(200, np.float32), np.arange(200), 0.5)
    assert np.bincount(found.first).max() <= 8
    assert found.crowded.all()


def test_no_pair() -> None:
    found = close_pairs(np.eye(5, dtype=np.float32), np.zeros(5, np.float32), np.arange(5), 0.5)
    assert (len(found.first), len(found.second), found.crowded.any()) == (0, 0, False)
