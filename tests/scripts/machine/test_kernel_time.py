"""What a launch executes, and how long it may take: executed_instructions.py and kernel_time.py of scripts/."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest

from facecnn.kernels.cuda.driver import cuda, kernel
from facecnn.kernels.cuda.planning import Launch, PlannedArray
from machine.cuda_roofline import step_of
from machine.executed_instructions import Counts, executed, program
from machine.kernel_time import CAPABILITY, Card, timed
from machine.machine_code import machine_code, why_not
from scripts.running import run_script

compiles = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

# Every thread adds up products, as many as array elements, the second argument and the block's number say together, and
# stores the sum.
LOOP = """
.visible .entry loop(
    .param .u64 loop_param_0, .param .u64 loop_param_1, .param .u64 loop_param_2, .param .u64 loop_param_3,
    .param .u64 .ptr .align 1 loop_param_4, .param .u64 loop_param_5, .param .u64 loop_param_6,
    .param .u32 loop_param_7
)
{
    .reg .pred  %p<2>;
    ld.param.u32  %r1, [loop_param_7];
    ld.param.u64  %rd1, [loop_param_4];
    ld.param.u64  %rd2, [loop_param_5];
    mov.u32  %r2, %ctaid.x;
    add.s32  %r3, %r1, %r2;
    cvt.u32.u64  %r5, %rd2;
    add.s32  %r3, %r3, %r5;
    mov.u32  %r4, 0;
$L__BB0_1:
    ld.shared.f32  %f2, [%r4];
    ld.global.f32  %f3, [%rd1];
    fma.rn.f32  %f1, %f2, %f3, %f1;
    add.s32  %r4, %r4, 1;
    setp.lt.s32  %p1, %r4, %r3;
    @%p1 bra  $L__BB0_1;
    st.global.f32  [%rd1], %f1;
    ret;
}
"""


def test_a_loop_is_followed_as_often_as_it_is_gone_through() -> None:
    launch = Launch(None, (4,), 64, (PlannedArray((6,), np.float32), np.int32(4)))
    counts = executed(LOOP, launch)
    turns = 11 + 12 + 13  # of the blocks that are followed: 1, 2 and 3
    warps = 2 * 4 / 3  # two a block, and three blocks stand for four
    assert counts.multiply_adds == pytest.approx(warps * turns)
    assert counts.memory == pytest.approx(warps * (2 * turns + 3))
    assert counts.global_bytes == pytest.approx(warps * 32 * 4 * (turns + 3))
    assert counts.shared_waits == counts.global_waits == pytest.approx(warps * turns)
    assert counts.integers == pytest.approx(warps * (2 * turns + 3 * 3))
    assert counts.slots == pytest.approx(warps * (6 * turns + 3 * 5))  # and two additions, conversion, store, return


@pytest.mark.parametrize(
    ("operation", "given", "wanted"),
    [
        ("add.s32", (2**32 - 1, 2), 1),
        ("sub.s64", (1, 2), 2**64 - 1),
        ("mul.lo.s32", (2**31, 3), 2**31),
        ("mul.hi.u32", (2**31, 6), 3),
        ("mul.wide.s32", (2**32 - 2, 3), 2**64 - 6),
        ("mad.lo.s32", (3, 4, 2**32 - 1), 11),
        ("shl.b32", (3, 31), 2**31),
        ("shr.u32", (2**31, 31), 1),
        ("shr.s32", (2**32 - 8, 1), 2**32 - 4),
        ("div.s32", (2**32 - 7, 2), 2**32 - 3),
        ("rem.s32", (2**32 - 7, 2), 2**32 - 1),
        ("div.u32", (2**32 - 7, 2), 2**31 - 4),
        ("and.b32", (12, 10), 8),
        ("not.b32", (1,), 2**32 - 2),
        ("not.pred", (1,), 0),
        ("neg.s64", (1,), 2**64 - 1),
        ("min.s32", (2**32 - 1, 1), 2**32 - 1),
        ("max.u32", (2**32 - 1, 1), 2**32 - 1),
        ("setp.lt.s32", (2**32 - 1, 1), 1),
        ("setp.lt.u32", (2**32 - 1, 1), 0),
        ("setp.gt.f32", (1, 0), 0),
        ("setp.le.f32", (0, 1), 1),
        ("selp.b32", (5, 6, 0), 6),
        ("cvt.s64.s32", (2**32 - 1,), 2**64 - 1),
        ("cvt.u64.u32", (2**32 - 1,), 2**32 - 1),
        ("cvt.u16.u32", (2**16 + 3,), 3),
        ("cvt.rzi.s32.f32", (7,), 0),
        ("mov.b32", (2**16 + 5, 3), 3 * 2**16 + 5),
        ("bfi.b32", (5, 255, 4, 3), 0b11011111),
        ("bfe.u32", (0b11011111, 4, 3), 5),
        ("shf.l.wrap.b32", (2**31, 1, 1), 3),
        ("prmt.b32", (0x44332211, 0x88776655, 0x7341), 0x88445522),
        ("prmt.b32", (0x44332211, 0x88776655, 0x8F0C), 0x00FF1100),
        ("dp2a.lo.u32.u32", (3 << 16 | 2, 7 << 8 | 5, 100), 131),
    ],
)
def test_an_instruction_does_what_ptx_says(operation: str, given: tuple[int, ...], wanted: int) -> None:
    operands = ", ".join(["%r0", *(f"%r{number}" for number in range(1, len(given) + 1))])
    code = program(f".entry one()\n{{\n\t{operation} \t{operands};\n\tret;\n}}")
    registers = [0] * len(code.registers)
    for number, value in enumerate(given, 1):
        if f"%r{number}" in code.registers:
            registers[code.registers[f"%r{number}"]] = value
    code.steps[0](registers)
    assert registers[code.registers["%r0"]] == wanted


def test_an_unknown_instruction_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="popc"):
        program(".entry one()\n{\n\tpopc.b32 \t%r0, %r1;\n}")


CARD = Card(peak=2 * 128 * 100 * 1e9, bandwidth=1e12, multiprocessors=100)  # 100 multiprocessors of 1 GHz


@pytest.mark.parametrize(
    ("counts", "bound", "cycles"),
    [
        (Counts(slots=250 * 4000), "issue", 3 * 1000),
        (Counts(slots=250 * 4000, integers=250 * 3000), "integers", 3 * 1500),
        (Counts(slots=250 * 4000, special=250 * 1000), "special", 3 * 2000),
        (Counts(slots=250 * 4000, memory=250 * 2000), "shared", 3 * 2000),
        (Counts(slots=250 * 4000, global_bytes=5120 * 4000), "L2", 4000),
        # Two blocks are held, so that there are two waves of eight warps a block.
        (Counts(slots=250 * 8 * 100, shared_waits=250 * 8 * 10, global_waits=250 * 8 * 4), "latency", 2 * 2400),
        (Counts(slots=250 * 4), "DRAM", 1000),
    ],
)
def test_the_largest_of_what_the_parts_need(counts: Counts, bound: str, cycles: int) -> None:
    array = PlannedArray((250_000,), np.float32)  # a megabyte: a microsecond
    found = timed(Launch(None, (50, 5), 256, (array, array, np.float32(1))), counts, 2, CARD)
    assert (found.bound, found.seconds) == (bound, pytest.approx(cycles * 1e-9))
    assert (found.held, found.waves, found.occupancy) == (2, 2, 0.25)


def test_a_small_grid_leaves_room() -> None:
    found = timed(Launch(None, (60,), 64, ()), Counts(slots=60 * 2 * 1000), 8, CARD)
    assert (found.held, found.waves, found.occupancy) == (1, 1, 2 / 64)
    assert (found.bound, found.seconds) == ("latency", pytest.approx(1e-6))


@pytest.mark.ptx
@compiles
def test_multiply_adds_of_a_compiled_kernel() -> None:
    @kernel
    def polynomial(out: Any, x: Any, powers: Any) -> None:
        i = cuda.grid(1)
        if i < x.size:
            total = np.float32(0)
            for _ in range(powers):
                total = total * x[i] + np.float32(1)
            out[i] = total

    array = PlannedArray((1000,), np.float32)
    launch = Launch(polynomial, (8,), 128, (array, array, np.int32(37)))
    counts = executed(machine_code(launch, CAPABILITY).ptx, launch)
    assert counts.multiply_adds == pytest.approx(8 * 4 * 37)


@pytest.mark.ptx
@compiles
def test_a_convolution_executes_its_multiply_adds_and_few_more() -> None:
    step = step_of("seed", 60)
    found = 0
    for (_, name, launches), work in zip(step.planned, step.works, strict=True):
        if name == "conv_forward":
            (launch,) = launches
            multiply_adds = 32 * executed(machine_code(launch, CAPABILITY).ptx, launch).multiply_adds
            assert work.operations / 2 <= multiply_adds <= 1.6 * work.operations / 2
            found += 1
    assert found


@pytest.mark.ptx
@compiles
def test_a_table_of_kernels_and_one_of_steps() -> None:
    done = run_script("machine/cuda_roofline", "smoke", "--kernels", "--node-us", "3")
    assert (done.exit_code, done.stderr) == (0, "")
    ((*kernels, total),) = done.tables
    launches = [launch for _, _, of_function in step_of("smoke", 60).planned for launch in of_function]
    assert [int(row["blocks"]) for row in kernels] == [prod(launch.grid) for launch in launches]
    assert all(float(row["estimated µs"]) >= 3 for row in kernels)
    assert float(total["estimated µs"]) == pytest.approx(sum(float(row["estimated µs"]) for row in kernels), abs=2)

    done = run_script("machine/cuda_roofline", "smoke", "--steps", "--node-us", "3")
    (rows,) = done.tables
    assert [(row["network"], row["batch"]) for row in rows] == [("smoke", "16"), ("smoke", "60"), ("smoke", "512")]
    assert all(float(row["estimated ms"]) > float(row["roofline ms"]) for row in rows)
    assert float(rows[1]["estimated ms"]) == pytest.approx(float(total["estimated µs"]) / 1000, abs=0.006)


@pytest.mark.skipif(why_not() is None, reason="kernels can be compiled here")
def test_without_the_compiler_it_says_what_to_install() -> None:
    done = run_script("machine/cuda_roofline", "smoke", "--steps")
    assert done.exit_code == 2
    assert str(why_not()) in done.stderr
