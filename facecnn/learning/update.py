"""What training changes: weights, their moving average and the optimizer's state; and the update in each step."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from facecnn.arrays import Array
from facecnn.learning.optimizers import Optimizer
from facecnn.network.network import Network
from facecnn.network.weights import FlatArrays, Weights, fitting

INITIAL_PREFIX = "taken."
"""Prefix, in a saved training, of the arrays of another model that it started from."""


class TrainedArrays:
    """The weights, their moving average if there is one, and the optimizer's state, on the device."""

    def __init__(self, network: Network, state_names: Sequence[str], *, averaged: bool = False) -> None:
        self.network = network
        self.average: Weights | None = network.new_weights() if averaged else None
        self.state: dict[str, FlatArrays] = {name: network.new_weights().parameters for name in state_names}

    @property
    def model(self) -> Weights:
        """The weights that are used for answers: the moving average if there is one."""
        return self.average or self.network.weights

    def reset(self) -> None:
        """Set weights and state to 0, with the gaps between arrays: a trial that diverged may have left NaNs there."""
        backend, weights = self.network.backend, self.network.weights
        for values in (weights.parameters, weights.statistics, *self.state.values()):
            if values.named:
                backend.copy_to_device(values.flat, np.zeros(values.flat.shape, self.network.dtype))

    def to_host(self) -> dict[str, Array]:
        """All arrays by the names under which they are saved."""
        arrays = self.model_to_host()
        if self.average is not None:
            arrays |= {f"training.{name}": array for name, array in self.network.weights.to_host().items()}
        for state, values in self.state.items():
            arrays |= {f"{state}.{name}": self.network.backend.to_host(array) for name, array in values.named.items()}
        return arrays

    def model_to_host(self) -> dict[str, Array]:
        """The model's arrays by the names under which they are saved."""
        return {f"model.{name}": array for name, array in self.model.to_host().items()}

    def from_host(self, arrays: Mapping[str, Array]) -> None:
        """Overwrite all arrays with saved ones. Raises KeyError or ValueError if one is missing or has another
        shape."""
        self.model.from_host(named_below("model.", arrays))
        if self.average is not None:
            self.network.weights.from_host(named_below("training.", arrays))
        for state, values in self.state.items():
            for name, view in values.named.items():
                self.network.backend.copy_to_device(view, fitting(arrays, f"{state}.{name}", view))


def named_below(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays whose names begin with ``prefix``, by the rest of the name."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


class WeightUpdate:
    """The update of the weights in a step: clip the gradient and add noise if set, run the optimizer, and update the
    moving average."""

    def __init__(self, network: Network, optimizer: Optimizer, average_weights: float | None = None) -> None:
        """``average_weights``: decay of the moving average; None: no average."""
        self.optimizer = optimizer
        self.arrays = TrainedArrays(network, optimizer.state_names, averaged=average_weights is not None)
        self._decay = average_weights
        self._ranges = network.trained_ranges()
        # The optimizer's gradient if it is clipped or noisy. The network's own stays as computed, for KernelWatch:
        # noise must not make a kernel look alive that gets no gradient.
        self._changed_gradient: Array | None = None
        if optimizer.changes_gradient:
            self._changed_gradient = network.new_weights().parameters.flat
            self._noise_counts = network.backend.to_device(_count_trained(network))

    def launch(self, learning_rate: Array, step: Array) -> None:
        """Update the weights by the network's gradient.

        ``learning_rate`` (1,) and ``step`` (1,) int32, the number of updates made before, are on the device.
        """
        network, optimizer = self.arrays.network, self.optimizer
        assert network.gradient is not None
        backend, workspace = network.backend, network.workspace
        weight, gradient = network.weights.parameters.flat, network.gradient.flat
        if self._changed_gradient is not None:
            out, counts = self._changed_gradient, self._noise_counts
            optimizer.change_gradient(backend, out, gradient, counts, network.seed, step, workspace)
            gradient = out
        for first, last, decaying in self._ranges:
            optimizer.update(
                backend=backend,
                weight=weight[first:last],
                state={name: values.flat[first:last] for name, values in self.arrays.state.items()},
                gradient=gradient[first:last],
                learning_rate=learning_rate,
                step=step,
                decaying=decaying,
                workspace=workspace,
            )
        if self.arrays.average is not None:
            assert self._decay is not None
            for average, current in (
                (self.arrays.average.parameters, network.weights.parameters),
                (self.arrays.average.statistics, network.weights.statistics),
            ):
                backend.average_update(average.flat, current.flat, step, self._decay, workspace)


def _count_trained(network: Network) -> Array:
    """(P / 4,) uint8: how many of each four elements of the flat parameters are trained. Others are frozen, or a gap
    before the next array, which starts at a multiple of 16."""
    trained = np.zeros(network.weights.parameters.flat.size, np.uint8)
    ranges = network.trained_ranges()
    for start, shape in network.weights.parameters.offsets.values():
        if any(first <= start < last for first, last, _ in ranges):
            trained[start : start + math.prod(shape)] = 1
    return np.asarray(trained.reshape(-1, 4).sum(axis=1, dtype=np.uint8))
