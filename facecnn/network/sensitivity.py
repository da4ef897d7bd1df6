"""Explains answers: the parts of a picture that a network's output depends on.

Two questions are asked about one output's log-odds, in evaluation mode (batch norm's running statistics, no dropout):
by how much do they fall when a part is covered, and how much does each pixel move them? Neither says why: a part may
count because of the face, or because of what happens to lie beside it.

An answer may be the mean over several views of a picture, mirrored or shifted (``views``: parameters of
``prepare_photos``; the first is the picture as it is). Then a part is covered in all views, and their gradients are
mapped back to the pixels of the first.
"""

from dataclasses import dataclass, replace

import numpy as np

from facecnn.arrays import Array, Float64Array
from facecnn.kernels.protocol import AUGMENTATION_NONE, MIRROR, SHIFT_X, SHIFT_Y, Normalise
from facecnn.network.network import Network

GREY: dict[Normalise, float] = {"none": 0.5, "standardise": 0.0, "local_contrast": 0.0}
"""Value of a prepared input where there is nothing to see: mid-grey without normalisation, else the photo's mean."""

PATCH = 1 / 4
STRIDE = 1 / 8
"""Side of the covering patch, and its step, as fractions of the input's side."""

NOISE = 0.15
"""Standard deviation of SmoothGrad's noise, as a fraction of the input's range: the paper recommends 10 to 20 %."""

SAMPLES = 32
"""Minimum number of noisy pictures, all views counted, for SmoothGrad; the paper sees little gain beyond 50."""

AS_IT_IS: Array = AUGMENTATION_NONE[None]
"""The only view of an answer that isn't averaged."""


def prepared_inputs(network: Network, pixels: Array, normalise: Normalise, views: Array = AS_IT_IS) -> Array:
    """The network's inputs (n, views, H, W, C), on the host.

    Args:
        pixels: (n, H + 2 my, W + 2 mx, C) uint8, crops with their margin.
        views: (views, columns of AUGMENTATION)
    """
    backend, count = network.backend, len(views)
    on_device = backend.to_device(np.ascontiguousarray(pixels))
    inputs = np.empty((len(pixels), count, *network.input.shape[1:]), network.dtype)
    flat = inputs.reshape(-1, *inputs.shape[2:])
    for start in range(0, len(flat), network.batch_size):
        numbers = np.arange(start, min(len(flat), start + network.batch_size))
        batch = network.input[: len(numbers)]
        backend.prepare_photos(
            batch,
            on_device,
            backend.to_device((numbers // count).astype(np.int32)),
            backend.to_device(np.ascontiguousarray(views[numbers % count])),
            normalise,
            network.workspace,
        )
        flat[numbers] = backend.to_host(batch)
    return inputs


def input_gradient(network: Network, count: int, dout: Array) -> Array:
    """Gradient of sum(output * dout) with respect to ``input[:count]``, (count, H, W, C), on the host.

    It belongs to the last ``forward``, which must have been outside of training; ``dout`` (count, units) is on the
    device. The network needn't keep gradients: ``backward`` of one that does leaves out the input's anyway.
    """
    backend = network.backend
    unused = network.new_weights().parameters.by_stage  # layers fill gradients of weights along with dx
    for number in reversed(range(len(network.stages))):
        stage = network.stages[number]
        dx = backend.empty((count, *stage.shape), network.dtype)
        context = network.context_for_backward(number, count)
        stage.layer.backward(replace(context, dout=dout, dx=dx, gradient=unused.get(stage.name, {})))
        dout = dx
    return np.asarray(backend.to_host(dout))


@dataclass(frozen=True)
class LogOdds:
    """The log-odds of one output against all others, log(p / (1 - p)), as a function of prepared inputs.

    Unlike p or log(p), they still show differences where the network is sure (p near 1). They are those of the final
    answer: the mean of all views' logits, divided by the calibration's ``temperature``, minus its ``biases``.
    """

    network: Network
    output: int
    temperature: float = 1.0
    biases: Float64Array | None = None
    """(units,); None: no biases."""

    def __call__(self, inputs: Array) -> Float64Array:
        """(n,), for inputs (n, views, H, W, C) on the host, whatever n and the number of views."""
        return self._odds_and_slopes(inputs)[0]

    def gradient(self, inputs: Array) -> Array:
        """(n, views, H, W, C): gradient of each of them with respect to its inputs."""
        network, views = self.network, inputs.shape[1]
        _, slopes = self._odds_and_slopes(inputs)
        dout = np.repeat(slopes / views, views, axis=0).astype(network.dtype)
        flat = inputs.reshape(-1, *inputs.shape[2:])
        gradient = np.empty(flat.shape, network.dtype)
        for part in self._batches(len(flat)):
            self._forward(flat[part])
            upstream = network.backend.to_device(np.ascontiguousarray(dout[part]))
            gradient[part] = input_gradient(network, len(flat[part]), upstream)
        return gradient.reshape(inputs.shape)

    def _batches(self, count: int) -> list[slice]:
        size = self.network.batch_size
        return [slice(start, start + size) for start in range(0, count, size)]

    def _forward(self, batch: Array) -> Float64Array:
        """Logits (n, units) of at most a batch of inputs."""
        network = self.network
        network.backend.copy_to_device(network.input[: len(batch)], np.ascontiguousarray(batch, network.dtype))
        network.forward(len(batch))
        return np.asarray(network.backend.to_host(network.output[: len(batch)]), np.float64)

    def _odds_and_slopes(self, inputs: Array) -> tuple[Float64Array, Float64Array]:
        """(n,) log-odds, and (n, units) their derivatives with respect to the mean logits: 1 / T for the output, and
        for the others minus the softmax among themselves, over T."""
        flat = inputs.reshape(-1, *inputs.shape[2:])
        each = np.concatenate([self._forward(flat[part]) for part in self._batches(len(flat))])
        logits = each.reshape(*inputs.shape[:2], -1).mean(axis=1) / self.temperature
        if self.biases is not None:
            logits -= self.biases
        others = np.array(logits)
        others[:, self.output] = -np.inf
        highest = others.max(axis=1, keepdims=True)
        shares = np.exp(others - highest)
        total = shares.sum(axis=1, keepdims=True)
        slopes = -shares / total
        slopes[:, self.output] = 1.0
        odds = logits[:, self.output] - (highest + np.log(total))[:, 0]
        return odds, slopes / self.temperature


@dataclass(frozen=True)
class Occlusion:
    """The effect of covering parts of a picture on an answer."""

    drop: Float64Array
    """(H, W): by how much the log-odds fall when a pixel is covered, averaged over the patches that cover it; negative
    where that makes the answer more certain."""
    before: float
    """Log-odds of the whole picture."""
    lowest: float
    """Log-odds with the patch where they are lowest."""


def occlusion(log_odds: LogOdds, x: Array, grey: float, views: Array = AS_IT_IS) -> Occlusion:
    """Cover one part after the other with a grey patch (Zeiler and Fergus 2014, arXiv:1311.2901).

    Args:
        x: (views, H, W, C), a picture's prepared inputs.
        grey: value of the patch; see ``GREY``.
        views: (views, columns of AUGMENTATION)
    """
    _, height, width, _ = x.shape
    patches = [(rows, columns) for rows in _patches(height) for columns in _patches(width)]
    before = float(log_odds(x[None])[0])
    drop, times, lowest = np.zeros((height, width)), np.zeros((height, width)), np.inf
    for patch in patches:
        covered = x.copy()
        for picture, view in zip(covered, views, strict=True):
            picture[_in_view(view, *patch, height, width)] = grey
        after = float(log_odds(covered[None])[0])
        drop[patch] += before - after
        times[patch] += 1
        lowest = min(lowest, after)
    return Occlusion(drop / times, before, lowest)


def _patches(side: int) -> list[slice]:
    """Positions of the patch along one side: from edge to edge, in steps of an eighth or a little less."""
    patch, stride = max(1, round(PATCH * side)), max(1, round(STRIDE * side))
    last = side - patch
    starts = np.linspace(0, last, -(-last // stride) + 1).round().astype(int).tolist()
    return [slice(start, start + patch) for start in starts]


def _in_view(view: Array, rows: slice, columns: slice, height: int, width: int) -> tuple[slice, slice]:
    """Where a part of the picture lies in a view of it, to the nearest pixel and without what is beyond the edges."""
    rows = _moved(rows, _pixels(view[SHIFT_Y], height), height)
    columns = _moved(columns, _pixels(view[SHIFT_X], width), width)
    return rows, slice(width - columns.stop, width - columns.start) if view[MIRROR] else columns


def _pixels(shift: float, side: int) -> int:
    return round(float(shift) * side)


def _moved(part: slice, by: int, side: int) -> slice:
    return slice(min(max(part.start + by, 0), side), min(max(part.stop + by, 0), side))


def _mapped_back(figures: Array, view: Array) -> Array:
    """Map figures (H, W, C) of a view's pixels to those of the picture; 0 where the view shows none."""
    height, width = figures.shape[:2]
    down, along = _pixels(view[SHIFT_Y], height), _pixels(view[SHIFT_X], width)
    inside = _moved(slice(0, height), -down, height), _moved(slice(0, width), -along, width)
    upright = figures[:, ::-1] if view[MIRROR] else figures
    back = np.zeros_like(figures)
    back[inside] = upright[_moved(inside[0], down, height), _moved(inside[1], along, width)]
    return back


def smooth_gradient(log_odds: LogOdds, x: Array, views: Array = AS_IT_IS, seed: int = 0) -> Array:
    """SmoothGrad (Smilkov et al. 2017, arXiv:1706.03825): the gradient of the log-odds with respect to the picture,
    averaged over noisy copies of it, which removes most of the gradient's own noise.

    Args:
        x: (views, H, W, C), a picture's prepared inputs.
        views: (views, columns of AUGMENTATION)

    Returns:
        (H, W, C), with its sign.
    """
    generator = np.random.default_rng(seed)
    deviation = NOISE * float(x.max() - x.min())
    copies = -(-SAMPLES // len(x))
    total = np.zeros(x.shape, np.float64)
    for _ in range(copies):  # one at a time, to save memory
        noisy = (x + generator.normal(0.0, deviation, x.shape)).astype(x.dtype)
        total += log_odds.gradient(noisy[None])[0]
    parts = [_mapped_back(figures, view) for figures, view in zip(total / copies, views, strict=True)]
    return np.asarray(np.sum(parts, axis=0))
