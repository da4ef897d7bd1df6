"""Finds what excites each kernel: the positions in photos where its output is largest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facecnn.arrays import Array, Int64Array
from facecnn.kernels.protocol import Normalise
from facecnn.network.feeding import PhotoFeed
from facecnn.network.inference import passes
from facecnn.network.layers import Reach
from facecnn.network.network import Network
from facecnn.network.stages import Stage


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
    network: Network, photos: PhotoFeed, normalise: Normalise, layers: Sequence[int], most: int
) -> dict[str, Excitation]:
    """Find the ``most`` photos (or all, if there are fewer) that excite each kernel of the stages ``layers`` most.

    Photos aren't augmented. Returns an ``Excitation`` by stage name.
    """
    highest: dict[int, list[Array]] = {number: [] for number in layers}
    places: dict[int, list[Int64Array]] = {number: [] for number in layers}
    for start, stop in passes(network, photos, normalise, mirror=False):
        for number in layers:
            out = network.backend.to_host(network.context(number, stop - start).out)
            flat = out.reshape(len(out), -1, out.shape[-1])
            where = flat.argmax(axis=1)
            highest[number].append(np.take_along_axis(flat, where[:, None], axis=1)[:, 0])
            places[number].append(where)
    found = {}
    for number in layers:
        strongest = np.argsort(-np.concatenate(highest[number]), axis=0, kind="stable")[:most]
        where = np.take_along_axis(np.concatenate(places[number]), strongest, axis=0).T
        seen = reach(network.stages[: number + 1])
        columns = network.stages[number].out_shape[1]
        cells = np.stack([where // columns, where % columns], axis=-1)
        found[network.stages[number].name] = Excitation(
            strongest.T.astype(np.int64), cells * np.array(seen.step) + np.array(seen.first), seen.size
        )
    return found


def reach(stages: Sequence[Stage]) -> Reach:
    """Receptive field of an output of the last of these stages, in the input of the first."""
    size, step, first = (np.array(value) for value in ((1, 1), (1, 1), (0, 0)))
    for stage in stages:
        own = stage.layer.reach(stage.shape)
        size = size + (np.array(own.size) - 1) * step
        first = first + np.array(own.first) * step
        step = step * np.array(own.step)
    return Reach(*((int(value[0]), int(value[1])) for value in (size, step, first)))
