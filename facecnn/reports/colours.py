"""The colours of positive and negative numbers, without loading matplotlib, which takes a quarter of a second."""

import numpy as np

_BLUE_TO_RED = np.array(
    [
        (5, 48, 97), (33, 102, 172), (67, 147, 195), (146, 197, 222), (209, 229, 240), (247, 247, 247),
        (253, 219, 199), (244, 165, 130), (214, 96, 77), (178, 24, 43), (103, 0, 31),
    ]
)  # fmt: skip
"""Cynthia Brewer's RdBu in reverse (https://colorbrewer2.org)."""

_LEVELS = 256


def blue_to_red(shares: np.ndarray) -> np.ndarray:
    """The colours (..., 3), 0 to 1, of ``shares`` (...) from 0, blue, to 1, red, as matplotlib's ``RdBu_r`` has them.

    White is in the middle. Shares beyond the ends have the colours of the ends.
    """
    places = np.linspace(0, len(_BLUE_TO_RED) - 1, _LEVELS)
    channels = [np.interp(places, np.arange(len(_BLUE_TO_RED)), channel / 255) for channel in _BLUE_TO_RED.T]
    levels = np.clip(shares * _LEVELS, 0, _LEVELS - 1).astype(np.int64)
    colours: np.ndarray = np.stack(channels, axis=-1)[levels]
    return colours
