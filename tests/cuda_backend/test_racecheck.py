"""The simulator, as these tests run it, finds what would be a fault on a card, and nothing else."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.cases import cases_of
from contract.harness import call
from facecnn.kernels import cuda as backend
from facecnn.kernels.cuda.driver import SIMULATED, cuda, kernel

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not SIMULATED, reason="a card doesn't say what its threads did")]

THREADS, BLOCKS = 8, 2
F = np.float32

AMONG_THREADS = "race between threads of a block"
BETWEEN_BLOCKS = "race between blocks"
DIVERGENT = "divergent barrier"
UNWRITTEN = "read before it was written"

KERNELS: dict[str, tuple[Any, str | None, set[int]]] = {}
"""By name: a kernel, what is wrong with it, and the lines that must be named: those that end in "# !"."""


def seeded(fault: str | None) -> Callable[[Any], Any]:
    def keep(function: Any) -> Any:
        lines, first = inspect.getsourcelines(function)
        marked = {first + i for i, line in enumerate(lines) if line.rstrip().endswith("# !")}
        KERNELS[function.__name__] = kernel(function), fault, marked
        return function

    return keep


@seeded(AMONG_THREADS)
def no_barrier_between_write_and_read(out: Any, x: Any) -> None:
    s = cuda.shared.array(THREADS, F)
    t = cuda.threadIdx.x
    s[t] = x[t]  # !
    out[cuda.grid(1)] = s[THREADS - 1 - t]  # !


@seeded(None)
def a_barrier_between_write_and_read(out: Any, x: Any) -> None:
    s = cuda.shared.array(THREADS, F)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncthreads()
    out[cuda.grid(1)] = s[THREADS - 1 - t]


@seeded(AMONG_THREADS)
def no_barrier_before_memory_is_used_again(out: Any, x: Any) -> None:
    s = cuda.shared.array(THREADS, F)
    t = cuda.threadIdx.x
    for turn in range(2):
        s[t] = x[t] + turn  # !
        cuda.syncthreads()
        out[cuda.grid(1)] = s[THREADS - 1 - t]  # !


@seeded(None)
def a_barrier_before_memory_is_used_again(out: Any, x: Any) -> None:
    s = cuda.shared.array(THREADS, F)
    t = cuda.threadIdx.x
    for turn in range(2):
        s[t] = x[t] + turn
        cuda.syncthreads()
        out[cuda.grid(1)] = s[THREADS - 1 - t]
        cuda.syncthreads()


@seeded(AMONG_THREADS)
def threads_write_the_same_shared_element(out: Any, x: Any) -> None:
    s = cuda.shared.array(THREADS, F)
    s[cuda.threadIdx.x // 2] = x[0]  # !


@seeded(AMONG_THREADS)
def no_barrier_in_global_memory(out: Any, x: Any) -> None:
    i, t = cuda.grid(1), cuda.threadIdx.x
    out[i] = x[i]  # !
    x[i] = out[i - t + THREADS - 1 - t]  # !


@seeded(None)
def a_barrier_in_global_memory(out: Any, x: Any) -> None:
    i, t = cuda.grid(1), cuda.threadIdx.x
    out[i] = x[i]
    cuda.syncthreads()
    x[i] = out[i - t + THREADS - 1 - t]


@seeded(BETWEEN_BLOCKS)
def blocks_write_the_same_element(out: Any, x: Any) -> None:
    out[cuda.threadIdx.x] = x[0]  # !


@seeded(None)
def blocks_read_the_same_elements(out: Any, x: Any) -> None:
    out[cuda.grid(1)] = x[0] + x[cuda.threadIdx.x]


@seeded(BETWEEN_BLOCKS)
def a_block_reads_what_another_writes(out: Any, x: Any) -> None:
    i = cuda.grid(1)
    out[i] = 1  # !
    cuda.syncthreads()
    if cuda.blockIdx.x == 1:
        x[i] = out[i - THREADS]  # !


@seeded(BETWEEN_BLOCKS)
def a_block_writes_what_another_has_read(out: Any, x: Any) -> None:
    if cuda.blockIdx.x == 0:
        x[cuda.threadIdx.x] = out[cuda.threadIdx.x]  # !
    else:
        out[cuda.threadIdx.x] = 1  # !


@seeded(None)
def blocks_keep_to_themselves(out: Any, x: Any) -> None:
    i = cuda.grid(1)
    out[i] = 1
    cuda.syncthreads()
    x[i] = out[cuda.blockIdx.x * THREADS]


@seeded(DIVERGENT)
def half_of_the_threads_come_to_a_barrier(out: Any, x: Any) -> None:
    if cuda.threadIdx.x < THREADS // 2:
        cuda.syncthreads()  # !


@seeded(DIVERGENT)
def threads_come_to_different_barriers(out: Any, x: Any) -> None:
    if cuda.threadIdx.x < THREADS // 2:
        cuda.syncthreads()  # !
    else:
        cuda.syncthreads()  # !


@seeded(None)
def blocks_come_to_different_barriers(out: Any, x: Any) -> None:
    if cuda.blockIdx.x == 0:
        cuda.syncthreads()
        cuda.syncthreads()
    else:
        cuda.syncthreads()


@seeded(UNWRITTEN)
def shared_memory_that_nobody_wrote(out: Any, x: Any) -> None:
    s = cuda.shared.array(THREADS, F)
    out[cuda.grid(1)] = s[cuda.threadIdx.x]  # !


@seeded(UNWRITTEN)
def shared_memory_that_another_block_wrote(out: Any, x: Any) -> None:
    s = cuda.shared.array(THREADS, F)
    if cuda.blockIdx.x == 0:
        s[cuda.threadIdx.x] = x[0]
    out[cuda.grid(1)] = s[cuda.threadIdx.x]  # !


@seeded(UNWRITTEN)
def shared_memory_that_is_written_afterwards(out: Any, x: Any) -> None:
    s = cuda.shared.array(THREADS, F)
    t = cuda.threadIdx.x
    s[t] = s[t] + x[t]  # !
    cuda.syncthreads()
    out[cuda.grid(1)] = s[t]


@seeded(UNWRITTEN)
def local_memory_that_is_written_in_part(out: Any, x: Any) -> None:
    own = cuda.local.array(3, F)
    for i in range(2):
        own[i] = x[i]
    total = F(0)
    for i in range(3):
        total += own[i]  # !
    out[cuda.grid(1)] = total


@seeded(UNWRITTEN)
def local_memory_that_was_written_for_something_else(out: Any, x: Any) -> None:
    for turn in range(3):
        own = cuda.local.array(2, F)
        if turn < 2:
            own[0] = x[0]
        out[cuda.grid(1)] = own[0]  # !


@seeded(None)
def all_memory_is_written(out: Any, x: Any) -> None:
    s = cuda.shared.array((THREADS, 2), F)
    own = cuda.local.array(2, F)
    t = cuda.threadIdx.x
    for i in range(2):
        own[i] = x[i]
        s[t, i] = own[i]
        s[t, i] = s[t, i] + own[i]
    cuda.syncthreads()
    out[cuda.grid(1)] = s[THREADS - 1 - t, 0]


def launch(function: Any, *arrays: Any) -> None:
    function[BLOCKS, THREADS](*map(backend.to_device, arrays))


@pytest.mark.parametrize("name", KERNELS)
def test_a_seeded_fault_is_found(name: str) -> None:
    function, fault, marked = KERNELS[name]
    size = THREADS * BLOCKS
    if fault is None:
        launch(function, np.zeros(size, F), np.ones(size, F))
        return
    with pytest.raises(AssertionError) as caught:
        launch(function, np.zeros(size, F), np.ones(size, F))
    found = str(caught.value)
    assert {line.split(":")[0] for line in found.splitlines()} == {fault}
    assert set(map(int, re.findall(r"test_racecheck.py:(\d+)", found))) == marked


@kernel
def _copy(out: Any, x: Any) -> None:
    i = cuda.grid(1)
    if i < out.size:
        out[i] = x[i]


def test_arrays_that_overlap_are_one_memory() -> None:
    memory = backend.to_device(np.ones(32, F))
    _copy[1, THREADS](memory[:8], memory[8:16])
    with pytest.raises(AssertionError, match=AMONG_THREADS):
        _copy[1, THREADS](memory[:8], memory[1:9])
    _copy[BLOCKS, THREADS](memory[:16], memory[16:])
    with pytest.raises(AssertionError, match=BETWEEN_BLOCKS):
        _copy[BLOCKS, THREADS](memory[:16], memory[8:24])


@kernel
def _at(out: Any, memory: Any, index: Any) -> None:
    shared, local = cuda.shared.array(4, F), cuda.local.array((2, 4), F)
    if memory == 0:
        out[index] = 1
    elif memory == 1:
        shared[index] = 1
    else:
        local[1, index] = 1


@pytest.mark.parametrize("memory", [0, 1, 2], ids=["global", "shared", "local"])
def test_an_index_outside_of_an_array_is_an_error(memory: int) -> None:
    out = backend.to_device(np.zeros(4, F))
    _at[1, 1](out, memory, 3)
    for index, message in ((-1, "below 0"), (4, "out of bounds")):
        with pytest.raises(IndexError, match=message):
            _at[1, 1](out, memory, index)


# ---------------------------------------------------------------------------------------------------- every barrier

SOURCES = Path(backend.__file__).parent
BARRIERS = [
    (path.stem, number)
    for path in sorted(SOURCES.glob("*.py"))
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    if "cuda.syncthreads()" in line
]
REACHED_BY = {
    "block": "softmax_cross_entropy",
    "columns": "batch_norm_forward",
    "conv": "conv_forward",
    "conv_sums": "conv_forward",
    "conv_weight": "conv_backward_weight",
    "loss": "take_batch",
    "neuron": "neuron_forward",
    "normalise": "prepare_photos",
    "products": "dense_forward",
    "random": "dropout",
    "warp": "prepare_photos",
}
"""Whose cases must notice that a barrier in this file is missing."""


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # of garbage
@pytest.mark.parametrize(("source", "line"), BARRIERS, ids=str)
def test_no_barrier_can_be_left_out(source: str, line: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from cuda_backend.racecheck import FaultyLaunch, Thread

    plain = Thread.syncthreads

    def all_but_one(self: Any) -> None:
        caller = sys._getframe(2)  # of the simulator's function, which calls this one
        if (caller.f_code.co_filename, caller.f_lineno) != (str(SOURCES / f"{source}.py"), line):
            plain(self)

    monkeypatch.setattr(Thread, "syncthreads", all_but_one)

    def run_cases() -> None:
        for case in cases_of(REACHED_BY[source], sizes=["tiny"]):
            call(backend, case.kernel, *case.arguments)

    with pytest.raises(FaultyLaunch):
        run_cases()
