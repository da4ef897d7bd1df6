"""Do the kernels learn? What each epoch shows of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from facecnn.network.layers import Conv
from facecnn.network.network import Network

DEAD_SHARE = 1e-6
"""A kernel whose gradient is below this share of the largest kernel's in its layer gets no error to learn from."""


class KernelWatch:
    """Compares the convolution kernels of a network with those that it started from."""

    def __init__(self, network: Network) -> None:
        """To be made right after ``network.initialise``."""
        self._network = network
        self._names = [stage.name for stage in network.stages if isinstance(stage.layer, Conv)]
        self._start = {name: self._weight(name) for name in self._names}

    def _weight(self, name: str) -> Any:
        return self._network.kernels.to_host(self._network.weights.by_stage[name]["weight"])

    def figures(self) -> dict[str, Any]:
        """``kernel_change``: for each conv layer the norm of (weights now - weights at the start) / norm at the start;
        ``dead_kernels``: names of kernels that got no gradient in the last step."""
        return {
            "kernel_change": {name: self._change(name) for name in self._names},
            "dead_kernels": self.dead_kernels(),
        }

    def _change(self, name: str) -> float:
        start = self._start[name]
        return float(np.linalg.norm(self._weight(name) - start) / np.linalg.norm(start))

    def dead_kernels(self) -> list[str]:
        """``conv1[3]`` and so on, for every kernel of a trained layer that got no gradient in the last step."""
        assert self._network.gradient is not None
        dead = []
        for stage in self._network.stages[self._network.first_trained :]:
            if stage.name not in self._start:
                continue
            gradient = self._network.kernels.to_host(self._network.gradient.by_stage[stage.name]["weight"])
            norms = np.linalg.norm(gradient.reshape(len(gradient), -1).astype(np.float64), axis=1)
            dead += [f"{stage.name}[{k}]" for k in np.flatnonzero(norms <= DEAD_SHARE * norms.max())]
        return dead
