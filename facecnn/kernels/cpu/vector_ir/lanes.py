"""The vectors of the processor that code is compiled for."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

import llvmlite.binding as llvm
from numba.core.registry import cpu_target

from facecnn.kernels.cpu.jit import cache_folder

_MULTIPLY_AND_ADD = """
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
define <16 x float> @probe(<16 x float> %a, <16 x float> %b, <16 x float> %c) {
    %d = call <16 x float> @llvm.fma.v16f32(<16 x float> %a, <16 x float> %b, <16 x float> %c)
    ret <16 x float> %d
}
"""
_ADD_INTEGERS = """
define <16 x i32> @probe(<16 x i32> %a, <16 x i32> %b) {
    %c = add <16 x i32> %a, %b
    ret <16 x i32> %c
}
"""

_ADDITIONS = {r"vpaddd\s+%zmm": "avx512", r"vpaddd\s+%ymm": "avx2", r"add(\.4s\s+v|\s+v\d+\.4s)": "neon"}
"""How vectors of integers are added, by the instructions for vectors; those before AVX2 have shorter ones for it."""


_WIDTHS = 0, 4, 8, 16


@cache
def of_processor() -> int:
    """Floats in a vector that is multiplied and added in one instruction: 16 (AVX-512), 8 (AVX2), 4 (NEON), or 0 where
    there is nothing that the micro-kernels are written for.

    LLVM is asked, with a function of one such operation, since the names of processors tell too little, and Numba may
    have been told to compile for another one (NUMBA_CPU_NAME). Its answer is kept beside the compiled kernels: without
    them it takes 15 MB of LLVM's code.
    """
    kept = _kept_answer()
    with suppress(OSError, ValueError):
        if kept is not None and (width := int(kept.read_bytes())) in _WIDTHS:
            return width
    width = _asked()
    with suppress(OSError):
        if kept is not None:
            kept.write_bytes(b"%d" % width)
    return width


def _asked() -> int:
    assembly = _assembly(_MULTIPLY_AND_ADD)
    if "vfmadd" in assembly:
        return 16 if "zmm" in assembly else 8
    return 4 if re.search(r"fmla(\.4s\s+v|\s+v\d+\.4s)", assembly) else 0


def _kept_answer() -> Path | None:
    """The file with the answer; None where nothing can be kept."""
    folder = cache_folder()
    if folder is None:
        return None
    asked = "\0".join([*cpu_target.target_context.codegen().magic_tuple(), _MULTIPLY_AND_ADD])
    return Path(folder, f"vector-{sha256(asked.encode()).hexdigest()[:16]}")


@cache
def instructions() -> str:
    """The widest vectors that the compiler may use, with or without micro-kernels for them: avx512, avx2, neon or none.

    LLVM is asked here, too.
    """
    assembly = _assembly(_ADD_INTEGERS)
    return next((name for addition, name in _ADDITIONS.items() if re.search(addition, assembly)), "none")


def _assembly(probe: str) -> str:
    """What a function becomes on the processor that Numba compiles for."""
    triple, name, features = cpu_target.target_context.codegen().magic_tuple()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=name, features=features, opt=1)
    return str(machine.emit_assembly(llvm.parse_assembly(f'target triple = "{triple}"\n{probe}')))


def group_of(kernels: int, lanes: int) -> int:
    """Values that share a vector with each of so few kernels: 1, 2 or 4."""
    group = 1
    while group < 4 and lanes // (2 * group) >= max(kernels, 2):
        group *= 2
    return group


def registers(vector: int) -> int:
    """Vector registers of a processor whose vectors have ``vector`` floats."""
    return 32 if vector in (4, 16) else 16
