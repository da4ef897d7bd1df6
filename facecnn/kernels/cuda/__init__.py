"""The arithmetic on an NVIDIA card: Numba CUDA kernels, float32, with sums in a fixed order.

The same functions as ``facecnn.kernels.reference``, signature by signature; for arrays from ``empty`` or ``to_device``.
Launches are asynchronous and run in order: only ``to_host`` and ``synchronise`` wait for them.
"""

from facecnn.kernels.cuda.add_maps import add_maps_backward, add_maps_forward
from facecnn.kernels.cuda.batch_norm import batch_norm_backward, batch_norm_forward, batch_norm_inference
from facecnn.kernels.cuda.conv import conv_backward_input, conv_backward_weight, conv_forward
from facecnn.kernels.cuda.conv_strided import (
    strided_conv_backward_input,
    strided_conv_backward_weight,
    strided_conv_forward,
)
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

__all__ = [
    "PhotoStream",
    "Workspace",
    "accumulate",
    "activation_backward",
    "activation_forward",
    "add_maps_backward",
    "add_maps_forward",
    "add_noise",
    "add_to_totals",
    "average_update",
    "batch_norm_backward",
    "batch_norm_forward",
    "batch_norm_inference",
    "clip_gradient",
    "conv_backward_input",
    "conv_backward_weight",
    "conv_forward",
    "copy_to_device",
    "dense_backward_input",
    "dense_backward_weight",
    "dense_forward",
    "draw_augmentation",
    "dropout",
    "empty",
    "hold_up",
    "label_weight",
    "mark",
    "mean_squared_error",
    "milliseconds",
    "neuron_backward_input",
    "neuron_backward_weight",
    "neuron_forward",
    "on_host",
    "one_hot",
    "optimizer_update",
    "pool_backward",
    "pool_forward",
    "prelu_backward",
    "prelu_forward",
    "prepare_photos",
    "random_words",
    "record",
    "resident",
    "softmax_cross_entropy",
    "strided_conv_backward_input",
    "strided_conv_backward_weight",
    "strided_conv_forward",
    "synchronise",
    "take_batch",
    "to_device",
    "to_host",
    "unit_length_backward",
    "unit_length_forward",
]
