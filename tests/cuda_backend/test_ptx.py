"""What the CUDA kernels compile to for each generation of cards: pip packages are enough, no card.

Looked at are all kernels that a training step and an answer of the shipped networks launch, at their full size, for
all generations; and those of all cases, for the oldest and the newest. A float64 operation is up to 64 times
slower than a float32 one, what lies on the stack or was spilled is in slow memory, and too much shared memory or too
many threads can't be launched at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from contract.cases import cases_of
from cuda_backend.planned import launches_of_case, launches_of_training
from facecnn.kernels.cases import Case
from facecnn.kernels.cuda.driver import cuda, device_function, kernel
from facecnn.kernels.cuda.planning import Launch, PlannedArray
from machine.machine_code import LIMITS, Capability, MachineCode, float64_lines, machine_code, why_not

pytestmark = [pytest.mark.ptx, pytest.mark.skipif(why_not() is not None, reason=why_not() or "")]

SHARED_BYTES = 48 * 1024
"""What a block may have on every card without being asked for."""
NETWORKS = ("seed", "deep", "default", "smoke", "many")
OF_CASES: tuple[Capability, ...] = ((7, 5), (12, 0))


def faults(launch: Launch, capability: Capability) -> list[str]:
    code = machine_code(launch, capability)
    wrong = [f"{count} {what}" for what, count in _unwanted(code).items() if count]
    if code.float64:
        wrong += float64_lines(launch, capability)
    if code.shared_bytes >= SHARED_BYTES or code.dynamic_shared:
        wrong.append(f"{code.shared_bytes} bytes of shared memory")
    if code.blocks_per_multiprocessor(launch.threads, capability) == 0 or launch.threads % 32:
        wrong.append(f"{launch.threads} threads a block")
    x, y, z = (*launch.grid, 1, 1)[:3]
    if not (0 < x < 2**31 and 0 < y < 65536 and 0 < z < 65536):
        wrong.append(f"a grid of {launch.grid}")
    name = f"{launch.kernel.py_func.__qualname__} on sm_{capability[0]}{capability[1]}"
    return [f"{name}: {what}" for what in wrong]


def _unwanted(code: MachineCode) -> dict[str, int]:
    return {
        "bytes on the stack": code.stack_bytes,
        "bytes spilled": code.spill_bytes,
        "accesses to local memory": code.local_accesses,
        "float64 operations": code.float64,
        "64-bit divisions": code.divisions64,
        "atomics": code.atomics,
    }


@pytest.mark.parametrize("capability", LIMITS, ids=lambda capability: "sm_{}{}".format(*capability))
@pytest.mark.parametrize("network", NETWORKS)
def test_the_kernels_of_a_network(network: str, capability: Capability) -> None:
    launches = launches_of_training(network)
    assert len(launches) > 20
    assert not [fault for launch in launches for fault in faults(launch, capability)]


@pytest.mark.parametrize("case", cases_of(sizes=["tiny"]), ids=str)
def test_the_kernels_of_a_case(case: Case) -> None:
    launches = launches_of_case(case)
    assert launches
    assert not [fault for launch in launches for capability in OF_CASES for fault in faults(launch, capability)]


# ------------------------------------------------------------------------------------------ the check of these checks


def launch_of(function: Any, *arguments: Any, threads: int = 128) -> Launch:
    return Launch(kernel(function), (1,), threads, arguments)


def test_float64_and_threads_that_fill_no_warp_are_found() -> None:
    def wasteful(x: Any, scale: Any) -> None:
        i = cuda.grid(1)
        if i < x.size:
            x[i] = x[i] * scale * 0.1

    found = faults(launch_of(wasteful, PlannedArray((100,), np.float32), np.float32(1), threads=100), (9, 0))
    assert any("float64 operations" in fault for fault in found)
    assert any("test_ptx.py" in fault for fault in found)
    assert any("100 threads" in fault for fault in found)


def test_what_lies_on_the_stack_is_found() -> None:
    def rotated(x: Any, by: Any) -> None:
        numbers = cuda.local.array(50, np.float32)
        for i in range(50):
            numbers[i] = x[i]
        for i in range(50):
            x[i] = numbers[(np.uint32(i) * by) % np.uint32(50)]

    code = machine_code(launch_of(rotated, PlannedArray((50,), np.float32), np.uint32(7)), (12, 0))
    assert code.stack_bytes >= 4 * 50
    assert code.local_accesses > 0


def test_64_bit_divisions_and_atomics_are_found() -> None:
    def shared_out(x: Any, count: Any, parts: Any) -> None:
        cuda.atomic.add(x, count // parts, np.float32(1))

    code = machine_code(launch_of(shared_out, PlannedArray((9,), np.float32), np.int32(7), np.int32(2)), (7, 5))
    assert code.divisions64 >= 1
    assert code.atomics == 1

    def narrow(x: Any, count: Any, parts: Any) -> None:
        x[count // parts] = np.float32(1)

    code = machine_code(launch_of(narrow, PlannedArray((9,), np.float32), np.uint32(7), np.uint32(2)), (7, 5))
    assert (code.divisions64, code.atomics) == (0, 0)


def test_shared_memory_and_blocks_of_a_multiprocessor() -> None:
    @device_function
    def first(x: Any) -> Any:
        return x[0]

    def staged(x: Any) -> None:
        held = cuda.shared.array(6250, np.float32)
        held[cuda.threadIdx.x] = x[cuda.threadIdx.x]
        cuda.syncthreads()
        x[cuda.threadIdx.x] = held[np.uint32(127) - cuda.threadIdx.x] + first(x)

    launch = launch_of(staged, PlannedArray((128,), np.float32))
    code = {capability: machine_code(launch, capability) for capability in ((7, 5), (9, 0), (12, 0))}
    assert {found.shared_bytes for found in code.values()} == {4 * 6250}
    # 64 KiB; 228 KiB and 100 KiB, of which each block takes a KiB more.
    assert [found.blocks_per_multiprocessor(128, capability) for capability, found in code.items()] == [2, 8, 3]
    assert code[9, 0].blocks_per_multiprocessor(2048, (9, 0)) == 0


@pytest.mark.parametrize(
    ("registers", "threads", "blocks"),
    [
        (122, 128, 4),  # 16 warps of 128 registers a thread
        (70, 256, 3),  # 28 warps of 72
        (90, 224, 2),  # 21 warps of 96, of which four schedulers take 20
        (32, 256, 8),  # as many threads as there may be
        (16, 32, 32),  # as many blocks as there may be
        (255, 288, 0),  # nine warps, where there is room for eight
    ],
)
def test_registers_bound_the_blocks_of_a_multiprocessor(registers: int, threads: int, blocks: int) -> None:
    code = MachineCode("", registers, 0, 0, 0, 0, 0, 0, 0, False)
    assert code.blocks_per_multiprocessor(threads, (9, 0)) == blocks
