"""What holds for a backend as a whole."""

import inspect
from typing import Any

import numpy as np
import pytest

from facecnn.kernels import cpu, cuda, reference

FUNCTIONS = [
    name
    for name, value in vars(reference).items()
    if inspect.isfunction(value)
    and value.__module__ == reference.__name__
    and not name.startswith("_")
    and name != "philox"
]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("backend", [cpu, cuda], ids=["cpu", "cuda"])
def test_signatures_are_equal_to_the_letter(backend: Any, name: str) -> None:
    found, wanted = (inspect.signature(getattr(module, name)) for module in (backend, reference))
    assert list(found.parameters.values()) == [
        wanted.parameters[key].replace(annotation=parameter.annotation) for key, parameter in found.parameters.items()
    ]
    assert list(found.parameters) == list(wanted.parameters)


def test_a_backend_has_these_functions_and_no_others() -> None:
    of_cpu, of_cuda = ({name for name, value in vars(backend).items() if callable(value)} for backend in (cpu, cuda))
    assert of_cpu == {*FUNCTIONS, "Workspace", "set_threads"}
    assert of_cuda == {*FUNCTIONS, "Workspace", "PhotoStream"}


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8])
@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5), (2, 3, 4, 5)])
def test_empty(backend: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    array = backend.empty(shape, dtype)
    assert array.shape == shape
    assert array.dtype == dtype
    assert np.isfinite(backend.to_host(array)).all()


def test_arrays_go_to_the_device_and_back(backend: Any) -> None:
    host = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    device = backend.to_device(host)
    back = backend.to_host(device)
    np.testing.assert_array_equal(back, host)
    backend.copy_to_device(device, host + 1)
    backend.synchronise()
    np.testing.assert_array_equal(backend.to_host(device), host + 1)
    np.testing.assert_array_equal(back, host)  # a copy, not a view


def test_a_function_on_the_host_sees_and_changes_what_kernels_left(backend: Any) -> None:
    workspace = backend.Workspace()
    first, second = (backend.to_device(np.full(4, value, np.float32)) for value in (1, 10))

    def add(one: Any, other: Any) -> None:
        one += other

    def step() -> None:
        backend.accumulate(second, first, False, workspace)
        backend.on_host(add, (first, second), workspace)

    run = backend.record(step, workspace)
    expected = 1, 10
    for _ in range(4):  # plainly, recorded, and replayed
        run()
        expected = 2 * expected[0] + expected[1], expected[0] + expected[1]
        assert [float(backend.to_host(array)[0]) for array in (first, second)] == list(expected)


def test_cpu_arrays_are_aligned_and_may_be_read_behind_their_end() -> None:
    for array in (cpu.empty((3, 5), np.float32), cpu.to_device(np.ones(7, np.float32))):
        assert array.ctypes.data % 64 == 0
        assert array.flags.c_contiguous
        memory = array
        while isinstance(memory.base, np.ndarray):
            memory = memory.base
        behind = memory.ctypes.data + memory.nbytes - (array.ctypes.data + array.nbytes)
        assert behind >= 64 * 4
