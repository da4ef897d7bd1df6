"""The confusion of a run's figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from facecnn.arrays import Int64Array


def confused_pairs(judged: Mapping[str, Any]) -> Int64Array:
    """(pairs, 3): index of a person, index of an answer, and the number of the person's photos that got it, at least 1.

    ``judged``: figures, whose ``confusion`` is a matrix, or of many people already a list of pairs.
    """
    confusion = judged["confusion"]
    if isinstance(confusion, Mapping):
        return np.array([confusion[key] for key in ("row", "column", "photos")], np.int64).T
    matrix = np.array(confusion, np.int64).reshape(len(judged["classes"]), -1)
    return np.column_stack([*np.nonzero(matrix), matrix[np.nonzero(matrix)]])
