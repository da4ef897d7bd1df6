"""A network: layers over flat arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any, Literal, NamedTuple, TypeAlias
from weakref import proxy

import numpy as np
import numpy.typing as npt

from facecnn.arrays import Array
from facecnn.errors import UsageError
from facecnn.kernels.backend import Backend
from facecnn.kernels.profiling import Profiler
from facecnn.network.initialisation import NOTHING, Initialisation, initialise
from facecnn.network.layers import Layer, LayerContext, Shape, shape_text
from facecnn.network.loss import CrossEntropy, Loss
from facecnn.network.stages import Stage, plan
from facecnn.network.weights import FlatArrays, Weights, aligned_size
from facecnn.parallel.ranks import ALONE, Ranks

Keep: TypeAlias = Literal["gradients", "outputs", "last_output"]
"""What a network has room for: gradients, too, for training; the output of every layer, for explanations; or only that
of the last layer, in much less memory."""


class MicroBatch(NamedTuple):
    """Photos of a batch that are processed at a time; arrays on the device."""

    start: int
    """Index of the first one in the batch."""
    labels: Array
    """(n,) int32"""
    photos: Array | None = None
    """(n,) int32: indices in the data set; None if nothing is random."""
    step: Array | None = None
    """(1,) int32: number of the step; None if nothing is random."""
    x: Array | None = None
    """(n, H, W, C): the prepared photos; None if they are in ``Network.input``."""


class Network:
    """Layers with all their arrays, for batches of up to ``batch_size`` photos.

    Fill ``network.input[:count]``, then call ``forward``, ``loss`` and ``backward`` with the same count. All arrays are
    allocated at construction, and the workspace in the first step; later steps only make views.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: Shape,
        backend: Backend,
        batch_size: int,
        *,
        loss: Loss | None = None,
        dtype: npt.DTypeLike = np.float32,
        seed: int = 0,
        frozen: int = 0,
        keep: Keep = "gradients",
        accumulate_gradients: bool = False,
    ) -> None:
        """
        Args:
            layers: their ``units`` must be numbers.
            input_shape: (H, W, C)
            batch_size: maximum number of photos at a time.
            seed: of dropout and noise.
            frozen: number of ``layers``, from the first, that keep their weights.
            accumulate_gradients: whether gradients of several micro-batches can be added up.

        Raises:
            LayerError: a layer doesn't fit.
            UsageError: the last layer of a network with gradients gives maps.
            MemoryError: the device's memory is too small.
        """
        self.stages = plan(layers, input_shape)
        self.backend = backend
        self.batch_size = batch_size
        self.dtype = np.dtype(dtype)
        self.seed = seed
        self._frozen = frozen
        self.objective: Loss = loss if loss is not None else CrossEntropy()
        self.workspace = backend.Workspace()
        self.announce: Callable[[str, str], None] = (
            backend.announce if isinstance(backend, Profiler) else lambda layer, way: None
        )
        """Called with the layer and the direction of the kernels that are launched next."""
        self.ranks: Ranks = ALONE
        """The processes that share each batch in training."""
        self.weights = self.new_weights()
        self._views: dict[int, list[_StageViews]] = {}
        self._inferences: dict[tuple[int, Weights], Callable[[], None]] = {}

        training = keep == "gradients"
        if training:
            _check_gives_units(self.stages[-1].out_shape)
        self.units = prod(self.stages[-1].out_shape)
        """Numbers that the last layer gives for each photo."""
        self.input: Array = backend.empty((batch_size, *input_shape), dtype)
        self._keeps_outputs = keep != "last_output"
        self._outs = self._new_outputs()
        self._buffers = self._new_buffers(training)
        self._zeros: Array = backend.to_device(np.zeros(batch_size, np.int32))
        """Photos and step if nothing is random."""
        self._make_loss_arrays()
        self._make_gradient_arrays(training, accumulate_gradients)

    def _new_outputs(self) -> list[Array]:
        """Each layer's output. If they aren't kept, two buffers take turns: a layer reads one and writes the other."""
        wanted = [[((self.batch_size, *stage.out_shape), self.dtype)] for stage in self.stages]
        if self._keeps_outputs:
            return [self.backend.empty(*own) for (own,) in wanted]
        turns = [shared_arrays(self.backend, wanted[first::2]) for first in (0, 1)]
        return [turns[number % 2][number // 2][0] for number in range(len(wanted))]

    def _new_buffers(self, training: bool) -> list[dict[str, tuple[Array, bool]]]:
        """The buffers of each layer, and whether they have a row for every photo. If outputs aren't kept, all layers
        share one memory."""
        wanted = [self._buffers_of(stage, training) for stage in self.stages]
        if self._keeps_outputs:
            arrays = [[self.backend.empty(shape, dtype) for shape, dtype, _ in own.values()] for own in wanted]
        else:
            arrays = shared_arrays(self.backend, [[one[:2] for one in own.values()] for own in wanted])
        return [
            {name: (array, own[name][2]) for name, array in zip(own, of_layer, strict=True)}
            for own, of_layer in zip(wanted, arrays, strict=True)
        ]

    def _buffers_of(self, stage: Stage, training: bool) -> dict[str, tuple[Shape, npt.DTypeLike, bool]]:
        """Shape and type of a layer's buffers, and whether they have a row for every photo."""
        found: dict[str, tuple[Shape, npt.DTypeLike, bool]] = {}
        for name, buffer in stage.layer.buffers(stage.shape).items():
            if buffer.for_backward and not training:
                continue
            per_photo = buffer.per_photo and buffer.shape != (0,)
            shape = (self.batch_size, *buffer.shape) if per_photo else buffer.shape
            found[name] = shape, self.dtype if buffer.dtype is None else buffer.dtype, per_photo
        return found

    def _make_loss_arrays(self) -> None:
        empty, photos, units = self.backend.empty, self.batch_size, self.units
        self.losses: Array = empty((photos,), self.dtype)
        """Plain cross-entropy of each photo, after ``loss``."""
        self.objectives: Array = empty((photos,), self.dtype)
        """Each photo's part of the objective, which is their sum."""
        self.probabilities: Array = empty((photos, units), self.dtype)
        self.dlogits: Array = empty((photos, units), self.dtype)
        """Derivative of the loss with respect to ``output``, after ``loss``."""
        self._squares: Array = empty((photos,), self.dtype)
        self._target: Array = empty((photos, units), self.dtype)
        self.loss_divisor: Array = self.backend.to_device(np.ones(1, self.dtype))
        """(1,): divisor of the batch's loss, after ``weigh``."""
        self._ones: Array = self.backend.to_device(np.ones(units, self.dtype))

    def _make_gradient_arrays(self, training: bool, accumulate: bool) -> None:
        trained = [i for i, stage in enumerate(self.stages) if stage.is_trained(self._frozen) and stage.parameters]
        self.first_trained: int = trained[0] if trained else len(self.stages)
        """The lowest stage with weights to train: backward ends there."""
        self.gradient: FlatArrays | None = None
        self._micro_gradient: FlatArrays | None = None
        """The gradient of a micro-batch, if those of several are added up."""
        if training:
            self.gradient = self.new_weights().parameters
            self._micro_gradient = self.new_weights().parameters if accumulate else None
            # The gradient of a layer's output is only needed until that of its input is there: two buffers take turns.
            largest = max(prod(stage.out_shape) for stage in self.stages)
            self._dout_pair = [self.backend.empty((self.batch_size * largest,), self.dtype) for _ in range(2)]

    def new_weights(self) -> Weights:
        """Another set of weights for this network, all zero."""
        return Weights(self.stages, self.backend, self.dtype)

    @property
    def output(self) -> Array:
        """Output of the last layer, (batch_size, units) or (batch_size, H, W, C); ``forward`` fills ``count`` rows."""
        return self._outs[-1]

    def output_of(self, name: str, count: int) -> Array:
        """Output of a layer in the last ``forward`` of ``count`` photos, also of one that another layer holds."""
        assert self._keeps_outputs, "the network keeps only the last output"
        first, _, rest = name.partition(".")
        number = [stage.name for stage in self.stages].index(first)
        views = self._stage_views(count)[number]
        return views.buffers[f"{rest}.out"] if rest else views.out

    @property
    def trained(self) -> frozenset[str]:
        """Names of the stages whose weights are trained."""
        return frozenset(stage.name for stage in self.stages if stage.is_trained(self._frozen))

    def trained_ranges(self) -> list[tuple[int, int, int]]:
        """(start, stop, decaying) of each range of the flat parameters that is trained: a single one unless layers are
        frozen. Weight decay applies to its first ``decaying`` elements."""
        parameters = self.weights.parameters
        ranges: list[tuple[int, int, int]] = []
        for (stage, _), (start, shape) in parameters.offsets.items():
            stop = start + aligned_size(shape)
            decaying = stop - start if start < self.weights.decaying else 0
            if stage not in self.trained:
                continue
            if ranges and ranges[-1][1] == start and (not decaying or ranges[-1][2] == ranges[-1][1] - ranges[-1][0]):
                first, _, decays = ranges[-1]
                ranges[-1] = (first, stop, decays + decaying)
            else:
                ranges.append((start, stop, decaying))
        return ranges

    def initialise(
        self,
        seed: int,
        how: Initialisation = "he",
        photos: Callable[[], Array] | None = None,
        given: Mapping[str, Array] = NOTHING,
    ) -> None:
        """Set the initial weights: see ``facecnn.network.initialisation``."""
        initialise(self, how, seed, photos, given)

    def forward(
        self,
        count: int,
        *,
        weights: Weights | None = None,
        training: bool = False,
        photos: Array | None = None,
        step: Array | None = None,
        x: Array | None = None,
        for_backward: bool = True,
    ) -> None:
        """Compute ``output[:count]`` from ``input[:count]``.

        Args:
            weights: used in place of the network's own.
            training: batch norm uses the batch's statistics (and updates the running ones), and dropout is on.
            photos: (count,) int32, indices in the data set, which dropout depends on.
            step: (1,) int32, which dropout depends on.
            x: used in place of ``input[:count]``.
            for_backward: whether to leave what ``backward`` and other derivatives need, which takes longer.
        """
        weights = weights or self.weights
        for number, stage in enumerate(self.stages):
            self.announce(stage.name, "forward")
            context = self._context(number, count, weights, training, photos, step, x)
            stage.layer.forward(replace(context, for_backward=for_backward))

    def infer(self, count: int, weights: Weights | None = None) -> None:
        """Compute ``output[:count]`` like ``forward`` outside of training, without anything for derivatives, by kernels
        that are recorded for each ``count``."""
        key = count, weights or self.weights
        if key not in self._inferences:
            # Weakly, or the network would only be freed by the garbage collector.
            forward = partial(Network.forward, proxy(self), count, weights=weights, for_backward=False)
            self._inferences[key] = self.backend.record(forward, self.workspace)
        self._inferences[key]()

    def weigh(self, labels: Array, class_weights: Array) -> None:
        """Prepare for the losses of a batch's micro-batches; ``labels`` (photos,) int32 are the whole batch's."""
        weights = class_weights if isinstance(self.objective, CrossEntropy) else self._ones
        self.backend.label_weight(self.loss_divisor, labels, weights, self.workspace)

    def loss(
        self, count: int, labels: Array, class_weights: Array, *, is_part: bool = False, objectives: Array | None = None
    ) -> None:
        """Fill ``losses``, ``probabilities``, ``objectives`` and ``dlogits``.

        Args:
            labels: (count,) int32
            class_weights: (units,)
            is_part: whether these photos are a micro-batch of the batch that was given to ``weigh``.
            objectives: (count,), filled in place of the network's own.
        """
        if not is_part:
            self.weigh(labels, class_weights)
        backend, out = self.backend, self.output[:count]
        losses = self.losses[:count]
        objectives = self.objectives[:count] if objectives is None else objectives
        smoothing = self.objective.label_smoothing if isinstance(self.objective, CrossEntropy) else 0.0
        backend.softmax_cross_entropy(
            losses,
            objectives,
            self.probabilities[:count],
            self.dlogits[:count],
            out,
            labels,
            class_weights,
            self.loss_divisor,
            smoothing,
            self.workspace,
        )
        if not isinstance(self.objective, CrossEntropy):
            target, dlogits = self._target[:count], self.dlogits[:count]
            backend.one_hot(target, labels, self.workspace)
            backend.mean_squared_error(
                self._squares[:count], objectives, dlogits, out, target, self.loss_divisor, self.workspace
            )

    def backward(
        self,
        count: int,
        photos: Array | None = None,
        step: Array | None = None,
        dout: Array | None = None,
        *,
        is_first: bool = True,
        x: Array | None = None,
    ) -> None:
        """Compute ``gradient`` after a ``forward`` in training and ``loss``.

        Args:
            photos: as in ``forward``.
            step: as in ``forward``.
            dout: (count, units), used in place of the loss's derivative.
            is_first: with ``accumulate_gradients``, whether to start a new sum of gradients.
            x: as in ``forward``.
        """
        assert self.gradient is not None, "the network keeps no gradients"
        upstream = self.dlogits[:count] if dout is None else dout
        for number in range(len(self.stages) - 1, self.first_trained - 1, -1):
            context = self._context(number, count, self.weights, True, photos, step, x)
            dx = None if number == self.first_trained else context.dx
            self.announce(self.stages[number].name, "backward")
            self.stages[number].layer.backward(replace(context, dout=upstream, dx=dx))
            if dx is not None:
                upstream = dx
        if self._micro_gradient is not None:
            self.announce("update", "")
            self.backend.accumulate(self.gradient.flat, self._micro_gradient.flat, is_first, self.workspace)

    def forward_backward(self, batch: MicroBatch, class_weights: Array, objectives: Array, totals: Array) -> None:
        """Forward, loss and backward of a micro-batch of the batch that was given to ``weigh``.

        Args:
            batch: the photos; their gradient is added to ``gradient``, or replaces it if they are the batch's first.
            class_weights: (units,)
            objectives: (photos of the batch,); those of the micro-batch are filled.
            totals: (3,), to which their losses and right answers are added: see ``add_to_totals``.
        """
        count = len(batch.labels)
        own = objectives[batch.start : batch.start + count]
        self.forward(count, training=True, photos=batch.photos, step=batch.step, x=batch.x)
        self.announce("loss", "")
        self.loss(count, batch.labels, class_weights, is_part=True, objectives=own)
        self.backend.add_to_totals(totals, self.losses[:count], self.output[:count], batch.labels, self.workspace)
        self.backward(count, batch.photos, batch.step, is_first=batch.start == 0, x=batch.x)

    def context(self, number: int, count: int, *, training: bool = False) -> LayerContext:
        """The context of stage ``number`` for ``count`` photos, to run it by itself or to look at its arrays. In a
        network that isn't trained it has no room for backward."""
        return self._context(number, count, self.weights, training, None, None, None)

    def context_for_backward(self, number: int, count: int) -> LayerContext:
        """The same with buffers for backward, new ones if need be."""
        context, stage = self.context(number, count), self.stages[number]
        missing = {
            name: self.backend.empty((count, *buffer.shape), self.dtype if buffer.dtype is None else buffer.dtype)
            for name, buffer in stage.layer.buffers(stage.shape).items()
            if name not in context.buffers
        }
        return replace(context, buffers={**context.buffers, **missing})

    def _context(
        self, number: int, count: int, weights: Weights, training: bool, photos: Array | None, step: Array | None,
        x: Array | None,
    ) -> LayerContext:  # fmt: skip
        stage, views = self.stages[number], self._stage_views(count)[number]
        if photos is None or step is None:
            photos = step = self._zeros
        gradient = self._micro_gradient or self.gradient
        return LayerContext(
            backend=self.backend,
            workspace=self.workspace,
            training=training and stage.is_trained(self._frozen),
            number=stage.number,
            seed=self.seed,
            step=step,
            photos=photos,
            x=views.x if x is None or number > 0 else x,
            out=views.out,
            weights=weights.by_stage[stage.name],
            buffers=views.buffers,
            dout=views.out,
            dx=views.dx,
            gradient=gradient.by_stage.get(stage.name, {}) if gradient is not None else {},
            ranks=self.ranks,
        )

    def _stage_views(self, count: int) -> list[_StageViews]:
        """The first ``count`` photos' part of every array; made once for each count."""
        if count not in self._views:
            views = []
            for number, stage in enumerate(self.stages):
                x = self.input if number == 0 else self._outs[number - 1]
                buffers = {
                    name: array[:count] if per_photo else array
                    for name, (array, per_photo) in self._buffers[number].items()
                }
                dx = None
                if self.gradient is not None and number > 0:
                    dx = self._dout_pair[number % 2][: count * prod(stage.shape)].reshape(count, *stage.shape)
                views.append(_StageViews(x[:count], self._outs[number][:count], dx, buffers))
            self._views[count] = views
        return self._views[count]


@dataclass(frozen=True)
class _StageViews:
    x: Array
    out: Array
    dx: Array | None
    buffers: dict[str, Array]


def _check_gives_units(shape: Shape) -> None:
    if len(shape) != 1:
        raise UsageError(
            f"network: the last layer gives {shape_text(shape)}; it must give units: end with dense or neuron"
        )


def shared_arrays(backend: Backend, users: Sequence[Sequence[tuple[Shape, npt.DTypeLike]]]) -> list[list[Array]]:
    """Arrays in memory that its users have in turn: what one of them writes is lost when the next one writes.

    ``users``: shape and type of each one's arrays, which don't overlap.
    """
    ends: dict[np.dtype[Any], int] = {}
    for wanted in users:
        own: dict[np.dtype[Any], int] = {}
        for shape, kind in wanted:
            own[np.dtype(kind)] = own.get(np.dtype(kind), 0) + aligned_size(shape)
        ends |= {kind: max(size, ends.get(kind, 0)) for kind, size in own.items()}
    memory = {kind: backend.empty((size,), kind) for kind, size in ends.items()}
    made = []
    for wanted in users:
        starts = dict.fromkeys(memory, 0)
        arrays = []
        for shape, dtype in wanted:
            kind = np.dtype(dtype)
            start, size = starts[kind], prod(shape)
            # A view without elements isn't possible everywhere.
            arrays.append(memory[kind][start : start + size].reshape(shape) if size else backend.empty(shape, kind))
            starts[kind] += aligned_size(shape)
        made.append(arrays)
    return made
