"""The three networks' weights, from the wheel of mtcnn 1.0.0 (MIT, the extra ``faces``).

The package itself is never imported: it needs TensorFlow. Its weights are joblib's pickles in LZ4 frames, which the
package lz4 reads. Nothing is unpickled: the arrays lie bare among the pickle's bytes, and the files are known to the
byte by their hashes.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from facecnn.errors import CheckpointError, shown
from facecnn.faces.nets import NETS
from facecnn.network.layers import Shape
from facecnn.network.network import Stage

Floats = npt.NDArray[np.float32]

SHA256 = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}
"""Of the three files in the wheel of mtcnn 1.0.0."""

_LARGEST = 2**22
"""Bytes of a pickle at most; the largest has 1.6 million."""
_ALIGNMENT = 16
_MEND = "pip install --force-reinstall --no-deps mtcnn==1.0.0"


def installed_arrays() -> dict[str, Floats] | None:
    """The arrays of all three networks, named ``pnet.conv1.weight`` and so on; None where mtcnn isn't installed.

    Layouts are those of ``facecnn.network.layers``: convolutions (kernel, row, column, input map), dense layers (unit,
    input) for maps flattened row by row.

    Raises CheckpointError where what is installed is another version, or damaged.
    """
    # Found, not imported, which would need TensorFlow.
    spec = importlib.util.find_spec("mtcnn")
    if spec is None:
        return None
    folders = spec.submodule_search_locations or []
    files = {name: Path(folder, "assets", "weights", f"{name}.lz4") for folder in folders for name in NETS}
    arrays = {}
    for name, net in NETS.items():
        if name not in files or not files[name].is_file():
            raise CheckpointError(f"mtcnn is installed, but not as version 1.0.0, which has {name}.lz4: {_MEND}")
        try:
            data = files[name].read_bytes()
        except OSError as error:
            raise CheckpointError(f"{shown(files[name])}: can't be read ({error.strerror}): {_MEND}") from error
        if hashlib.sha256(data).hexdigest() != SHA256[name]:
            raise CheckpointError(f"{shown(files[name])}: not the file of mtcnn 1.0.0, or damaged: {_MEND}")
        own = _arrays(_decompressed(files[name], data), net.stages, net.heads)
        arrays.update({f"{name}.{key}": array for key, array in own.items()})
    return arrays


def _decompressed(path: Path, frame: bytes) -> bytes:
    """The content of an LZ4 frame. Raises CheckpointError where lz4 isn't installed, or there is too much in it."""
    try:
        from lz4.frame import LZ4FrameDecompressor
    except ImportError as error:
        raise CheckpointError(
            f"{shown(path)}: can't be read without the package lz4 ({error}): pip install 'facecnn[faces]' brings it"
        ) from error
    decompressor = LZ4FrameDecompressor()
    content: bytes = decompressor.decompress(frame, max_length=_LARGEST)
    if not decompressor.eof:
        raise CheckpointError(f"{shown(path)}: cut short, or more than {_LARGEST >> 20} MiB of weights: {_MEND}")
    return content


def _arrays(pickle: bytes, stages: tuple[Stage, ...], heads: tuple[int, ...]) -> dict[str, Floats]:
    """The arrays of one network's stages, in our layouts."""
    numbers = _Numbers(pickle)
    arrays = {}
    for stage in stages:
        outputs = heads if stage is stages[-1] else (stage.out_shape[-1],)
        for name, array in _stage_arrays(numbers, stage, outputs):
            arrays[f"{stage.name}.{name}"] = np.ascontiguousarray(array, np.float32)
    return arrays


def _stage_arrays(numbers: _Numbers, stage: Stage, outputs: tuple[int, ...]) -> Iterator[tuple[str, Floats]]:
    """The arrays of a layer. Its outputs lie there as several layers': those of each head, one after the other."""
    shapes = {name: parameter.shape for name, parameter in stage.parameters.items()}
    if "slope" in shapes:
        yield "slope", numbers.take(shapes["slope"])
    elif "weight" in shapes:
        _, *inputs = shapes["weight"]
        parts = [(numbers.take((*inputs, count)), numbers.take((count,))) for count in outputs]
        weight = np.moveaxis(np.concatenate([part for part, _ in parts], axis=-1), -1, 0)
        if len(shapes["weight"]) == 2 and len(stage.shape) == 3:
            # Inputs of the first dense layer are numbered column by column there.
            rows, columns, maps = stage.shape
            weight = weight.reshape(-1, columns, rows, maps).swapaxes(1, 2).reshape(shapes["weight"])
        yield "weight", weight
        yield "bias", np.concatenate([part for _, part in parts])


class _Numbers:
    """Reads arrays of known shapes out of joblib's pickle, one after the other.

    Each lies, uncompressed, at a multiple of 16 bytes, after the opcode BUILD ("b"), the number of bytes of padding,
    and so many bytes 0xff (joblib.numpy_pickle.NumpyArrayWrapper.write_array).
    """

    def __init__(self, pickle: bytes) -> None:
        self._pickle = pickle
        self._position = 0

    def take(self, shape: Shape) -> Floats:
        start = self._next_start()
        array = np.frombuffer(self._pickle, "<f4", int(np.prod(shape)), start)
        self._position = start + array.nbytes
        return array.reshape(shape)

    def _next_start(self) -> int:
        position = self._position
        while True:
            position = self._pickle.index(b"b", position) + 1
            padding = self._pickle[position]
            start = position + 1 + padding
            between = self._pickle[position + 1 : start]
            if 0 < padding <= _ALIGNMENT and start % _ALIGNMENT == 0 and between == b"\xff" * padding:
                return start
