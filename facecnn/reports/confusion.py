"""The confusion of a run's figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def confused_pairs(judged: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """Index of a person, index of an answer, and the number of the person's photos that got it, at least 1.

    ``judged``: figures, whose ``confusion`` is a matrix, or of many people already a list of pairs.
    """
    confusion = judged["confusion"]
    if isinstance(confusion, Mapping):
        return list(zip(confusion["row"], confusion["column"], confusion["photos"], strict=True))
    return [
        (row, column, photos) for row, counts in enumerate(confusion) for column, photos in enumerate(counts) if photos
    ]
