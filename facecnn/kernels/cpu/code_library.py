"""Machine code for what Python calls, and for nothing else.

Numba optimises every function and translates it into machine code on its own, then once more within each function that
calls it, where it is inlined. So a kernel's innermost code may be translated several times, and only one of the copies
is ever run. Here optimising and translating wait until somebody asks for the address of the code: the compiled code is
the same, and takes about half the time.

These are Numba's own classes, with as little changed as possible (numba.core.codegen of 0.68, which ``pyproject.toml``
pins).
"""

from __future__ import annotations

from functools import cache, partial
from secrets import randbits
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from numba.core import bytecode, caching, codegen, environment
from numba.core.runtime import _nrt_python  # type: ignore[attr-defined]

_helpers: Any = _nrt_python.c_helpers
_FunctionCache: Any = caching.FunctionCache
_CompileResultCacheImpl: Any = caching.CompileResultCacheImpl
_Library: Any = codegen.JITCodeLibrary
_Codegen: Any = codegen.JITCPUCodegen
_FunctionIdentity: Any = bytecode.FunctionIdentity
_environment: Any = environment

_UNPARSED = "object, unparsed"
"""A kind of what is kept on the disk, beside Numba's own two."""


class _Empty(NamedTuple):
    """An environment without constants, of a function that is compiled into others. Nothing reads it, but Numba would
    import its module, such as that of all array functions."""

    module: str
    name: str

    def made(self) -> Any:
        known = _environment.lookup_environment(self.name)
        if known is not None:
            return known
        made = _environment.Environment({"__name__": self.module})
        made.env_name = self.name
        _environment.Environment._memo[self.name] = made
        return made


class _Kept(_CompileResultCacheImpl):  # type: ignore[misc]
    """What is kept of a function: also the names that its LLVM code defines, for which Numba would parse that again."""

    def reduce(self, compiled: Any) -> Any:
        (name, _, (code, bitcode)), *others, environments = super().reduce(compiled)
        module = compiled.library._get_module_for_linking()
        defined = [one.name for one in (*module.functions, *module.global_variables) if not one.is_declaration]
        short = tuple(one if one.consts else _Empty(one.globals["__name__"], one.env_name) for one in environments)
        return (name, _UNPARSED, (code, bitcode, defined)), *others, short

    def rebuild(self, target: Any, kept: Any) -> Any:
        *others, environments = kept
        whole = tuple(one.made() if isinstance(one, _Empty) else one for one in environments)
        return super().rebuild(target, (*others, whole))


class CodeCache(_FunctionCache):  # type: ignore[misc]
    """Code that is kept on the disk, to be loaded without all that only a compilation needs: Numba would import 200
    modules first, some of NumPy's and SciPy's among them, which take a quarter of a second and 30 MB."""

    _impl_class = _Kept

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The function for these types; None where it isn't kept."""
        _add_helpers()
        with self._guard_against_spurious_io_errors():
            return self._load_overload(signature, target)


@cache
def _add_helpers() -> None:
    """Let code find Numba's functions that it calls, written in C. Numba would compile those around them, too, of which
    kept code has its own."""
    for name, address in _helpers.items():
        llvm.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


class LazyLibrary(_Library):  # type: ignore[misc]
    """The code of one function and of all that it calls, which is translated when its address is asked for."""

    _is_waiting = False
    """Whether all is linked, but not yet optimised and translated."""
    _bitcode: bytes | None = None
    """The LLVM code, for functions that call these, of a library that was read from the disk. It takes up a megabyte or
    two once it is parsed, and hardly anything needs it."""

    def finalize(self) -> None:
        """Link what was added; nothing can be added from now on."""
        self._codegen._check_llvm_bugs()
        self._raise_if_finalized()
        for library in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalize_dynamic_globals()
        self._finalized = self._is_waiting = True

    def get_pointer_to_function(self, name: str) -> int:
        """The function's address, 0 if this isn't one of its functions."""
        self._ensure_finalized()
        if self._is_waiting:
            if not self._defines(name):
                return 0
            self._translate()
        return int(super().get_pointer_to_function(name))

    def serialize_using_object_code(self) -> Any:
        """What is kept on the disk."""
        self._ensure_finalized()
        if self._is_waiting:
            self._translate()
        return super().serialize_using_object_code()

    @classmethod
    def _unserialize(cls, codegen: Any, state: Any) -> Any:
        name, kind, data = state
        if kind != _UNPARSED:
            return super()._unserialize(codegen, state)
        code, bitcode, defined = data
        library = codegen.create_library(name)
        library._bitcode = bitcode
        library.enable_object_caching()
        library._set_compiled_object(code)
        library._finalize_final_module()
        codegen._engine._defined_symbols.update(defined)
        return library

    def _get_module_for_linking(self) -> Any:
        if self._bitcode is not None:
            self._shared_module, self._bitcode = llvm.parse_bitcode(self._bitcode), None
        return super()._get_module_for_linking()

    def _defines(self, name: str) -> bool:
        try:
            return not self._final_module.get_function(name).is_declaration
        except NameError:
            return False

    def _translate(self) -> None:
        self._is_waiting = False
        self._dynamic_globals.clear()  # found anew, among what is left when it is optimised
        self._optimize_final_module()
        self._final_module.verify()
        self._finalize_final_module()


_set_env = _Codegen.set_env


def _set_env_of_translated(self: Any, env_name: str, env: Any) -> None:
    """Tell a function where its environment is (constants and modules, for what only Python can do), if it has been
    translated."""
    if self._engine.is_symbol_defined(env_name):
        _set_env(self, env_name, env)


def install() -> None:
    """Have all that Numba compiles for the CPU in this process translated lazily from now on, under names of its own.

    Numba tells versions of a function, which differ in their closures, apart by a number in the name of their machine
    code. It counts them, so that different versions that two processes compile and keep may get the same number, and a
    process that loads both would find the first one under the name of the second, and run it. Here the numbers are
    drawn, also in a process that was forked.
    """
    _Codegen._library_class = LazyLibrary
    _Codegen.set_env = _set_env_of_translated
    _FunctionIdentity._unique_ids = iter(partial(randbits, 62), None)
