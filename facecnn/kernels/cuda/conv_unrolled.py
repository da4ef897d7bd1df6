"""Loops that are written out: the compiler keeps an array in registers only where all its indices are constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from facecnn.kernels.cuda.driver import device_function


def unrolled(count: int, step: Callable[[int], Any]) -> Any:
    """A device function that calls ``step(0)``, ``step(1)`` ... ``step(count - 1)``, which are device functions, in
    this order, with its one argument: a tuple.

    The compiler unrolls loops, too, but only small ones, and none with a barrier in it.
    """

    def between(first: int, stop: int) -> Any:
        if stop - first == 1:
            return step(first)
        middle = (first + stop) // 2
        former, latter = between(first, middle), between(middle, stop)

        @device_function
        def both(state: Any) -> None:
            former(state)
            latter(state)

        return both

    return between(0, count)
