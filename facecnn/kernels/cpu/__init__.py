"""The arithmetic on the CPU: plain loops that Numba compiles, on all threads, with sums in a fixed order.

The same functions as ``facecnn.kernels.reference``, signature by signature; for float32, int32 and C-contiguous arrays
from ``empty`` or ``to_device``. Results don't depend on the number of threads: photos are worked on one by one, and
sums over photos are made in a fixed number of chunks that are added in order.
"""

from facecnn.kernels.cpu.add_maps import add_maps_backward, add_maps_forward
from facecnn.kernels.cpu.batch_norm import batch_norm_backward, batch_norm_forward, batch_norm_inference
from facecnn.kernels.cpu.conv import conv_backward_input, conv_backward_weight, conv_forward
from facecnn.kernels.cpu.conv.strided import (
    strided_conv_backward_input,
    strided_conv_backward_weight,
    strided_conv_forward,
)
from facecnn.kernels.cpu.dense import dense_backward_input, dense_backward_weight, dense_forward
from facecnn.kernels.cpu.elementwise import activation_backward, activation_forward
from facecnn.kernels.cpu.jit import set_threads
from facecnn.kernels.cpu.launching import on_host, record
from facecnn.kernels.cpu.loss import (
    add_to_totals,
    label_weight,
    mean_squared_error,
    one_hot,
    softmax_cross_entropy,
    take_batch,
)
from facecnn.kernels.cpu.memory import (
    Workspace,
    copy_to_device,
    empty,
    hold_up,
    mark,
    milliseconds,
    resident,
    synchronise,
    to_device,
    to_host,
)
from facecnn.kernels.cpu.neuron import neuron_backward_input, neuron_backward_weight, neuron_forward
from facecnn.kernels.cpu.pool import pool_backward, pool_forward
from facecnn.kernels.cpu.prelu import prelu_backward, prelu_forward
from facecnn.kernels.cpu.prepare import prepare_photos
from facecnn.kernels.cpu.random import draw_augmentation, dropout, random_words
from facecnn.kernels.cpu.unit_length import unit_length_backward, unit_length_forward
from facecnn.kernels.cpu.update import (
    accumulate,
    add_noise,
    average_update,
    clip_gradient,
    optimizer_update,
)
