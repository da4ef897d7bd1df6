"""Compiles CUDA kernels, and reports registers, stack, shared memory, and instructions that they shouldn't have.

Neither a card nor a driver is needed, only the packages of the extra ``cuda12``: numba-cuda lowers a kernel to NVVM's
IR, NVVM translates it to PTX for a compute capability, and NVIDIA's assembler ``ptxas`` makes machine code and reports
its resources. A launch on a card goes the same way, up to the linker, which may use a few registers more or fewer.

Two private parts of numba-cuda are used. Compiling a device function asks for the capability of the card in use, which
is answered here. And the IR, which is the same for every capability and takes longer than everything else, is made only
once, while the public ``cuda.compile`` would make it again for each of them.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numba
from numba import types

from facecnn.kernels.cuda.driver import SIMULATED, cuda
from facecnn.kernels.cuda.planning import Launch, PlannedArray

Capability = tuple[int, int]

_numba: Any = numba  # untyped


@dataclass(frozen=True)
class Limits:
    """What a multiprocessor holds (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability")."""

    shared_kib: int
    threads: int
    blocks: int
    reserved_kib: int = 1
    """Shared memory that the system keeps for each block."""


LIMITS: dict[Capability, Limits] = {
    (7, 5): Limits(64, 1024, 16, reserved_kib=0),
    (8, 0): Limits(164, 2048, 32),
    (8, 6): Limits(100, 1536, 16),
    (8, 9): Limits(100, 1536, 24),
    (9, 0): Limits(228, 2048, 32),
    (10, 0): Limits(228, 2048, 32),
    (12, 0): Limits(100, 1536, 24),
}
"""Turing (RTX 20), Ampere (A100; RTX 30), Ada (RTX 40), Hopper (H100), Blackwell (B200; RTX 50)."""

REGISTERS = 65536
"""Registers of a multiprocessor, on all of these cards."""
_SCHEDULERS = 4
_REGISTERS_AT_ONCE = 256
"""A warp gets registers in units of so many."""

_INSTRUCTION = re.compile(r"^\s+(?:@!?%p\d+\s+)?([a-z]\w*(?:\.[\w:]+)*)\s+(.*)", re.MULTILINE)
_SHARED = re.compile(r"^\s*(?:\.\w+ )*\.shared (?:\.align \d+ )?\.[bfsu](8|16|32|64) \w+\[(\d+)\]", re.MULTILINE)


@dataclass(frozen=True)
class MachineCode:
    """A kernel, compiled for one compute capability."""

    ptx: str
    registers: int
    """Per thread."""
    stack_bytes: int
    """Per thread, in slow memory: whatever the assembler didn't keep in registers."""
    spill_bytes: int
    shared_bytes: int
    """Per block."""
    float64: int
    """Instructions on float64, up to 64 times slower than on float32."""
    divisions64: int
    """Divisions and remainders of 64-bit integers, about 100 instructions each."""
    atomics: int
    local_accesses: int
    """Reads and writes of local memory in the PTX."""
    dynamic_shared: bool
    """Whether the launch has to request shared memory."""

    def blocks_per_multiprocessor(self, threads: int, capability: Capability) -> int:
        """How many blocks of these threads a multiprocessor can hold at a time; 0 if they can't be launched at all."""
        limits = LIMITS[capability]
        warps = -(-threads // 32)
        of_warp = -(-self.registers * 32 // _REGISTERS_AT_ONCE) * _REGISTERS_AT_ONCE
        by_registers = REGISTERS // of_warp // _SCHEDULERS * _SCHEDULERS // warps
        by_shared = limits.shared_kib * 1024 // max(1, self.shared_bytes + limits.reserved_kib * 1024)
        by_threads = limits.threads // (32 * warps) if threads <= 1024 else 0
        return min(by_registers, by_shared, by_threads, limits.blocks)


def machine_code(launch: Launch, capability: Capability) -> MachineCode:
    """Compile the kernel of a planned launch."""
    return _machine_code(launch.kernel, _types(launch), capability)


def _types(launch: Launch) -> tuple[Any, ...]:
    return tuple(map(_type, launch.arguments))


def _type(argument: Any) -> Any:
    if isinstance(argument, tuple):
        return _numba.types.BaseTuple.from_types(tuple(map(_type, argument)))
    return argument.numba_type if isinstance(argument, PlannedArray) else _numba.typeof(argument)


def _is_float64(operation: str, operands: str) -> bool:
    return ".f64" in operation or "%fd" in operands


def float64_lines(launch: Launch, capability: Capability) -> list[str]:
    """Find the source lines of float64 instructions: ``conv.py:123``."""
    with _card_in_use(capability):
        ptx, _ = cuda.compile(
            launch.kernel.py_func, types.void(*_types(launch)), device=False, abi="numba", cc=capability, lineinfo=True
        )
    files = dict(re.findall(r'^\s*\.file\s+(\d+)\s+"([^"]*)"', ptx, re.MULTILINE))
    found, place = [], ""
    for line in ptx.splitlines():
        if position := re.match(r"\s*\.loc\s+(\d+)\s+(\d+)", line):
            place = f"{Path(files[position[1]]).name}:{position[2]}"
        elif (instruction := _INSTRUCTION.match(line)) and _is_float64(*instruction.groups()):
            found.append(place)
    return sorted(set(found))


def why_not() -> str | None:
    """Why nothing can be compiled here; None if it can."""
    if SIMULATED:
        return "the simulator compiles nothing: unset NUMBA_ENABLE_CUDASIM"
    if cuda.implementation != "NVIDIA":
        return "needs numba-cuda: pip install '.[cuda12]'"
    return None if _assembler() else "needs ptxas of nvidia-cuda-nvcc-cu12: pip install '.[cuda12]'"


@cache
def _assembler() -> Path | None:
    """Find ptxas. It must be as new as NVVM, so it is taken from the same package."""
    found = importlib.util.find_spec("nvidia")
    name = "ptxas.exe" if sys.platform == "win32" else "ptxas"
    folders = list(found.submodule_search_locations or ()) if found else []
    paths = [Path(folder) / "cuda_nvcc" / "bin" / name for folder in folders]
    return next((path for path in paths if path.is_file()), None)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Switch garbage collection off: Numba makes many small objects and keeps them, so searches find nothing."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def _card_in_use(capability: Capability) -> Iterator[None]:
    """Make numba-cuda believe that the card in use has this capability."""

    class Device:
        compute_capability = capability

    dispatcher = importlib.import_module("numba.cuda.dispatcher")
    with mock.patch.object(dispatcher, "get_current_device", return_value=Device):
        yield


@cache
def _library(kernel: Any, arguments: tuple[Any, ...]) -> Any:
    """Make a kernel's IR, as ``cuda.compile`` does before it asks NVVM for PTX."""
    compiler = importlib.import_module("numba.cuda.compiler")
    capability = (9, 0)  # one is required, but the IR doesn't depend on it
    with _card_in_use(capability), _no_collection():
        library, _ = compiler._compile_pyfunc_with_fixup(
            kernel.py_func, types.void(*arguments), device=False, abi="numba", cc=capability
        )
    return library


@cache
def _machine_code(kernel: Any, arguments: tuple[Any, ...], capability: Capability) -> MachineCode:
    (ptx,) = _library(kernel, arguments).get_asm_strs(cc=capability)
    said = _assembled(ptx, capability)

    def number(pattern: str) -> int:
        return sum(map(int, re.findall(pattern, said)))

    instructions = _INSTRUCTION.findall(ptx)

    def count(name: str, *types_: str) -> int:
        matching = re.compile(rf"(?:{name})\.(?:.*\.)?(?:{'|'.join(types_)})(?:\.|$)")
        return sum(bool(matching.match(operation)) for operation, _ in instructions)

    return MachineCode(
        ptx=ptx,
        registers=number(r"Used (\d+) registers"),
        stack_bytes=number(r"(\d+) bytes stack frame"),
        spill_bytes=number(r"(\d+) bytes spill"),
        shared_bytes=sum(int(bits) // 8 * int(size) for bits, size in _SHARED.findall(ptx)),
        float64=sum(_is_float64(*instruction) for instruction in instructions),
        divisions64=count("div|rem", "s64", "u64"),
        atomics=sum(operation.split(".")[0] in ("atom", "red") for operation, _ in instructions),
        local_accesses=count("ld|st", "local"),
        dynamic_shared=bool(re.search(r"\.extern\s+\.shared", ptx)),
    )


def _assembled(ptx: str, capability: Capability) -> str:
    """Run ptxas. Returns its messages; raises RuntimeError where it refuses the code, as for too much shared memory."""
    ptxas = _assembler()
    assert ptxas is not None, why_not()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx, encoding="ascii")
        architecture = f"-arch=sm_{capability[0]}{capability[1]}"
        command = [str(ptxas), "-v", architecture, str(source), "-o", str(source.with_suffix(".cubin"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ptxas: {(done.stdout + done.stderr).strip()}")
    return done.stdout + done.stderr
