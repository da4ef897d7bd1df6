"""Sine and cosine by series: CUDA's own are ready for angles that take local memory and float64 arithmetic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from facecnn.kernels.cuda.driver import device_function

_ONE = np.float32(1)
_S3, _S5, _S7, _S9 = (np.float32((-1) ** (n // 2) / math.factorial(n)) for n in (3, 5, 7, 9))
_C2, _C4, _C6, _C8 = (np.float32((-1) ** (n // 2) / math.factorial(n)) for n in (2, 4, 6, 8))


@device_function
def cosine_and_sine(quarters: Any, x: Any) -> Any:
    """Of ``quarters`` quarter turns and x radians more, float32, at most an eighth of a turn either way: what the
    series leave out is below 3e-8."""
    square = x * x
    sine = x * (_ONE + square * (_S3 + square * (_S5 + square * (_S7 + square * _S9))))
    cosine = _ONE + square * (_C2 + square * (_C4 + square * (_C6 + square * _C8)))
    if quarters & 1:
        cosine, sine = -sine, cosine
    if quarters & 2:
        cosine, sine = -cosine, -sine
    return cosine, sine
