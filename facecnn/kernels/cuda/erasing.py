"""The box of a photo that augmentation erases."""

from __future__ import annotations

from typing import Any

import numpy as np

from facecnn.kernels.cuda.driver import device_function, unfused
from facecnn.kernels.protocol import ERASE_HEIGHT, ERASE_WIDTH, ERASE_X, ERASE_Y

_F, _I, _U = np.float32, np.int32, np.uint32
_HALF = _F(0.5)

_multiply, _ = unfused()


@device_function
def _rounded(part: Any, side: Any) -> Any:
    """round(part * side) for part >= 0, halves to the even number, as NumPy's rint of the rounded product."""
    pixels = _multiply(part, _F(side))
    whole = _I(pixels)
    rest = pixels - _F(whole)
    if rest > _HALF or (rest == _HALF and whole & 1 == 1):
        whole += 1
    return whole


@device_function
def erased_box(parameters: Any, n: Any, height: Any, width: Any) -> Any:
    """The photo's box that is erased, from (top, left) to before (bottom, right)."""
    top = _rounded(parameters[n, ERASE_Y], height)
    left = _rounded(parameters[n, ERASE_X], width)
    bottom = top + _rounded(parameters[n, ERASE_HEIGHT], height)
    right = left + _rounded(parameters[n, ERASE_WIDTH], width)
    return top, left, bottom, right


@device_function
def in_box(i: Any, pitch: Any, maps: Any, top: Any, left: Any, bottom: Any, right: Any) -> Any:
    """Whether element i of a photo, whose rows have ``pitch`` elements, lies in the box."""
    if i < top * pitch or i >= bottom * pitch:
        return False
    along = _I(_U(i) % _U(pitch))
    return left * maps <= along < right * maps
