"""Weights of the body, from face_recognition_models 0.3.0 (the extra ``pretrained``): dlib's face network.

The package isn't imported, because that needs pkg_resources, which today's setuptools no longer has. Its file is
verified by hash, read without executing anything in it, and converted once: the arrays stay in the user's cache folder,
as safetensors.
"""

import hashlib
import importlib.util
import json
import os
from contextlib import suppress
from functools import cache
from math import prod
from pathlib import Path

import numpy as np

from facecnn.arrays import Float32Array
from facecnn.body.dat import FIX, read_body
from facecnn.body.folding import folded, shapes
from facecnn.errors import CheckpointError, OutputError, shown
from facecnn.photos.cache_folder import cache_folder, make_private
from facecnn.runs.atomic import write_atomically

SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
"""Hash of the file in face_recognition_models 0.3.0."""

BODY_HASH = "549c1949d8198a6d78df546efdace204820aa26d6c5864f6f909a21a93499f87"
"""SHA-256 of the converted arrays' bytes (little-endian float32, in the order of ``shapes()``). It names the body."""

CONVERSION_VERSION = 1
"""Goes up when converted arrays change, and ``BODY_HASH`` with it."""

INSTALL = "pip install 'facecnn[pretrained]'"

_PACKAGE = "face_recognition_models"
_FILE = "dlib_face_recognition_resnet_model_v1.dat"
_FILE_BYTES = 22_466_066


def body_arrays() -> dict[str, Float32Array] | None:
    """The body's arrays by name, ``conv1.weight``, ``residual1.conv1.bias`` and so on; None if it isn't installed.

    Shapes and layouts are those of ``facecnn.body.folding.shapes``. The arrays are read-only. Raises CheckpointError
    where another version of the package is installed, or a damaged one.
    """
    source = _installed_file()
    if source is None:
        return None
    kept = cache_folder() / "body" / f"dlib-{SHA256[:16]}-{CONVERSION_VERSION}.safetensors"
    content = _read_cached(kept)
    if content is None:
        arrays = folded(read_body(source, _read_verified(source)))
        content = b"".join(arrays[name].astype("<f4").tobytes() for name in shapes())
        with suppress(OSError, OutputError):  # without a cache, it is converted each time
            make_private(kept.parent)
            write_atomically(kept, _head() + content)
    return _arrays(content)


def _installed_file() -> Path | None:
    """The package's file; None if the package isn't installed."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None:
        return None
    files = [Path(folder, "models", _FILE) for folder in spec.submodule_search_locations or []]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise CheckpointError(f"{_PACKAGE} is installed, but not as version 0.3.0, which has {_FILE}: {FIX}")
    return found


def _read_verified(file: Path) -> bytes:
    """The content of the package's file."""
    try:
        size = file.stat().st_size
        data = file.read_bytes() if size == _FILE_BYTES else b""
    except OSError as error:
        raise CheckpointError(f"{shown(file)}: can't be read ({error.strerror}): {FIX}") from error
    if size != _FILE_BYTES:
        raise CheckpointError(f"{shown(file)}: damaged: {size} bytes, {_FILE_BYTES} expected: {FIX}")
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise CheckpointError(f"{shown(file)}: not the file of {_PACKAGE} 0.3.0, or damaged: {FIX}")
    return data


def _read_cached(file: Path) -> bytes | None:
    """The arrays' bytes from the cache; None if there are none, or others than ``BODY_HASH`` names.

    All bytes are known beforehand, the header's too, so nothing in the file has to be parsed.
    """
    head = _head()
    try:
        if not file.is_file():  # opening a pipe would wait
            return None
        with file.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size != len(head) + _content_bytes() or stream.read(len(head)) != head:
                return None
            content = stream.read(_content_bytes())
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == BODY_HASH else None


@cache
def _head() -> bytes:
    """What the file in the cache begins with: the length of safetensors' header, and the header."""
    header: dict[str, object] = {
        "__metadata__": {
            "format": "facecnn body",
            "source_sha256": SHA256,
            "conversion_version": str(CONVERSION_VERSION),
            "sha256": BODY_HASH,
        }
    }
    position = 0
    for name, shape in shapes().items():
        end = position + 4 * prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (position, end)}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the arrays stay aligned
    return len(text).to_bytes(8, "little") + text


def _content_bytes() -> int:
    return 4 * sum(map(prod, shapes().values()))


def _arrays(content: bytes) -> dict[str, Float32Array]:
    """The arrays whose bytes follow one another, as views of them."""
    numbers = np.frombuffer(content, "<f4")
    arrays = {}
    position = 0
    for name, shape in shapes().items():
        count = prod(shape)
        arrays[name] = numbers[position : position + count].reshape(shape)
        position += count
    return arrays
