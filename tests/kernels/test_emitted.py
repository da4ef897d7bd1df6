"""What is emitted vector by vector keeps its place in the cache of compiled kernels."""

import subprocess
import sys

_PICKLED = """
import hashlib
from numba.core.serialize import dumps
from facecnn.kernels.cpu.vector_ir import micro_kernels, photo_kernels, product_kernels
from facecnn.kernels.cpu.vector_ir import winograd_gradient_kernels, winograd_kernels
modules = micro_kernels, photo_kernels, product_kernels, winograd_gradient_kernels, winograd_kernels
found = {n: f for m in modules for n, f in vars(m).items() if type(f).__name__ == "_Intrinsic"}
print(len(found), hashlib.sha256(b"".join(dumps(found[name]) for name in sorted(found))).hexdigest())
"""


def test_another_process_knows_a_kernel_by_the_same_closure() -> None:
    """Numba keys a compiled function by what is in its closure. A kernel with an emitted function in it would be
    compiled again in each process, if that had another identity there."""
    first, second = (
        subprocess.run([sys.executable, "-c", _PICKLED], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert int(first.split()[0]) > 5
    assert first == second
