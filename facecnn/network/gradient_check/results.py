"""Results of a gradient check: parts, rows of a table, and what a wrong gradient looks like."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from facecnn.arrays import Array

TOLERANCE = 1e-6
"""Largest error of a gradient in float64, relative to the array's largest element."""
Name: TypeAlias = tuple[str, str]
"""``("conv1", "weight")``; ``("conv1", "input")`` for the derivative with respect to a layer's input."""


@dataclass(frozen=True)
class Fault:
    """The worst element of an array of derivatives, and what the array looks like."""

    place: tuple[int, ...]
    found: float
    expected: float
    likeness: str | None
    """What the array is: ``0.25 times the right one``, ``the right one upside down``; None if nothing fits."""


@dataclass(frozen=True)
class Row:
    """Result for one array of derivatives."""

    name: str
    """Name of the layer, or ``loss``."""
    parameter: str
    """``weight``, ``bias``, ``scale``, ``shift``, or ``input`` for what a layer passes down."""
    elements: int
    max_relative_error: float
    """Largest difference, relative to the array's largest element or, if that is larger, to a tenth of the largest
    element of all arrays; NaN if a derivative is NaN."""
    tolerance: float
    fault: Fault | None = None
    """None if it passed."""

    @property
    def passed(self) -> bool:
        return self.fault is None


@dataclass(frozen=True)
class Part:
    """Result for all parameters in the network up to a layer."""

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
    """The row with the largest error; NaN counts as the largest."""
    return max(rows, key=lambda row: np.inf if np.isnan(row.max_relative_error) else row.max_relative_error)


def compared(found: Mapping[Name, Array], expected: Mapping[Name, Array], tolerance: float) -> list[Row]:
    """Compare arrays, with a row for each expected one.

    Errors are relative to a tenth of the largest element of all arrays at least, because an array may be zero except
    for rounding (a bias below batch norm, which subtracts it again).
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
    place = np.unravel_index(int(errors.argmax()), errors.shape)  # that of a NaN, if there is one
    return Fault(
        tuple(int(index) for index in place),
        float(found[place]),
        float(expected[place]),
        _likeness(found, expected, allowed),
    )


def _likeness(found: Array, expected: Array, allowed: float) -> str | None:
    """Whether an array is the right one rotated, flipped, transposed or scaled."""
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
