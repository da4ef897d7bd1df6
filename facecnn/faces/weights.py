"""Weights of the three networks, from the wheel of mtcnn 1.0.0 (MIT, the extra ``faces``).

The package isn't imported, because it needs TensorFlow. Its weights are joblib pickles in LZ4 frames, which the package
lz4 reads. Nothing is unpickled: the arrays are read from the bytes of the pickle, and the files are verified by hash.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from facecnn.arrays import Float32Array
from facecnn.errors import CheckpointError, shown
from facecnn.faces.nets import NETS
from facecnn.network.layers import Shape
from facecnn.network.stages import Stage

SHA256 = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}
"""Hashes of the three files in the wheel of mtcnn 1.0.0."""

_LARGEST = 2**22
"""Maximum bytes of a pickle; the largest has 1.6 million."""
_ALIGNMENT = 16
_FIX = "pip install --force-reinstall --no-deps mtcnn==1.0.0"


def installed_arrays() -> dict[str, Float32Array] | None:
    """The arrays of all networks by name, ``pnet.conv1.weight`` and so on; None if mtcnn isn't installed.

    Layouts are those of ``facecnn.network.layers``: convolutions (kernel, row, column, input map), dense layers (unit,
    input) for maps flattened row by row. Raises CheckpointError where another version is installed, or a damaged one.
    """
    spec = importlib.util.find_spec("mtcnn")
    if spec is None:
        return None
    folders = spec.submodule_search_locations or []
    files = {name: Path(folder, "assets", "weights", f"{name}.lz4") for folder in folders for name in NETS}
    arrays = {}
    for name, net in NETS.items():
        if name not in files or not files[name].is_file():
            raise CheckpointError(f"mtcnn is installed, but not as version 1.0.0, which has {name}.lz4: {_FIX}")
        try:
            data = files[name].read_bytes()
        except OSError as error:
            raise CheckpointError(f"{shown(files[name])}: can't be read ({error.strerror}): {_FIX}") from error
        if hashlib.sha256(data).hexdigest() != SHA256[name]:
            raise CheckpointError(f"{shown(files[name])}: not the file of mtcnn 1.0.0, or damaged: {_FIX}")
        own = _arrays(_decompressed(files[name], data), net.stages, net.heads)
        arrays.update({f"{name}.{key}": array for key, array in own.items()})
    return arrays


def _decompressed(path: Path, frame: bytes) -> bytes:
    """The content of an LZ4 frame. Raises CheckpointError if lz4 is missing or the content is too large."""
    try:
        from lz4.frame import LZ4FrameDecompressor
    except ImportError as error:
        raise CheckpointError(
            f"{shown(path)}: can't be read without the package lz4 ({error}): pip install 'facecnn[faces]' brings it"
        ) from error
    decompressor = LZ4FrameDecompressor()
    content: bytes = decompressor.decompress(frame, max_length=_LARGEST)
    if not decompressor.eof:
        raise CheckpointError(f"{shown(path)}: cut short, or more than {_LARGEST >> 20} MiB of weights: {_FIX}")
    return content


def _arrays(pickle: bytes, stages: tuple[Stage, ...], heads: tuple[int, ...]) -> dict[str, Float32Array]:
    """The arrays of a network's stages, in our layouts."""
    reader = _ArrayReader(pickle)
    arrays = {}
    for stage in stages:
        outputs = heads if stage is stages[-1] else (stage.out_shape[-1],)
        for name, array in _stage_arrays(reader, stage, outputs):
            arrays[f"{stage.name}.{name}"] = np.ascontiguousarray(array, np.float32)
    return arrays


def _stage_arrays(reader: _ArrayReader, stage: Stage, outputs: tuple[int, ...]) -> Iterator[tuple[str, Float32Array]]:
    """The arrays of a layer; in the file each head is a layer of its own."""
    shapes = {name: parameter.shape for name, parameter in stage.parameters.items()}
    if "slope" in shapes:
        yield "slope", reader.take(shapes["slope"])
    elif "weight" in shapes:
        _, *inputs = shapes["weight"]
        parts = [(reader.take((*inputs, count)), reader.take((count,))) for count in outputs]
        weight = np.moveaxis(np.concatenate([part for part, _ in parts], axis=-1), -1, 0)
        if len(shapes["weight"]) == 2 and len(stage.shape) == 3:
            # The file flattens the input of the first dense layer column by column.
            rows, columns, maps = stage.shape
            weight = weight.reshape(-1, columns, rows, maps).swapaxes(1, 2).reshape(shapes["weight"])
        yield "weight", weight
        yield "bias", np.concatenate([part for _, part in parts])


class _ArrayReader:
    """Reads arrays of known shapes from joblib's pickle, one after the other.

    Each is stored uncompressed at a multiple of 16 bytes, after the opcode BUILD ("b"), the number of bytes of padding,
    and the padding of 0xff (joblib.numpy_pickle.NumpyArrayWrapper.write_array).
    """

    def __init__(self, pickle: bytes) -> None:
        self._pickle = pickle
        self._position = 0

    def take(self, shape: Shape) -> Float32Array:
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
