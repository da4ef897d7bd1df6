"""The arithmetic on an NVIDIA card: Numba CUDA kernels, float32, with sums in a fixed order.

The same functions as ``facecnn.kernels.reference``, signature by signature; for arrays from ``empty`` or ``to_device``.
Launches are asynchronous and run in order: only ``to_host`` and ``synchronise`` wait for them.
"""

from facecnn.kernels.cuda.add_maps import add_maps_backward, add_maps_forward
from facecnn.kernels.cuda.batch_norm import batch_norm_backward, batch_norm_forward, batch_norm_inference
from facecnn.kernels.cuda.conv import conv_backward_input, conv_forward
from facecnn.kernels.cuda.conv_strided import (
    strided_conv_backward_input,
    strided_conv_backward_weight,
    strided_conv_forward,
)
from facecnn.kernels.cuda.conv_weight import conv_backward_weight
from facecnn.kernels.cuda.dense import dense_backward_input, dense_backward_weight, dense_forward
from facecnn.kernels.cuda.elementwise import activation_backward, activation_forward
from facecnn.kernels.cuda.graph import on_host, record
from facecnn.kernels.cuda.holding_up import hold_up
from facecnn.kernels.cuda.loss import (
    add_to_totals,
    label_weight,
    mean_squared_error,
    one_hot,
    softmax_cross_entropy,
    take_batch,
)
from facecnn.kernels.cuda.memory import (
    PhotoStream,
    Workspace,
    copy_to_device,
    empty,
    mark,
    milliseconds,
    resident,
    synchronise,
    to_device,
    to_host,
)
from facecnn.kernels.cuda.neuron import neuron_backward_input, neuron_backward_weight, neuron_forward
from facecnn.kernels.cuda.pool import pool_backward, pool_forward
from facecnn.kernels.cuda.prelu import prelu_backward, prelu_forward
from facecnn.kernels.cuda.prepare import prepare_photos
from facecnn.kernels.cuda.random import draw_augmentation, dropout, random_words
from facecnn.kernels.cuda.unit_length import unit_length_backward, unit_length_forward
from facecnn.kernels.cuda.update import (
    accumulate,
    add_noise,
    average_update,
    clip_gradient,
    optimizer_update,
)
