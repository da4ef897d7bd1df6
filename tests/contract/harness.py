"""Runs one kernel on a backend with guards around its outputs, and holds it against the reference in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.kernels import cpu, reference
from facecnn.kernels.update_rules import update_rule

Array = npt.NDArray[Any]

GUARD = 64
"""Elements before and after each output that nothing may write to (a multiple of 64 bytes in every dtype)."""


@dataclass(frozen=True)
class Out:
    """An output of this shape, which a kernel must overwrite wholly."""

    shape: tuple[int, ...]
    dtype: npt.DTypeLike | None = None


@dataclass(frozen=True)
class Inout:
    """An array that a kernel changes in place."""

    array: Array


def poison(dtype: npt.DTypeLike) -> Any:
    kind = np.dtype(dtype)
    return np.nan if kind.kind == "f" else 171


class UsedWorkspace(cpu.Workspace):
    """Scratch memory with what other layers left there: it shows where a kernel forgets to clear it."""

    def array(self, purpose: str, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        array = super().array(purpose, shape, dtype)
        array.fill(1e9 if np.dtype(dtype).kind == "f" else 171)  # finite: kernels may multiply it by 0
        return array


def call(
    backend: Any, name: str, *arguments: Any, dtype: npt.DTypeLike = np.float32, workspace: Any = None
) -> list[Array]:
    """The outputs of ``kernels.name(*arguments, workspace)`` as host arrays; floating arguments become ``dtype``.

    Fails where something was written outside of an output, or an input was changed.
    """
    guarded: list[tuple[Array, Array]] = []
    inputs: list[tuple[Array, Array]] = []

    def placed(argument: Any) -> Any:
        if isinstance(argument, tuple):
            return tuple(map(placed, argument))
        if isinstance(argument, Out | Inout):
            array = argument.array if isinstance(argument, Inout) else None
            shape = argument.shape if isinstance(argument, Out) else argument.array.shape
            kind = np.dtype((argument.dtype if isinstance(argument, Out) else _kind(argument.array, dtype)) or dtype)
            size = int(np.prod(shape))
            host = np.full(size + 2 * GUARD, poison(kind), kind)
            if array is not None:
                host[GUARD : GUARD + size] = array.reshape(-1)
            buffer = backend.to_device(host)
            view = buffer[GUARD : GUARD + size].reshape(shape)
            guarded.append((buffer, view))
            return view
        if isinstance(argument, np.ndarray):
            host = np.ascontiguousarray(argument, _kind(argument, dtype))
            device = _poisoned_around(backend, host)
            inputs.append((device, host))
            return device
        return argument

    if workspace is None:
        workspace = UsedWorkspace() if backend is cpu else backend.Workspace()
    getattr(backend, name)(*map(placed, arguments), workspace)
    backend.synchronise()
    for device, host in inputs:
        assert backend.to_host(device).tobytes() == host.tobytes(), f"{name} changed an input"
    results = []
    for buffer, view in guarded:
        whole = backend.to_host(buffer)
        around = np.concatenate([whole[:GUARD], whole[-GUARD:]])
        untouched = np.full(2 * GUARD, poison(whole.dtype), whole.dtype)
        np.testing.assert_array_equal(around, untouched, f"{name} wrote outside of an output")
        results.append(backend.to_host(view))
    return results


def _poisoned_around(backend: Any, host: Array) -> Any:
    """On the device, between elements that show in the result where they are used."""
    whole = np.full(host.size + 2 * GUARD, poison(host.dtype), host.dtype)
    whole[GUARD : GUARD + host.size] = host.reshape(-1)
    return backend.to_device(whole)[GUARD : GUARD + host.size].reshape(host.shape)


def _kind(array: Array, dtype: npt.DTypeLike) -> npt.DTypeLike:
    return dtype if array.dtype.kind == "f" else array.dtype


def check(backend: Any, name: str, *arguments: Any, tolerance: float = 1e-5, least_scale: float = 1e-6) -> list[Array]:
    """The backend's outputs equal those of the reference in float64: indices exactly, numbers to ``tolerance`` of the
    largest (or of ``least_scale``), NaN where the reference has NaN. Returns the reference's."""
    expected = call(reference, name, *arguments, dtype=np.float64)
    for got, wanted in zip(call(backend, name, *arguments), expected, strict=True):
        close(got, wanted, tolerance, name, least_scale)
    return expected


def close(got: Array, wanted: Array, tolerance: float, name: str, least_scale: float) -> None:
    assert got.shape == wanted.shape
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, wanted, name)
        return
    assert got.dtype == np.float32
    scale = float(np.nanmax(np.abs(wanted), initial=least_scale))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * scale, err_msg=name)


def random(*shape: int, seed: int = 0) -> Array:
    """Normal numbers that float32 holds exactly, so that both sides start from the same."""
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32).astype(np.float64)


def rule_state(rule: str, size: int) -> tuple[Inout, ...]:
    """Arrays that an optimizer's rule keeps; no negative numbers among the squares."""
    made = {name: random(size, seed=1 + number) for number, name in enumerate(update_rule(rule).state)}
    return tuple(
        Inout(np.abs(array) + 0.01 if name in ("second_moment", "squares") else array) for name, array in made.items()
    )


def integers(*shape: int, low: int, high: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).integers(low, high, shape).astype(np.float64)
