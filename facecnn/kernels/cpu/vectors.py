"""The vectors of the processor that code is compiled for."""

from __future__ import annotations

from functools import cache

import llvmlite.binding as llvm
from numba.core.registry import cpu_target

_PROBE = """
target triple = "{triple}"
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
define <16 x float> @probe(<16 x float> %a, <16 x float> %b, <16 x float> %c) {{
    %d = call <16 x float> @llvm.fma.v16f32(<16 x float> %a, <16 x float> %b, <16 x float> %c)
    ret <16 x float> %d
}}
"""


@cache
def lanes() -> int:
    """Floats in a vector that is multiplied and added in one instruction: 16 (AVX-512), 8 (AVX2), or 0 where there is
    nothing that the micro-kernels are written for.

    LLVM is asked, with a function of one such operation, since the names of processors tell too little, and Numba may
    have been told to compile for another one (NUMBA_CPU_NAME).
    """
    triple, name, features = cpu_target.target_context.codegen().magic_tuple()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=name, features=features, opt=1)
    assembly = machine.emit_assembly(llvm.parse_assembly(_PROBE.format(triple=triple)))
    if "vfmadd" not in assembly:
        return 0
    return 16 if "zmm" in assembly else 8


def registers(vector: int) -> int:
    """Vector registers of a processor with vectors of so many floats."""
    return 32 if vector == 16 else 16
