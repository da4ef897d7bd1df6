"""Counts the instructions that a CUDA kernel executes, without a card: its control flow is followed in Python.

Integers decide what a warp does: its place in the grid, the sizes that the kernel gets, loop counters. So the integer
and predicate instructions of one thread's PTX are executed here, and all others are only counted. Whatever is read from
memory counts as 0, and so does every float: a branch on data (an erased box, a photo out of focus) goes the way of
zeros. The first thread of a warp stands for all 32, since they share their instructions and the first one always takes
part.

ptxas turns PTX into other instructions; ``SLOTS`` says how many.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from math import prod
from typing import Any

from facecnn.kernels.cuda.planning import Launch, PlannedArray, flattened

SLOTS = {
    "mov": 0, "cvta": 0, "ld.param": 0,  # mostly gone: registers are renamed, and parameters are operands
    "cvt": 1,
    "div.rn.f32": 10, "rcp.rn.f32": 8, "sqrt.rn.f32": 10,  # an approximation, corrected
    "div.u32": 20, "rem.u32": 20, "div.s32": 25, "rem.s32": 25,
}  # fmt: skip
"""Machine instructions for one of PTX, by its beginning; others take one, or two with integers of 64 bits (four for a
product). The figures for divisions are rough."""

_LINE = re.compile(r"^\s*(?:@(!?)(%p\d+)\s+)?([a-z][\w.:]*)\s*(.*?);$")
_MOST_VISITS = 20_000_000
_COMPARE = {
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "lo": "<",
    "ls": "<=",
    "hi": ">",
    "hs": ">=",
}
_ZEROS_COMPARE = ("eq", "le", "ge", "equ", "leu", "geu", "num")
"""Comparisons that hold for two zeros."""
_ARITHMETIC = {"add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^"}


@dataclass
class Counts:
    """What a warp executes."""

    slots: float = 0
    """Machine instructions issued."""
    multiply_adds: float = 0
    integers: float = 0
    """Machine instructions on integers and predicates."""
    special: float = 0
    """Approximations of 1/x, roots, powers of 2, logarithms and sines; conversions between floats and integers."""
    memory: float = 0
    """Reads and writes of shared and global memory."""
    global_bytes: float = 0
    """Bytes that the warp reads and writes, if all its threads take part."""
    shared_waits: float = 0
    """Waits for values from shared memory: once in every basic block that reads any."""
    global_waits: float = 0
    """Waits for values from global memory."""

    def add(self, other: Counts, times: float = 1) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + times * getattr(other, field.name))


@dataclass(frozen=True)
class Program:
    """A kernel's PTX as Python functions, one for each basic block."""

    steps: list[Callable[[list[int]], int]]
    """Each changes the registers and returns the number of the next one; -1 at the end."""
    counts: list[Counts]
    registers: dict[str, int]
    parameters: list[str]


def executed(ptx: str, launch: Launch) -> Counts:
    """Count for all warps of the grid; three of its blocks are followed and stand for all."""
    code, total = program(ptx), Counts()
    x, y, z = (*launch.grid, 1, 1)[:3]
    blocks, warps = x * y * z, -(-launch.threads // 32)
    sample = sorted({blocks // 4, blocks // 2, 3 * blocks // 4})
    for block in sample:
        for warp in range(warps):
            place = {"%ctaid.x": block % x, "%ctaid.y": block // x % y, "%ctaid.z": block // (x * y)}
            total.add(_followed(code, launch, place | {"%tid.x": 32 * warp}), blocks / len(sample))
    return total


def _followed(code: Program, launch: Launch, place: dict[str, int]) -> Counts:
    x, y, z = (*launch.grid, 1, 1)[:3]
    known = place | {"%ntid.x": launch.threads, "%nctaid.x": x, "%nctaid.y": y, "%nctaid.z": z}
    known |= dict(zip(code.parameters, _parameters(launch), strict=True))
    registers = [0] * len(code.registers)
    for name, number in code.registers.items():
        registers[number] = known.get(name, 0)
    visits, step = [0] * len(code.steps), 0
    for _ in range(_MOST_VISITS):
        visits[step] += 1
        step = code.steps[step](registers)
        if step < 0:
            break
    else:
        raise RuntimeError(f"{launch.kernel.py_func.__qualname__} doesn't end")
    total = Counts()
    for counts, times in zip(code.counts, visits, strict=True):
        if times:
            total.add(counts, times)
    return total


def _parameters(launch: Launch) -> list[int]:
    """As Numba passes them: an array is owner, parent, size, item size, address, shape and strides."""
    values: list[int] = []
    for number, argument in enumerate(flattened(launch.arguments)):
        if isinstance(argument, PlannedArray):
            strides = [argument.dtype.itemsize * prod(argument.shape[axis + 1 :]) for axis in range(argument.ndim)]
            values += [0, 0, argument.size, argument.dtype.itemsize, (number + 1) << 40, *argument.shape, *strides]
        else:
            values.append(int(argument) % 2**32 if argument.dtype.kind in "iub" else 0)
    return values


# ---------------------------------------------------------------------------------------------- from PTX to Python


@cache
def program(ptx: str) -> Program:
    """Translate PTX."""
    head, body = ptx[ptx.index(".entry") :].split("{", 1)
    parameters = re.findall(r"\.param\s.*?(\w+_param_\d+)", head)
    basic_blocks: list[list[tuple[str, str, str, list[str]]]] = [[]]
    labels: dict[str, int] = {}
    for line in body.splitlines():
        if label := re.match(r"(\$\w+):", line):
            if basic_blocks[-1]:
                basic_blocks.append([])
            labels[label[1]] = len(basic_blocks) - 1
        elif (found := _LINE.match(line)) and not found[3].startswith("."):
            basic_blocks[-1].append((found[1] or "", found[2] or "", found[3], _operands(found[4])))
            if found[3].split(".")[0] in ("bra", "ret", "exit"):
                basic_blocks.append([])
    registers: dict[str, int] = {}

    def value(operand: str) -> str:
        if operand.startswith("%f"):
            return "0"
        if operand.startswith("%") or operand in parameters:
            return f"r[{registers.setdefault(operand, len(registers))}]"
        return operand if re.fullmatch(r"-?\d+", operand) else "0"  # a symbol's address

    steps, counts = [], []
    for number, basic_block in enumerate(basic_blocks):
        following = number + 1 if number + 1 < len(basic_blocks) else -1
        lines = [_statement(*instruction, value, labels) for instruction in basic_block]
        names: dict[str, Any] = {"signed": _signed, "quotient": _quotient, "permuted": _permuted}
        exec("def step(r):\n " + "\n ".join([*filter(None, lines), f"return {following}"]), names)
        steps.append(names["step"])
        counts.append(_counted(basic_block))
    return Program(steps, counts, registers, parameters)


def _operands(text: str) -> list[str]:
    if text.startswith("{"):
        raise NotImplementedError(f"two results of {text}")
    return [part.strip("[]{} ") for part in text.split(",")]


def _signed(value: int, bits: int) -> int:
    half = 1 << (bits - 1)
    return ((value & (2 * half - 1)) ^ half) - half


def _quotient(a: int, b: int) -> int:
    """Divide and round towards zero, as in C; b = 0 gives 0."""
    return 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _permuted(a: int, b: int, selector: int) -> int:
    """Pick four bytes of two numbers, or the signs of bytes, one for each digit of the selector."""
    found = 0
    for place in range(4):
        digit = selector >> 4 * place & 15
        byte = (b << 32 | a) >> 8 * (digit & 7) & 255
        found |= (byte if digit < 8 else 255 * (byte >> 7)) << 8 * place
    return found


def _statement(
    negated: str, predicate: str, operation: str, operands: list[str], value: Any, labels: dict[str, int]
) -> str:
    """Translate an instruction into a line of Python; empty where it doesn't matter for the control flow."""
    name, *words = operation.split(".")
    if name in ("bra", "ret", "exit"):
        done = f"return {labels[operands[0]] if name == 'bra' else -1}"
    elif name in ("st", "bar", "barrier", "membar", "fence") or operands[0].startswith("%f"):
        return ""
    else:
        result = _expression(name, words, [value(operand) for operand in operands[1:]], operands[1:])
        done = f"{value(operands[0])} = {result}"
    if predicate:
        done = f"if {'not ' if negated else ''}{value(predicate)}: {done}"
    return done


def _expression(name: str, words: list[str], a: list[str], operands: list[str]) -> str:
    kind = words[-1]
    bits = 1 if kind == "pred" else int(kind[1:])
    mask = hex((1 << bits) - 1)
    read = [f"signed({x}, {bits})" if kind[0] == "s" else f"({x} & {mask})" for x in a]
    if name == "ld":
        return a[0] if words[0] == "param" else "0"
    if kind[0] == "f":  # of floats
        return str(int(words[0] in _ZEROS_COMPARE)) if name == "setp" else "0"
    if name == "mov" and len(a) == 2:  # side by side
        return f"({a[0]} & {hex((1 << bits // 2) - 1)} | {a[1]} << {bits // 2}) & {mask}"
    if name in ("mov", "cvta"):
        return read[0]
    if name == "cvt":  # cvt.to.from, maybe with a rounding before
        return f"{read[0]} & {hex((1 << int(words[-2][1:])) - 1)}"
    if name == "setp":
        return f"{read[0]} {_COMPARE[words[0]]} {read[1]}" if len(words) == 2 else _unknown(name, words)
    if name == "selp":
        return f"{read[0]} & {mask} if {a[2]} else {read[1]} & {mask}"
    if name == "mul" and words[0] == "wide":
        return f"{read[0]} * {read[1]} & {hex((1 << 2 * bits) - 1)}"
    if name == "mul" and words[0] == "hi":
        return f"({read[0]} * {read[1]} >> {bits}) & {mask}"
    if name == "mad" and words[0] in ("lo", "wide"):
        wide = bits * 2 if words[0] == "wide" else bits
        return f"{read[0]} * {read[1]} + {a[2]} & {hex((1 << wide) - 1)}"
    if name in _ARITHMETIC:
        return f"({read[0]} {_ARITHMETIC[name]} {read[1]}) & {mask}"
    if name == "shl":
        return f"({read[0]} << min({a[1]}, 64)) & {mask}"
    if name == "shr":
        return f"({read[0]} >> min({a[1]}, 64)) & {mask}"
    if name == "bfi":  # the lowest bits of one number into another
        return f"({read[1]} & ~(((1 << {a[3]}) - 1) << {a[2]}) | ({read[0]} & ((1 << {a[3]}) - 1)) << {a[2]}) & {mask}"
    if name == "bfe":
        return (
            f"signed({a[0]} >> {a[1]}, {a[2]}) & {mask}"
            if kind[0] == "s"
            else f"({read[0]} >> {a[1]}) & ((1 << {a[2]}) - 1)"
        )
    if name == "shf":  # two numbers side by side, shifted by up to their width
        double, by = f"({read[1]} << 32 | {read[0]})", f"({a[2]} & 31)"
        return f"({double} << {by} >> 32) & {mask}" if words[0] == "l" else f"({double} >> {by}) & {mask}"
    if name == "prmt" and not words[:-1]:
        return f"permuted({read[0]}, {read[1]}, {a[2]})"
    if name == "dp2a" and words == ["lo", "u32", "u32"]:  # halves times bytes
        low, high = f"({a[0]} & 65535) * ({a[1]} & 255)", f"({a[0]} >> 16) * ({a[1]} >> 8 & 255)"
        return f"({low} + {high} + {a[2]}) & {mask}"
    if name in ("not", "neg"):
        return f"{'~' if name == 'not' else '-'}{read[0]} & {mask}"
    if name in ("min", "max"):
        return f"{name}({read[0]}, {read[1]}) & {mask}"
    if name in ("div", "rem"):
        quotient = f"quotient({read[0]}, {read[1]})"
        return f"{quotient if name == 'div' else f'{read[0]} - {quotient} * {read[1]}'} & {mask}"
    return _unknown(name, words)


def _unknown(name: str, words: list[str]) -> str:
    raise NotImplementedError(f"{'.'.join([name, *words])} of PTX")


def _counted(basic_block: list[tuple[str, str, str, list[str]]]) -> Counts:
    total = Counts()
    for _, _, operation, _ in basic_block:
        name, *words = operation.split(".")
        kind = words[-1] if words else ""
        is_integer = bool(re.fullmatch(r"pred|[sub]\d+", kind))
        default = (4 if name == "mul" and words[0] == "lo" else 2) if is_integer and kind.endswith("64") else 1
        slots = next((count for start, count in SLOTS.items() if f"{operation}.".startswith(f"{start}.")), default)
        if name in ("ld", "st") and words[0] != "param":
            width = int(kind[1:]) // 8 * next((int(word[1]) for word in words if word in ("v2", "v4")), 1)
            slots, in_global = 1, "global" in words
            total.memory += max(1, width // 4)
            total.global_bytes += 32 * width if in_global else 0
            total.global_waits = max(total.global_waits, float(name == "ld" and in_global))
            total.shared_waits = max(total.shared_waits, float(name == "ld" and not in_global))
        elif "approx" in words or (name == "cvt" and "f32" in words and words[-2:] != ["f32", "f32"]):
            total.special += 1
        elif is_integer:
            total.integers += slots
        total.multiply_adds += name == "fma"
        total.slots += slots
    return total
