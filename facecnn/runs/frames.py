"""The kernels of a run after some of its epochs, from which their evolution is drawn."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facecnn.runs.atomic import append_whole, write_atomically

_SHOWN_KERNELS = 32
_SHOWN_MAPS = 8
"""Kernels and input maps that are kept of a layer with other than one or three input maps."""
_MOST_KERNELS = 64
"""Kernels that are kept of other layers."""
_MOST_FRAMES = 60


@dataclass(frozen=True)
class Frame:
    """The kernels after an epoch; epoch 0 is before the first step."""

    epoch: int
    layers: dict[str, np.ndarray]
    """By layer: (kernel, row, column, input map) float16; only a part of large layers."""


def frame_epochs(epochs: int) -> set[int]:
    """The epochs to keep, 60 at most: 0, the last, and others spread evenly between."""
    return set(np.linspace(0, epochs, min(epochs + 1, _MOST_FRAMES)).round().astype(int).tolist())


class KernelFrames:
    """A file with a record for each epoch that is kept.

    It begins with a line of JSON with the layers' names and shapes. Each record is the epoch (4 bytes) and the layers'
    weights as float16. A torn last record is ignored, as is a file of other layers.
    """

    def __init__(self, path: Path, kernels: Mapping[str, np.ndarray]) -> None:
        """``kernels`` (kernel, row, column, input map) of each layer give the names and shapes."""
        self.path = path
        self._shapes = {name: _shown(array).shape for name, array in kernels.items()}
        layers = [[name, *shape] for name, shape in self._shapes.items()]
        self._header = json.dumps({"facecnn kernels": 1, "layers": layers}).encode("ascii") + b"\n"
        sizes = [int(np.prod(shape)) for shape in self._shapes.values()]
        self._ends = np.cumsum(sizes).tolist()
        self._record = np.dtype([("epoch", "<i4"), ("numbers", "<f2", (sum(sizes),))])

    def _numbers(self, kernels: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.concatenate([np.zeros(0), *(_shown(kernels[name]).ravel() for name in self._shapes)])

    def append(self, epoch: int, kernels: Mapping[str, np.ndarray]) -> None:
        """Append a record. Raises OutputError; the records before are then intact."""
        record = np.zeros(1, self._record)
        record["epoch"] = epoch
        with np.errstate(over="ignore"):
            record["numbers"] = self._numbers(kernels)
        append_whole(self.path, record.tobytes(), header=self._header)

    def read(self) -> list[Frame]:
        """The records, oldest first."""
        try:
            data = self.path.read_bytes()
        except OSError:
            return []
        if not data.startswith(self._header):
            return []
        whole = (len(data) - len(self._header)) // self._record.itemsize
        records = np.frombuffer(data, self._record, whole, len(self._header))
        return [
            Frame(
                int(record["epoch"]),
                {
                    name: part.reshape(shape)
                    for (name, shape), part in zip(
                        self._shapes.items(), np.split(record["numbers"], self._ends)[:-1], strict=True
                    )
                },
            )
            for record in records
        ]

    def start_again_after(self, epoch: int, kernels: Mapping[str, np.ndarray]) -> None:
        """Drop the records after ``epoch``, where training goes on, and write ``kernels`` as those of epoch 0.

        Raises OutputError; the old file is then intact.
        """
        kept = [frame for frame in self.read() if 0 < frame.epoch <= epoch]
        records = np.zeros(len(kept) + 1, self._record)
        for record, frame in zip(records, [Frame(0, dict(kernels)), *kept], strict=True):
            record["epoch"] = frame.epoch
            record["numbers"] = self._numbers(frame.layers)
        write_atomically(self.path, self._header + records.tobytes())


def _shown(kernels: np.ndarray) -> np.ndarray:
    return kernels[:_MOST_KERNELS] if kernels.shape[3] in (1, 3) else kernels[:_SHOWN_KERNELS, :, :, :_SHOWN_MAPS]
