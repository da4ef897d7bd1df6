"""The numbers that cases are made of: the same ones for the same shape and seed."""

from __future__ import annotations

import numpy as np

from facecnn.arrays import Array

EXTREME = np.array([[-1e30, -200, -0.0, 0.0, 200, 1e30, np.nan]])


def random(*shape: int, seed: int = 0) -> Array:
    """Normal numbers that float32 holds exactly, so that both sides start from the same."""
    return as_float32(np.random.default_rng([seed, *shape]).normal(size=shape))


def integers(*shape: int, low: int, high: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).integers(low, high, shape).astype(np.float64)


def as_float32(array: Array) -> Array:
    """In float64 the numbers that float32 has room for."""
    return array.astype(np.float32).astype(np.float64)


def times(*shape: int) -> str:
    return " x ".join(map(str, shape))
