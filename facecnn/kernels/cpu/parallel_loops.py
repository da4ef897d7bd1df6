"""Loops over ``prange``, run on all threads: each becomes a function of its own, which the threads call.

Numba has a way for that, too (``parallel=True``). It looks for more than such loops, types and lowers a loop's body as
part of the kernel and then again as a function, and wraps that as a generalised ufunc, so that a kernel takes about
twice as long to compile. Here a loop is cut out of the kernel before types are inferred, and compiled once. The threads
are Numba's, and so is the code that they run.

What a loop computes is what it writes to arrays, and it ends only at its end: no ``break``, no sum over its turns.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import numba
from llvmlite import ir as llvm
from numba import prange
from numba.core import compiler_machinery
from numba.extending import intrinsic
from numba.np.ufunc import parallel

core: Any = numba.core  # which has few types, as have the next three
_FunctionPass: Any = compiler_machinery.FunctionPass
_register_pass: Any = compiler_machinery.register_pass
_launch_threads: Any = vars(parallel)["_launch_threads"]
_INDEX, _BYTES = llvm.IntType(64), llvm.IntType(8).as_pointer()
_TURNS = llvm.FunctionType(llvm.VoidType(), [_BYTES.as_pointer(), _INDEX.as_pointer(), _INDEX.as_pointer(), _BYTES])
"""What a thread calls, as a ufunc: pointers, sizes, steps, data. There is one pointer, which is the number of the first
share to be worked on, and one size, how many shares that is."""


class Compiler(core.compiler.CompilerBase):  # type: ignore[misc]
    """Numba's, for kernels with parallel loops."""

    def define_pipelines(self) -> list[Any]:
        passes = core.compiler.DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.add_pass_after(_CutOut, core.untyped_passes.InlineInlinables)
        passes.finalize()
        return [passes]


class _BodyCompiler(core.compiler.CompilerBase):  # type: ignore[misc]
    def define_pipelines(self) -> list[Any]:
        passes = core.compiler.DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.add_pass_after(_FindAliases, core.typed_passes.NopythonTypeInference)
        passes.finalize()
        return [passes]


# ------------------------------------------------------------------------------------------------ cutting a loop out


class _Loop(NamedTuple):
    """A loop over prange in a kernel, by the labels of its blocks of code."""

    entry: int
    """Ends with the beginning of the loop."""
    begin: int
    """Where in the entry block the loop's iterator is made."""
    count: Any
    """The variable with the number of turns."""
    body: set[int]
    exit: int
    """Follows the loop."""


@_register_pass(mutates_CFG=True, analysis_only=False)
class _CutOut(_FunctionPass):  # type: ignore[misc]
    """Puts a call in the place of each parallel loop."""

    _name = "cut_out_parallel_loops"

    def __init__(self) -> None:
        _FunctionPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        loop = _find_loop(state.func_ir)
        assert loop is not None, f"{state.func_id.func_qualname} has no parallel loop"
        while loop is not None:
            _cut_out(state, loop)
            loop = _find_loop(state.func_ir)
        state.reload_init.append(
            core.typed_passes._reload_parfors
        )  # starts the threads, when the code is read from disk
        return True


def _find_loop(function: Any) -> _Loop | None:
    """One of the function's loops over prange."""
    for loop in core.analysis.compute_cfg_from_blocks(function.blocks).loops().values():
        for label in loop.entries:
            statements = function.blocks[label].body
            made: dict[str, Any] = {s.target.name: s.value for s in statements if isinstance(s, core.ir.Assign)}
            for place, statement in enumerate(statements):
                if isinstance(statement, core.ir.Assign) and getattr(statement.value, "op", None) == "getiter":
                    call: Any = made.get(statement.value.value.name)
                    if getattr(call, "op", None) == "call" and _is_prange(made.get(call.func.name)):
                        [count], [leave] = call.args, loop.exits
                        return _Loop(label, place, count, set(loop.body), leave)
    return None


def _is_prange(value: Any) -> bool:
    return isinstance(value, core.ir.Global | core.ir.FreeVar) and value.value is prange


def _cut_out(state: Any, loop: _Loop) -> None:
    """Make the loop a function ``body(first, last, *inputs)``, over ``range(first, last)`` in place of ``prange``. The
    kernel calls ``run(count, *inputs)`` instead: see ``_runner``."""
    function = state.func_ir
    entry = function.blocks[loop.entry]
    scope, loc = entry.scope, entry.body[loop.begin].loc
    begins = core.ir.Block(scope, loc)
    first, last, kind, turns = (scope.redefine(f"$loop_{name}", loc) for name in ("first", "last", "kind", "turns"))
    begins.append(core.ir.Assign(core.ir.Global("range", range, loc), kind, loc))
    begins.append(core.ir.Assign(core.ir.Expr.call(kind, (first, last), (), loc), turns, loc))
    iterator = entry.body[loop.begin].target
    begins.append(core.ir.Assign(core.ir.Expr.getiter(turns, loc), iterator, loc))
    for statement in entry.body[loop.begin + 1 :]:
        begins.append(statement)
    blocks = {label: function.blocks.pop(label) for label in loop.body} | {loop.entry: begins}
    inputs = sorted(_live(blocks)[loop.entry] - {first.name, last.name})
    written = set().union(*core.analysis.compute_use_defs(blocks).defmap.values())
    after = {label: block for label, block in function.blocks.items() if label != loop.entry}
    assert not written & _live(after)[loop.exit], f"{loc}: a parallel loop's variables are used after it"

    # A first block that reads the arguments, and a last one that returns nothing.
    prologue = core.ir.Block(scope, loc)
    arguments = [first, last, *(scope.get_exact(name) for name in inputs)]
    for number, variable in enumerate(arguments):
        prologue.append(core.ir.Assign(core.ir.Arg(variable.name, number, loc), variable, loc))
    prologue.append(core.ir.Jump(loop.entry, loc))
    blocks[min(blocks) - 1] = prologue
    blocks[loop.exit] = core.ir.Block(scope, loc)
    nothing, result = scope.redefine("$loop_nothing", loc), scope.redefine("$loop_result", loc)
    blocks[loop.exit].append(core.ir.Assign(core.ir.Const(None, loc), nothing, loc))
    blocks[loop.exit].append(core.ir.Assign(core.ir.Expr.cast(nothing, loc), result, loc))
    blocks[loop.exit].append(core.ir.Return(result, loc))
    names = tuple(variable.name for variable in arguments)
    body = function.derive(blocks, arg_count=len(names), arg_names=names, loc=loc)

    run, done = scope.redefine("$loop_run", loc), scope.redefine("$loop_done", loc)
    runner = _runner(body, state.flags, len(inputs))
    state.typingctx.refresh()  # to be found there
    call = core.ir.Expr.call(run, (loop.count, *arguments[2:]), (), loc)
    entry.body = entry.body[: loop.begin]
    entry.append(core.ir.Assign(core.ir.Global(run.name, runner, loc), run, loc))
    entry.append(core.ir.Assign(call, done, loc))
    entry.append(core.ir.Jump(loop.exit, loc))
    function._reset_analysis_variables()
    function._definitions = core.ir_utils.build_definitions(function.blocks)


def _live(blocks: dict[int, Any]) -> dict[int, set[str]]:
    """The variables that are read in each block, or behind it, before they are written."""
    used = core.analysis.compute_use_defs(blocks)
    live = {label: set(used.usemap[label]) for label in blocks}
    changes = True
    while changes:
        changes = False
        for label, block in blocks.items():
            behind = [live[target] for target in block.terminator.get_targets() if target in live]
            found = live[label].union(*behind) - (used.defmap[label] - used.usemap[label])
            changes |= found != live[label]
            live[label] = found
    return live


# ------------------------------------------------------------------------------------------------------- running it


@_register_pass(mutates_CFG=False, analysis_only=True)
class _FindAliases(_FunctionPass):  # type: ignore[misc]
    """Lets LLVM know that arrays don't overlap, where the loop makes no array out of others; as Numba does."""

    _name = "find_aliases"

    def __init__(self) -> None:
        _FunctionPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        aliases, _ = core.ir_utils.find_potential_aliases(
            state.func_ir.blocks, (), state.typemap, state.func_ir, {}, set()
        )
        state.flags.noalias = not aliases
        return False


def _runner(body: Any, flags: Any, inputs: int) -> Any:
    """A function, for compiled code: run(count, *inputs) calls body(first, last, *inputs) on each thread for its share
    of ``count`` turns."""

    def run(typing: Any, count: Any, *values: Any) -> Any:
        kinds = tuple(map(core.types.unliteral, values))
        signature = core.types.none(core.types.intp, *kinds)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            compiled = _compile(typing, context, body, flags, (core.types.intp, core.types.intp, *kinds))
            _run_on_threads(context, builder, compiled, arguments)
            return context.get_dummy_value()

        return signature, generate

    parameters = ["typing", "count", *(f"value{number}" for number in range(inputs))]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    vars(run)["__signature__"] = inspect.Signature([inspect.Parameter(name, kind) for name in parameters])
    return intrinsic(run)


def _compile(typing: Any, context: Any, body: Any, flags: Any, kinds: tuple[Any, ...]) -> Any:
    flags = flags.copy()
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.release_gil = False
    return core.compiler.compile_ir(
        typing, context, body, kinds, core.types.none, flags, {}, pipeline_class=_BodyCompiler
    )


def _run_on_threads(context: Any, builder: Any, compiled: Any, arguments: Any) -> None:
    """Write what runs the compiled body of a loop: arguments are the number of turns, and the body's inputs."""
    _launch_threads()  # its functions can be found from then on
    context.add_linking_libs([compiled.library])
    module, count = builder.module, arguments[0]
    get_threads = core.cgutils.get_or_insert_function(module, llvm.FunctionType(_INDEX, []), "get_num_threads")
    threads = builder.call(get_threads, [])
    shares = builder.select(builder.icmp_signed("<", count, threads), count, threads)
    data = core.cgutils.alloca_once_value(builder, core.cgutils.pack_struct(builder, [shares, *arguments]))
    function = _share_runner(context, module, compiled, data.type)

    first_share = core.cgutils.alloca_once_value(builder, _BYTES(None))
    size, step = core.cgutils.alloca_once_value(builder, shares), core.cgutils.alloca_once_value(builder, _INDEX(1))
    run = core.cgutils.get_or_insert_function(
        module, llvm.FunctionType(llvm.VoidType(), [_BYTES] * 5 + [_INDEX] * 3), "numba_parallel_for"
    )
    pointers = [builder.bitcast(pointer, _BYTES) for pointer in (function, first_share, size, step, data)]
    builder.call(run, [*pointers, _INDEX(0), _INDEX(1), threads])


def _share_runner(context: Any, module: Any, compiled: Any, data_type: Any) -> Any:
    """The function that threads call: the loop's body for some of the shares."""
    function = llvm.Function(module, _TURNS, module.get_unique_name(f"shares_of_{compiled.fndesc.unique_name}"))
    function.linkage = "internal"
    builder = llvm.IRBuilder(function.append_basic_block())
    pointers, sizes, _, data = function.args
    begin = builder.ptrtoint(builder.load(pointers), _INDEX)
    end = builder.add(begin, builder.load(sizes))
    shares, count, *inputs = core.cgutils.unpack_tuple(builder, builder.load(builder.bitcast(data, data_type)))
    kinds = compiled.signature.args
    inputs = [_borrowed(context, builder, kind, value) for kind, value in zip(kinds[2:], inputs, strict=True)]
    first, last = (builder.sdiv(builder.mul(count, share), shares) for share in (begin, end))
    context.call_internal_no_propagate(builder, compiled.fndesc, compiled.signature, [first, last, *inputs])
    builder.ret_void()
    return function


def _borrowed(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Arrays without what counts the references to them: the kernel holds them meanwhile."""
    if isinstance(kind, core.types.BaseTuple):
        values = core.cgutils.unpack_tuple(builder, value)
        members = [_borrowed(context, builder, *pair) for pair in zip(kind.types, values, strict=True)]
        return context.make_tuple(builder, kind, members)
    if not isinstance(kind, core.types.Array):
        return value
    array = context.make_array(kind)(context, builder, value)
    array.meminfo, array.parent = array.meminfo.type(None), array.parent.type(None)
    return array._getvalue()
