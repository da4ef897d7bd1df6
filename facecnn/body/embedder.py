"""From the crop of a face to its embedding: 128 numbers that are close together for photos of one person."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from facecnn.arrays import Array, Float32Array, UInt8Array
from facecnn.body.embedding_cache import EmbeddingCache
from facecnn.body.folding import shapes
from facecnn.body.weights import BODY_HASH, INSTALL, body_arrays
from facecnn.errors import CheckpointError
from facecnn.kernels.backend import Backend
from facecnn.kernels.protocol import AUGMENTATION_NONE, MIRROR
from facecnn.network.feeding import PhotoFeed
from facecnn.network.inference import prepare_in_batches
from facecnn.network.layers import Body
from facecnn.network.network import Network
from facecnn.photos.preparation import AugmentSettings, PhotoSettings

BATCH_SIZE = 32
"""Maximum number of crops in a forward pass."""

CHIP_SETTINGS = PhotoSettings(faces="required", align="dlib", size=150, colour="rgb", normalise="none", augment=None)
"""How a photo is prepared for the body."""

_BETWEEN_SAVES = 8 * BATCH_SIZE
"""Number of new embeddings after which they are written to the cache."""


class Embedder:
    """The body on a device, and the embeddings that are known already."""

    def __init__(self, backend: Backend, arrays: Mapping[str, Array] | None = None) -> None:
        """``arrays``: the body's weights by name (``conv1.weight``); None: those of the installed package.

        Raises CheckpointError where the package isn't installed, or is damaged, and KeyError or ValueError where an
        array is missing or has another shape.
        """
        self._arrays = installed_body() if arrays is None else arrays
        self._backend = backend
        self._cache = EmbeddingCache(BODY_HASH if arrays is None else hash_of(arrays))
        self._network: Network | None = None

    def embed(
        self, pixels: Array, rows: Array, progress: Callable[[int, int], None] | None = None, *, keep: bool = True
    ) -> Float32Array:
        """The embeddings of crops, each the mean over the crop and its mirror image; not of unit length.

        Args:
            pixels: (P, 150 + 2 my, 150 + 2 mx, 3) uint8, with or without a margin.
            rows: (n,), of ``pixels``.
            progress: called with the number of crops done and of all.
            keep: whether to use the cache on disk.

        Returns:
            (n, 128)
        """
        if not len(rows):
            return np.zeros((0, Body.EMBEDDING), np.float32)
        if not keep:
            return self.compute(pixels, rows)
        keys = crop_keys(pixels, rows)
        known = self._cache.get(dict.fromkeys(keys))
        missing = {key: row for key, row in zip(keys, rows.tolist(), strict=True) if key not in known}
        names, places = list(missing), np.array(list(missing.values()), np.int64)
        for start in range(0, len(names), _BETWEEN_SAVES):
            some = slice(start, start + _BETWEEN_SAVES)
            made = dict(zip(names[some], self.compute(pixels, places[some]), strict=True))
            self._cache.put(made)
            known |= made
            if progress is not None:
                progress(len(keys) - len(names) + start + len(made), len(keys))
        return np.stack([known[key] for key in keys])

    def compute(self, pixels: Array, rows: Array) -> Float32Array:
        """What ``embed`` computes where nothing is known; nothing is kept, either."""
        if self._network is None:
            self._network = Network((Body(),), CHIP_SETTINGS.shape, self._backend, BATCH_SIZE, keep="last_output")
            self._network.weights.from_host(self._arrays)
        network, backend = self._network, self._backend
        feed = PhotoFeed(backend, pixels, rows, BATCH_SIZE)
        total = np.zeros((len(rows), network.units), np.float32)
        for mirror in (0, 1):
            view = AUGMENTATION_NONE.copy()
            view[MIRROR] = mirror
            parameters = backend.to_device(np.tile(view, (BATCH_SIZE, 1)))
            for start, stop in prepare_in_batches(network, feed, CHIP_SETTINGS.normalise, parameters):
                network.infer(stop - start)
                total[start:stop] += backend.to_host(network.output[: stop - start])
        return total / np.float32(2)


def installed_body() -> dict[str, Float32Array]:
    """The arrays of the installed body, by name. Raises CheckpointError: it isn't installed, or is damaged."""
    arrays = body_arrays()
    if arrays is None:
        raise CheckpointError(f"the body's weights (dlib's face network) aren't installed: {INSTALL} brings them")
    return arrays


def hash_of(arrays: Mapping[str, Array]) -> str:
    """The hash that names a body with these weights, as ``BODY_HASH`` does."""
    content = hashlib.sha256()
    for name in shapes():
        content.update(np.ascontiguousarray(arrays[name], "<f4").data)
    return content.hexdigest()


def crop_keys(pixels: Array, rows: Array) -> list[str]:
    """SHA-256, hexadecimal, of the window of each crop: the same with and without a margin."""
    return [_key(pixels[row]) for row in rows.tolist()]


def key_of_bytes(crop: UInt8Array) -> str | None:
    """The key of a crop, given as its bytes in the cache of photos; None if the body can't have seen it."""
    settings = replace(CHIP_SETTINGS, augment=AugmentSettings())
    for shape in (CHIP_SETTINGS.margin_shape, settings.margin_shape):
        if crop.size == math.prod(shape):
            return _key(crop.reshape(shape))
    return None


def _key(crop: Array) -> str:
    height, width, _ = CHIP_SETTINGS.shape
    top, left = (crop.shape[0] - height) // 2, (crop.shape[1] - width) // 2
    window = crop[top : top + height, left : left + width]
    return hashlib.sha256(np.ascontiguousarray(window).data).hexdigest()


def body_among(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The body's arrays among those of a network that begins with it. Raises KeyError if one is missing."""
    return {name: arrays[name] for name in shapes()}
