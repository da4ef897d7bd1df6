"""Innermost loops written as vector instructions, where the compiler doesn't vectorise them well.

LLVM's vectoriser doesn't see that a convolution's sums could stay in registers, or which arrays can't overlap. So these
loops are written in LLVM's own language, vector by vector, in functions that Numba calls like any other
(``numba.extending.intrinsic``). An ``Emitter`` appends one operation after another at its ``builder``'s position.

Vectors hold float32. Offsets count elements. ``lanes`` is the length of a vector; with a ``count``, only its first
``count`` elements are read or written.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache, wraps
from itertools import zip_longest
from math import nan
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, extending

_Intrinsic: Any = extending._Intrinsic
_FLOAT, _BYTE, _INT = ir.FloatType(), ir.IntType(8), ir.IntType(32)
_INDEX = ir.IntType(64)
_ALIGNMENT = {_FLOAT: 4, _BYTE: 1, _INT: 4, ir.DoubleType(): 8}


class Pointer:
    """Annotates an argument of an emitted function: LLVM's pointer to an element, of a contiguous array. Callers of
    the function pass the array and the element's place, an int."""


def emitted(factory: Callable[..., Callable[..., None]]) -> Any:
    """Decorator of a factory: what it is given are sizes, and what it returns emits code for them.

    ``emit(e, *arguments)``, which the factory returns, becomes a function of ``arguments`` for compiled code, one for
    each set of sizes: a ``Pointer``, or LLVM's value of a number.
    """

    @cache
    @wraps(factory)
    def of_sizes(*sizes: Any) -> Any:
        return _Emitted(_Definition(factory, sizes), of_sizes, sizes)

    return of_sizes


class _Emitted(_Intrinsic):  # type: ignore[misc]
    """A function for compiled code (``numba.extending.intrinsic``), which is pickled as its factory and sizes. Numba
    would give it a random number, and compile a kernel that has it in its closure again in each process."""

    def __init__(self, definition: Any, of_sizes: Any, sizes: tuple[Any, ...]) -> None:
        super().__init__(of_sizes.__name__, definition)
        self._made_by = of_sizes, sizes
        self._register()

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self._made_by


class _Definition:
    """What Numba asks for an emitted function's parameters and code, where it compiles a call."""

    def __init__(self, factory: Callable[..., Callable[..., None]], sizes: tuple[Any, ...]) -> None:
        self._factory, self._sizes = factory, sizes

    @property
    def __signature__(self) -> inspect.Signature:
        parameters = []
        for parameter in inspect.signature(self._factory(*self._sizes), eval_str=True).parameters.values():
            parameters.append(parameter)
            if parameter.annotation is Pointer:
                parameters.append(parameter.replace(name=f"{parameter.name}_place"))
        return inspect.Signature(parameters)

    def __call__(self, typing: Any, *kinds: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values, following = [], iter(zip(signature.args, arguments, strict=True))
            e = Emitter(builder)
            for kind, value in following:
                if isinstance(kind, types.Array):
                    _, place = next(following)
                    value = e.moved(context.make_array(kind)(context, builder, value).data, place)
                values.append(value)
            self._factory(*self._sizes)(e, *values)
            return context.get_dummy_value()

        return types.void(*kinds), generate


def index(value: int) -> ir.Constant:
    """A constant of the type of offsets and loop counters."""
    return ir.Constant(_INDEX, value)


class Emitter:
    """LLVM's builder (``ir.IRBuilder``), with operations on vectors; values are LLVM's (``ir.Value``)."""

    int32 = _INT

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def __getattr__(self, name: str) -> Any:
        """What the builder does: ``mul`` and ``add`` of integers, ``fmul``, ``fadd`` and ``fsub`` of floats ..."""
        return getattr(self.builder, name)

    def moved(self, pointer: Any, offset: Any) -> Any:
        """The pointer, moved by ``offset`` elements (an int or an index)."""
        return self.gep(pointer, [index(offset) if isinstance(offset, int) else offset])

    # ----------------------------------------------------------------------------------------------------- memory

    def scalar(self, pointer: Any, offset: Any = 0) -> Any:
        """The element at ``offset``."""
        return self.builder.load(self.moved(pointer, offset))

    def as_index(self, integer: Any) -> Any:
        """A signed integer from memory, as an index."""
        return self.sext(integer, _INDEX)

    def load(self, pointer: Any, offset: int, lanes: int, count: int | None = None) -> Any:
        """Consecutive floats, with a ``count`` zeros after that many; or consecutive bytes, as floats."""
        kind = ir.VectorType(_FLOAT, lanes)
        if pointer.type.pointee == _BYTE:
            place = self.bitcast(self.moved(pointer, offset), ir.VectorType(_BYTE, lanes).as_pointer())
            integers = self.zext(self.builder.load(place, align=1), ir.VectorType(_INT, lanes))
            return self.sitofp(integers, kind)  # they are not negative either way
        place = self.bitcast(self.moved(pointer, offset), kind.as_pointer())
        if count is None or count == lanes:
            return self.builder.load(place, align=_ALIGNMENT[_FLOAT])
        function = self._intrinsic(
            f"llvm.masked.load.v{lanes}f32.p0", kind, [place.type, _INT, _mask(lanes, 0).type, kind]
        )
        alignment = ir.Constant(_INT, _ALIGNMENT[_FLOAT])
        return self.call(function, [place, alignment, _mask(lanes, count), self.constant(0.0, lanes)])

    def prefetch(self, pointer: Any, offset: int, *, to_write: bool = False) -> None:
        """Prefetch the element's cache line into the second-level cache, since the first level's content is in use."""
        place = self.bitcast(self.moved(pointer, offset), _BYTE.as_pointer())
        function = self._intrinsic("llvm.prefetch.p0", ir.VoidType(), [place.type, _INT, _INT, _INT])
        use, keep, data = (ir.Constant(_INT, value) for value in (int(to_write), 2, 1))
        self.call(function, [place, use, keep, data])

    def store(self, vector: Any, pointer: Any, offset: int = 0, count: int | None = None) -> None:
        """Write the vector's elements, or the first ``count`` of them."""
        kind = vector.type
        lanes = kind.count
        place = self.bitcast(self.moved(pointer, offset), kind.as_pointer())
        if count is None or count == lanes:
            self.builder.store(vector, place, align=_ALIGNMENT[kind.element])
            return
        name = "f32" if kind.element == _FLOAT else f"i{kind.element.width}"
        function = self._intrinsic(
            f"llvm.masked.store.v{lanes}{name}.p0", ir.VoidType(), [kind, place.type, _INT, _mask(lanes, 0).type]
        )
        alignment = ir.Constant(_INT, _ALIGNMENT[kind.element])
        self.call(function, [vector, place, alignment, _mask(lanes, count)])

    def keep_apart(self) -> None:
        """A compiler barrier: nothing read before it is reused after it. Otherwise LLVM shares loads between
        overlapping windows, runs out of registers, and spills sums to the stack."""
        self.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], True)

    # ------------------------------------------------------------------------------------------------- arithmetic

    def constant(self, value: float, lanes: int) -> Any:
        """A vector of equal floats."""
        return ir.Constant(ir.VectorType(_FLOAT, lanes), [value] * lanes)

    def integers(self, value: int, lanes: int) -> Any:
        """A vector of equal 32-bit integers."""
        return ir.Constant(ir.VectorType(_INT, lanes), [value] * lanes)

    def broadcast(self, scalar: Any, lanes: int) -> Any:
        """A vector with all lanes equal to a float or integer."""
        vector = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
        return self.shuffle(self.insert_element(vector, scalar, ir.Constant(_INT, 0)), [0] * lanes)

    def shuffle(self, vector: Any, places: Sequence[int], second: Any = None) -> Any:
        """The elements at these places of a vector, or of two concatenated ones."""
        mask = ir.Constant(ir.VectorType(_INT, len(places)), list(places))
        other = ir.Constant(vector.type, ir.Undefined) if second is None else second
        return self.shuffle_vector(vector, other, mask)

    def gather(self, vectors: Sequence[Any], places: Sequence[int]) -> Any:
        """The elements at these places of several concatenated vectors, as one vector. A place beyond them means the
        last element."""
        lanes = vectors[0].type.count
        places = [min(place, lanes * len(vectors) - 1) for place in places]
        found = None
        for number, vector in enumerate(vectors):
            own = [lane for lane, place in enumerate(places) if place // lanes == number]
            if own and found is None:
                found = self.shuffle(vector, [place % lanes for place in places])
            elif own:
                found = self.shuffle(
                    found, [lanes + place % lanes if lane in own else lane for lane, place in enumerate(places)], vector
                )
        return found

    def add_pairs(self, a: Any, b: Any) -> Any:
        """a[0] + a[1], a[2] + a[3], ... b[0] + b[1], ..."""
        places = range(0, 2 * a.type.count, 2)
        return self.fadd(self.shuffle(a, places, b), self.shuffle(a, [place + 1 for place in places], b))

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, rounded once."""
        kind = a.type
        function = self._intrinsic(f"llvm.fma.v{kind.count}f32", kind, [kind] * 3)
        return self.call(function, [a, b, c])

    def to_doubles(self, vector: Any) -> Any:
        """A vector of floats as float64, which ``fadd`` and ``store`` (all of it) take."""
        return self.fpext(vector, ir.VectorType(ir.DoubleType(), vector.type.count))

    def no_doubles(self, lanes: int) -> Any:
        """A vector of zeros in float64."""
        return ir.Constant(ir.VectorType(ir.DoubleType(), lanes), [0.0] * lanes)

    def larger_or_nan(self, a: Any, b: Any) -> Any:
        """Where a > b, or a is NaN (and not where only b is)."""
        return self.or_(self.fcmp_ordered(">", a, b), self.fcmp_unordered("uno", a, a))

    def largest(self, vectors: Sequence[Any]) -> Any:
        """The largest element in each lane, or NaN where one of them is."""
        largest, unknown = vectors[0], None
        for vector in vectors[1:]:  # one instruction, which drops NaN if it comes first
            largest = self.select(self.fcmp_ordered(">", largest, vector), largest, vector)
        for pair in zip_longest(vectors[::2], vectors[1::2], fillvalue=vectors[0]):
            found = self.fcmp_unordered("uno", *pair)
            unknown = found if unknown is None else self.or_(unknown, found)
        return self.select(unknown, self.constant(nan, largest.type.count), largest)

    def to_bytes(self, integers: Any) -> Any:
        """A vector of 32-bit integers as bytes."""
        return self.trunc(integers, ir.VectorType(_BYTE, integers.type.count))

    # ------------------------------------------------------------------------------------------------------ loops

    def loop(
        self, stop: Any, step: Any, carried: Sequence[Any], body: Callable[[Any, list[Any]], Sequence[Any]],
        start: Any = 0,
    ) -> list[Any]:  # fmt: skip
        """for i = start, start + step ... below stop: carried = body(i, carried). Returns the last ``carried``, which
        stay in registers as far as there are enough."""
        start, stop, step = (index(value) if isinstance(value, int) else value for value in (start, stop, step))
        builder, before = self.builder, self.block
        head, inside, after = (builder.append_basic_block(name) for name in ("loop", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(_INDEX)
        i.add_incoming(start, before)
        values = [builder.phi(value.type) for value in carried]
        for value, first in zip(values, carried, strict=True):
            value.add_incoming(first, before)
        builder.cbranch(builder.icmp_signed("<", i, stop), inside, after)
        builder.position_at_end(inside)
        following = body(i, list(values))
        i.add_incoming(builder.add(i, step), builder.block)
        for value, next_one in zip(values, following, strict=True):
            value.add_incoming(next_one, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return list(values)

    def cover(self, count: Any, lanes: int, body: Callable[[Any], None]) -> None:
        """body(first) for consecutive vectors, until ``count`` elements, at least ``lanes``, are covered. The last
        vector ends at the last element, so it may repeat some of the one before."""
        last = self.sub(count, index(lanes))

        def vector(first: Any, _: list[Any]) -> list[Any]:
            body(self.select(self.icmp_signed("<", first, last), first, last))
            return []

        self.loop(count, lanes, [], vector)

    def _intrinsic(self, name: str, result: Any, arguments: Sequence[Any]) -> Any:
        insert: Any = cgutils.get_or_insert_function
        return insert(self.module, ir.FunctionType(result, arguments), name)


def _mask(lanes: int, count: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(ir.IntType(1), lanes), [i < count for i in range(lanes)])
