"""Machine code for what Python calls, and for nothing else.

Numba optimises every function and translates it into machine code on its own, then once more within each function that
calls it, where it is inlined. So a kernel's innermost code may be translated several times, and only one of the copies
is ever run. Here optimising and translating wait until somebody asks for the address of the code: the compiled code is
the same, and takes about half the time.

These are Numba's own classes, with as little changed as possible (numba.core.codegen of 0.68, which ``pyproject.toml``
pins).
"""

from __future__ import annotations

from functools import partial
from secrets import randbits
from typing import Any

from numba.core import bytecode, codegen

_Library: Any = codegen.JITCodeLibrary
_Codegen: Any = codegen.JITCPUCodegen
_FunctionIdentity: Any = bytecode.FunctionIdentity


class LazyLibrary(_Library):  # type: ignore[misc]
    """The code of one function and of all that it calls, which is translated when its address is asked for."""

    _is_waiting = False
    """Whether all is linked, but not yet optimised and translated."""

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
        """The function's address, 0 if this is none of its functions."""
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
