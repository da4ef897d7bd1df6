"""Finds what excites each kernel: the positions in photos where its output is largest."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from facecnn.arrays import Array, Int64Array
from facecnn.kernels.protocol import Normalise
from facecnn.network.feeding import PhotoFeed
from facecnn.network.inference import passes
from facecnn.network.layers import Reach
from facecnn.network.network import Network
from facecnn.network.stages import Stage, way_to


@dataclass(frozen=True)
class Excitation:
    """For each kernel of a layer, the photos that excite it most, strongest first, and where in them."""

    photos: Int64Array
    """(kernels, n): indices of the photos, each at most once for a kernel."""
    places: Int64Array
    """(kernels, n, 2): first row and column of the receptive field, in pixels of the network's input; it may reach
    beyond that, into the layer's padding."""
    size: tuple[int, int]
    """Rows and columns of the receptive field."""


def excitation(
    network: Network, photos: PhotoFeed, normalise: Normalise, layers: Sequence[str], most: int
) -> dict[str, Excitation]:
    """Find the ``most`` photos (or all, if there are fewer) that excite each kernel of the ``layers`` most.

    Photos aren't augmented. Layers are given, and an ``Excitation`` of each is returned, by whole names
    (``residual1.conv1``).
    """
    highest: dict[str, list[Array]] = {name: [] for name in layers}
    places: dict[str, list[Int64Array]] = {name: [] for name in layers}
    for start, stop in passes(network, photos, normalise, mirror=False):
        for name in layers:
            out = network.backend.to_host(network.output_of(name, stop - start))
            flat = out.reshape(len(out), -1, out.shape[-1])
            where = flat.argmax(axis=1)
            highest[name].append(np.take_along_axis(flat, where[:, None], axis=1)[:, 0])
            places[name].append(where)
    found = {}
    for name in layers:
        strongest = np.argsort(-np.concatenate(highest[name]), axis=0, kind="stable")[:most]
        where = np.take_along_axis(np.concatenate(places[name]), strongest, axis=0).T
        way = way_to(network.stages, name)
        seen, columns = reach(way), way[-1].out_shape[1]
        cells = np.stack([where // columns, where % columns], axis=-1)
        found[name] = Excitation(
            strongest.T.astype(np.int64), cells * np.array(seen.step) + np.array(seen.first), seen.size
        )
    return found


def reach(stages: Sequence[Stage]) -> Reach:
    """Receptive field of an output of the last of these stages, in the input of the first."""
    return reduce(Reach.then, (stage.layer.reach(stage.shape) for stage in stages), Reach())
