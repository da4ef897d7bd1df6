"""The type of a backend: a module with the functions of ``facecnn.kernels.reference``, with the same signatures."""

# mypy wants the members of a protocol declared with their types; here they are the types of other functions.
# mypy: disable-error-code="misc"

from __future__ import annotations

from typing import Any, Protocol

from facecnn.kernels import reference


class Backend(Protocol):
    """What ``reference``, ``cpu`` and ``cuda`` have in common. Shapes and formulas: ``facecnn.kernels.reference``.

    A test compares the signatures, so that arguments may be passed by name to any backend.
    """

    Workspace: type[Any]
    """Scratch memory for one network and batch size."""

    empty = staticmethod(reference.empty)
    to_device = staticmethod(reference.to_device)
    to_host = staticmethod(reference.to_host)
    copy_to_device = staticmethod(reference.copy_to_device)
    resident = staticmethod(reference.resident)
    synchronise = staticmethod(reference.synchronise)
    record = staticmethod(reference.record)
    on_host = staticmethod(reference.on_host)
    mark = staticmethod(reference.mark)
    milliseconds = staticmethod(reference.milliseconds)
    hold_up = staticmethod(reference.hold_up)
    activation_forward = staticmethod(reference.activation_forward)
    activation_backward = staticmethod(reference.activation_backward)
    prelu_forward = staticmethod(reference.prelu_forward)
    prelu_backward = staticmethod(reference.prelu_backward)
    conv_forward = staticmethod(reference.conv_forward)
    conv_backward_weight = staticmethod(reference.conv_backward_weight)
    conv_backward_input = staticmethod(reference.conv_backward_input)
    strided_conv_forward = staticmethod(reference.strided_conv_forward)
    strided_conv_backward_weight = staticmethod(reference.strided_conv_backward_weight)
    strided_conv_backward_input = staticmethod(reference.strided_conv_backward_input)
    pool_forward = staticmethod(reference.pool_forward)
    pool_backward = staticmethod(reference.pool_backward)
    add_maps_forward = staticmethod(reference.add_maps_forward)
    add_maps_backward = staticmethod(reference.add_maps_backward)
    neuron_forward = staticmethod(reference.neuron_forward)
    neuron_backward_weight = staticmethod(reference.neuron_backward_weight)
    neuron_backward_input = staticmethod(reference.neuron_backward_input)
    dense_forward = staticmethod(reference.dense_forward)
    dense_backward_weight = staticmethod(reference.dense_backward_weight)
    dense_backward_input = staticmethod(reference.dense_backward_input)
    unit_length_forward = staticmethod(reference.unit_length_forward)
    unit_length_backward = staticmethod(reference.unit_length_backward)
    batch_norm_forward = staticmethod(reference.batch_norm_forward)
    batch_norm_inference = staticmethod(reference.batch_norm_inference)
    batch_norm_backward = staticmethod(reference.batch_norm_backward)
    dropout = staticmethod(reference.dropout)
    softmax_cross_entropy = staticmethod(reference.softmax_cross_entropy)
    mean_squared_error = staticmethod(reference.mean_squared_error)
    label_weight = staticmethod(reference.label_weight)
    one_hot = staticmethod(reference.one_hot)
    add_to_totals = staticmethod(reference.add_to_totals)
    accumulate = staticmethod(reference.accumulate)
    take_batch = staticmethod(reference.take_batch)
    optimizer_update = staticmethod(reference.optimizer_update)
    clip_gradient = staticmethod(reference.clip_gradient)
    add_noise = staticmethod(reference.add_noise)
    average_update = staticmethod(reference.average_update)
    random_words = staticmethod(reference.random_words)
    draw_augmentation = staticmethod(reference.draw_augmentation)
    prepare_photos = staticmethod(reference.prepare_photos)


class StreamingBackend(Backend, Protocol):
    """A backend whose device has memory of its own, which may be too small for all photos."""

    PhotoStream: type[Any]
    """Sends the photos of one batch after another to the device: ``facecnn.kernels.cuda.memory.PhotoStream``."""
