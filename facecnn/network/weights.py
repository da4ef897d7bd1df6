"""A network's learned numbers: named arrays in one flat array, and how they are copied and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from facecnn.arrays import Array
from facecnn.errors import shown
from facecnn.kernels.backend import Backend
from facecnn.network.layers import Shape
from facecnn.network.stages import Stage

ALIGNMENT = 16
"""Every parameter starts at a multiple of 16 elements (64 bytes in float32) of the flat array."""


def aligned_size(shape: Shape) -> int:
    """Elements of a flat array that an array takes up, with the gap after it."""
    return -(-prod(shape) // ALIGNMENT) * ALIGNMENT


class FlatArrays:
    """Named arrays in one flat array, in the order given, each aligned."""

    def __init__(self, shapes: Sequence[tuple[str, str, Shape]], backend: Backend, dtype: npt.DTypeLike) -> None:
        self.offsets: dict[tuple[str, str], tuple[int, Shape]] = {}
        end = 0
        for stage, name, shape in shapes:
            self.offsets[stage, name] = (end, shape)
            end += aligned_size(shape)
        self.flat: Array = backend.to_device(np.zeros(end, dtype))
        self.named: dict[str, Array] = {}
        """``conv1.weight`` and so on: views of ``flat``."""
        self.by_stage: dict[str, dict[str, Array]] = {}
        for (stage, name), (start, shape) in self.offsets.items():
            view = self.flat[start : start + prod(shape)].reshape(shape)
            self.named[f"{stage}.{name}"] = view
            self.by_stage.setdefault(stage, {})[name] = view


def fitting(arrays: Mapping[str, Array], name: str, view: Array) -> Array:
    """The host array ``name`` in the dtype of ``view``.

    Raises KeyError where it is missing, and ValueError where it has another shape, and so belongs to another network
    even if it has as many elements.
    """
    array = arrays[name]
    if array.shape != view.shape:
        raise ValueError(f"{name} is of shape {array.shape} instead of {tuple(view.shape)}")
    return np.ascontiguousarray(array, dtype=view.dtype)


def misfits(stages: Sequence[Stage], arrays: Mapping[str, Array], *, whole: bool = True) -> list[str]:
    """What keeps ``arrays`` from being these layers' parameters and statistics in float32, one phrase for each array.

    Nothing is allocated. ``whole``: whether none may be missing.
    """
    expected = {
        f"{stage.name}.{name}": tuple(entry.shape)
        for stage in stages
        for name, entry in {**stage.parameters, **stage.statistics}.items()
    }
    found = []
    for name, shape in expected.items():
        array = arrays.get(name)
        if array is None:
            if whole:
                found.append(f"{name} is missing, F32 of shape {shape} expected")
            continue
        if array.dtype != np.float32:
            found.append(f"{name} is {array.dtype.kind.upper()}{8 * array.dtype.itemsize}, F32 expected")
        if array.shape != shape:
            found.append(f"{name} is of shape {array.shape}, {shape} expected")
    return found + [f"{shown(name)} is in no layer" for name in sorted(arrays.keys() - expected.keys())]


class Weights:
    """Everything that a network has learned: ``parameters`` by gradients, batch norm's ``statistics`` by averaging."""

    def __init__(self, stages: Sequence[Stage], backend: Backend, dtype: npt.DTypeLike) -> None:
        self._backend = backend
        trained = [(stage.name, name, p) for stage in stages for name, p in stage.parameters.items()]
        # Those that decay come first, so that weight decay needs only one bound.
        ordered = sorted(trained, key=lambda entry: not entry[2].decays)
        self.parameters = FlatArrays([(stage, name, p.shape) for stage, name, p in ordered], backend, dtype)
        self.statistics = FlatArrays(
            [(stage.name, name, p.shape) for stage in stages for name, p in stage.statistics.items()], backend, dtype
        )
        self.decaying: int = sum(aligned_size(p.shape) for _, _, p in ordered if p.decays)
        """Number of elements of the flat parameters, from the first, to which weight decay applies."""
        self.by_stage: dict[str, dict[str, Array]] = {
            stage.name: self.parameters.by_stage.get(stage.name, {}) | self.statistics.by_stage.get(stage.name, {})
            for stage in stages
        }

    def to_host(self) -> dict[str, Array]:
        """Copies of all arrays by name."""
        named = {**self.parameters.named, **self.statistics.named}
        return {name: self._backend.to_host(array) for name, array in named.items()}

    def from_host(self, arrays: Mapping[str, Array]) -> None:
        """Overwrite all arrays. Raises KeyError if a name is missing, ValueError if a shape differs."""
        for name, array in {**self.parameters.named, **self.statistics.named}.items():
            self._backend.copy_to_device(array, fitting(arrays, name, array))

    def copy_from(self, other: Weights) -> None:
        """Overwrite all arrays with those of another set for the same network."""
        self._backend.copy_to_device(self.parameters.flat, self._backend.to_host(other.parameters.flat))
        self._backend.copy_to_device(self.statistics.flat, self._backend.to_host(other.statistics.flat))
