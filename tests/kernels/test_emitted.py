"""What is emitted vector by vector keeps its place in the cache of compiled kernels."""

import subprocess
import sys

_PICKLED = """
import hashlib
from numba.core.serialize import dumps
from facecnn.kernels.cpu.vector_ir import micro_kernels, photo_kernels, product_kernels
from facecnn.kernels.cpu.vector_ir import winograd_gradient_kernels, winograd_kernels
found = [
    micro_kernels.convolve_row(micro_kernels.RowSizes(1, 8, 5, 5, 2, 8, 1, 1, 8, 2, False, 1)),
    micro_kernels.add_windows(1, 8, 5, 5, 2, 8),
    micro_kernels.spread_windows(1, 8, 5, 5, 3, 8),
    micro_kernels.sum_products(16, 8),
    photo_kernels.copy_run(8),
    photo_kernels.mix_squares(3, True, 8),
    product_kernels.multiply_tile(product_kernels.TileSizes(3, 8, 8, 8, 4, 8, False, 8)),
    winograd_kernels.transform_pixels(8, 4, 3, 8),
    winograd_gradient_kernels.add_points(1, 3, 2, 1, 2, 1, 8),
]
print(hashlib.sha256(b"".join(map(dumps, found))).hexdigest())
"""


def test_another_process_knows_a_kernel_by_the_same_closure() -> None:
    """Numba keys a compiled function by what is in its closure. A kernel with an emitted function in it would be
    compiled again in each process, if that had another identity there."""
    first, second = (
        subprocess.run([sys.executable, "-c", _PICKLED], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert first == second
