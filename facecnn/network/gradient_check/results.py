"""What a gradient check finds: parts, rows of a table, and what a wrong gradient looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from facecnn.arrays import Array

TOLERANCE = 1e-6
"""Largest error of a gradient in float64, in parts of the array's largest element."""
Name: TypeAlias = tuple[str, str]
"""``("conv1", "weight")``; ``("conv1", "input")`` for the derivative by a layer's input."""


@dataclass(frozen=True)
class Fault:
    """Where an array of derivatives is most wrong, and how."""

    place: tuple[int, ...]
    found: float
    expected: float
    likeness: str | None
    """What the whole array is: ``0.25 times the right one``, ``the right one upside down``; None where none fits."""


@dataclass(frozen=True)
class Row:
    """How one array of derivatives did."""

    name: str
    """The layer's, or ``loss``."""
    parameter: str
    """``weight``, ``bias``, ``scale``, ``shift``, or ``input`` for what a layer passes down."""
    elements: int
    max_relative_error: float
    """Largest difference, in parts of the array's largest element, or of a tenth of the largest of all arrays
    where that is larger; not a number where a derivative isn't one."""
    tolerance: float
    fault: Fault | None = None
    """None if it passed."""

    @property
    def passed(self) -> bool:
        return self.fault is None


@dataclass(frozen=True)
class Part:
    """How all parameters did in the network up to a layer."""

    name: str
    rows: tuple[Row, ...]

    @property
    def elements(self) -> int:
        return sum(row.elements for row in self.rows)

    @property
    def worst(self) -> Row:
        return worst(self.rows)

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)


def worst(rows: Sequence[Row]) -> Row:
    """The row with the largest error for what it may be; one that isn't a number before all others."""
    return max(rows, key=lambda row: np.inf if np.isnan(row.max_relative_error) else row.max_relative_error)


def compared(found: Mapping[Name, Array], expected: Mapping[Name, Array], tolerance: float) -> list[Row]:
    """A row for each expected array.

    An array may be zero but for rounding (a bias below batch norm, which takes it out again), so that none is measured
    by less than a tenth of the largest of all.
    """
    largest = max((float(np.abs(array).max(initial=0)) for array in expected.values()), default=0.0)
    rows = []
    for (name, parameter), array in expected.items():
        scale = max(float(np.abs(array).max(initial=0)), largest / 10, np.finfo(np.float64).tiny)
        errors = np.abs(found[name, parameter] - array) / scale
        error = float(errors.max(initial=0))  # keeps NaN
        fault = None if error <= tolerance else _fault(found[name, parameter], array, errors, tolerance * scale)
        rows.append(Row(name, parameter, array.size, error, tolerance, fault))
    return rows


def _fault(found: Array, expected: Array, errors: Array, allowed: float) -> Fault:
    place = np.unravel_index(int(errors.argmax()), errors.shape)  # of a NaN, if there is one
    return Fault(
        tuple(int(index) for index in place),
        float(found[place]),
        float(expected[place]),
        _likeness(found, expected, allowed),
    )


def _likeness(found: Array, expected: Array, allowed: float) -> str | None:
    """Whether an array is another one turned, flipped, transposed or multiplied."""
    changed = {}
    if expected.ndim == 4:
        changed = {
            "the right one turned by 180 degrees": expected[:, ::-1, ::-1],
            "the right one upside down": expected[:, ::-1],
            "the right one mirrored": expected[:, :, ::-1],
            "the right one with rows and columns exchanged": expected.transpose(0, 2, 1, 3),
            "the right one with input and output maps exchanged": expected.transpose(3, 1, 2, 0),
        }
    if expected.ndim == 2:
        changed = {"the right one with rows and columns exchanged": expected.T}
    for what, array in changed.items():
        if array.shape == found.shape and np.abs(found - array).max() <= allowed:
            return what
    if np.isfinite(found).all() and expected.any():
        factor = float((found * expected).sum() / (expected * expected).sum())
        if np.abs(found - factor * expected).max() <= allowed:
            return f"{factor:.4g} times the right one"
    return None
