"""What an answer rests on: the places of a picture that a network's output depends on.

Two questions to a trained network, both about one output's log-odds, and both in evaluation (batch norm's running
statistics, no dropout): how much do they fall when a place is covered, and how much does each pixel move them? Neither
says why: a place may count because of the face, or because of what happens to lie beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.kernels.protocol import AUGMENTATION_NONE, Normalise
from facecnn.network.network import Network

Array = npt.NDArray[Any]
Figures = npt.NDArray[np.float64]

GREY: dict[Normalise, float] = {"none": 0.5, "standardise": 0.0, "local_contrast": 0.0}
"""What a prepared input has where there is nothing to see: without normalisation mid-grey, else the photo's mean."""

PATCH = 1 / 4
STRIDE = 1 / 8
"""Side of the patch that covers a place, and its step, as fractions of the input's side."""

NOISE = 0.15
"""Deviation of SmoothGrad's noise, as a fraction of the input's range: the paper finds 10 to 20 % to be best."""

SAMPLES = 32
"""Noisy copies that SmoothGrad averages over; the paper sees little gain beyond 50."""


def prepared_inputs(network: Network, pixels: Array, normalise: Normalise) -> Array:
    """The network's input (n, H, W, C), on the host, for n crops (n, H + 2 my, W + 2 mx, C) uint8 with their margin, as
    in evaluation. n is the network's batch size at most."""
    kernels, count = network.kernels, len(pixels)
    kernels.prepare_photos(
        network.input[:count],
        kernels.to_device(np.ascontiguousarray(pixels)),
        kernels.to_device(np.arange(count, dtype=np.int32)),
        kernels.to_device(np.tile(AUGMENTATION_NONE, (count, 1))),
        normalise,
        network.workspace,
    )
    return np.asarray(kernels.to_host(network.input[:count]))


def input_gradient(network: Network, count: int, dout: Array) -> Array:
    """The derivative of sum(output * dout) by ``input[:count]``, (count, H, W, C), on the host.

    Of the last ``forward``, which must have been one in evaluation; ``dout`` (count, units) lies on the device. The
    network needs no room for gradients (``training``), and ``Network.backward`` would leave the input's out.
    """
    kernels = network.kernels
    unused = network.new_weights().parameters.by_stage  # layers fill their weights' gradients along with dx
    for number in reversed(range(len(network.stages))):
        stage = network.stages[number]
        dx = kernels.empty((count, *stage.shape), network.dtype)
        call = replace(network.call(number, count), dout=dout, dx=dx, gradient=unused.get(stage.name, {}))
        stage.layer.backward(call)
        dout = dx
    return np.asarray(kernels.to_host(dout))


@dataclass(frozen=True)
class LogOdds:
    """The log-odds of one output against all others, log(p / (1 - p)), as a function of prepared inputs.

    Unlike p itself or log(p), they go on telling differences where the network is sure (p near 1). They are those of
    the answer that is given: with ``mirror``, of the mean of the photo's and its mirror image's logits, and divided by
    the calibration's ``temperature``.
    """

    network: Network
    output: int
    mirror: bool = False
    temperature: float = 1.0

    def __call__(self, inputs: Array) -> Figures:
        """(n,), for inputs (n, H, W, C) on the host; n may be any number."""
        batches = self._batches(inputs)
        return np.concatenate([self._odds_and_slopes(batch)[0] for batch in batches])

    def gradient(self, inputs: Array) -> Array:
        """(n, H, W, C): each one's derivative by its own input."""
        return np.concatenate([self._gradient(batch) for batch in self._batches(inputs)])

    def _batches(self, inputs: Array) -> list[Array]:
        size = self.network.batch_size
        return [inputs[start : start + size] for start in range(0, len(inputs), size)]

    def _ways(self) -> tuple[slice, ...]:
        """How the columns are read: forwards, and for the mirror image backwards."""
        return (slice(None), slice(None, None, -1)) if self.mirror else (slice(None),)

    def _logits(self, batch: Array) -> Figures:
        network = self.network
        network.kernels.copy_to_device(network.input[: len(batch)], np.ascontiguousarray(batch, network.dtype))
        network.forward(len(batch))
        return np.asarray(network.kernels.to_host(network.output[: len(batch)]), np.float64)

    def _odds_and_slopes(self, batch: Array) -> tuple[Figures, Figures]:
        """(n,) log-odds, and (n, units) their derivatives by the mean of the logits: 1 / T for the output, and for the
        others minus their softmax among themselves, over T."""
        ways = self._ways()
        logits = np.mean([self._logits(batch[:, :, way]) for way in ways], axis=0) / self.temperature
        others = np.array(logits)
        others[:, self.output] = -np.inf
        highest = others.max(axis=1, keepdims=True)
        shares = np.exp(others - highest)
        total = shares.sum(axis=1, keepdims=True)
        slopes = -shares / total
        slopes[:, self.output] = 1.0
        odds = logits[:, self.output] - (highest + np.log(total))[:, 0]
        return odds, slopes / self.temperature

    def _gradient(self, batch: Array) -> Array:
        network, ways = self.network, self._ways()
        _, slopes = self._odds_and_slopes(batch)
        dout = network.kernels.to_device((slopes / len(ways)).astype(network.dtype))
        gradient = np.zeros(batch.shape, network.dtype)
        for way in ways:
            self._logits(batch[:, :, way])
            gradient += input_gradient(network, len(batch), dout)[:, :, way]
        return gradient


@dataclass(frozen=True)
class Occlusion:
    """What covering parts of a picture does to an answer."""

    drop: Figures
    """(H, W): by how much the log-odds fall when this place is covered, the mean over the patches that cover it.
    Negative where covering it makes the answer surer."""
    before: float
    """Log-odds of the whole picture."""
    lowest: float
    """Log-odds with the patch where they are lowest."""


def occlusion(log_odds: LogOdds, x: Array, grey: float) -> Occlusion:
    """Cover one place after the other with a grey patch (Zeiler and Fergus 2014, arXiv:1311.2901).

    x (H, W, C) is a prepared input, ``grey`` what the patch is filled with (see ``GREY``). The patch is a quarter of
    the side, its step an eighth.
    """
    height, width, _ = x.shape
    rows, columns = _patches(height), _patches(width)
    covered = np.repeat(x[None], len(rows) * len(columns), axis=0)
    places = [(row, column) for row in rows for column in columns]
    for picture, place in zip(covered, places, strict=True):
        picture[place] = grey
    before = float(log_odds(x[None])[0])
    after = log_odds(covered)
    drop, times = np.zeros((height, width)), np.zeros((height, width))
    for place, odds in zip(places, after.tolist(), strict=True):
        drop[place] += before - odds
        times[place] += 1
    return Occlusion(drop / times, before, float(after.min()))


def _patches(side: int) -> list[slice]:
    """Where the patch lies along one side: from edge to edge, in steps of an eighth or a little less."""
    patch, stride = max(1, round(PATCH * side)), max(1, round(STRIDE * side))
    last = side - patch
    starts = np.linspace(0, last, -(-last // stride) + 1).round().astype(int).tolist()
    return [slice(start, start + patch) for start in starts]


def smooth_gradient(log_odds: LogOdds, x: Array, seed: int = 0) -> Array:
    """SmoothGrad (Smilkov et al. 2017, arXiv:1706.03825): the gradient of the log-odds by the picture, averaged over
    copies of it with noise, which takes most of the gradient's own noise away.

    x (H, W, C) is a prepared input; the answer, of the same shape, keeps its sign. Equal seeds give equal answers.
    """
    deviation = NOISE * float(x.max() - x.min())
    noise = np.random.default_rng(seed).normal(0.0, deviation, (SAMPLES, *x.shape))
    return np.asarray(log_odds.gradient((x + noise).astype(x.dtype)).mean(axis=0))
