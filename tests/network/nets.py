"""Networks for the tests: drawn at random, filled with random numbers, run and compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from facecnn.arrays import Array
from facecnn.kernels import reference
from facecnn.kernels.protocol import Activation
from facecnn.network.layers import (
    Activate,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Layer,
    LayerError,
    Neuron,
    Pool,
    PoolSettings,
    PRelu,
    Shape,
)
from facecnn.network.network import Network
from facecnn.network.stages import plan

ACTIVATIONS = get_args(Activation)
KINKED = ("relu", "leaky_relu")


class Watching:
    """A backend that notes at each forward which way every kink went, what dropout multiplied by, and how large the
    numbers were that batch norm took the mean from, in deviations."""

    def __init__(self, backend: Any = reference) -> None:
        self.backend = backend
        self.kinks: list[bytes] = []
        self.dropout_factors: list[Array] = []
        self.sizes_in_deviations: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def conv_forward(
        self, out: Array, argmax: Array, x: Array, weight: Array, bias: Array, padding: Any, activation: str,
        slope: float, pool: int, workspace: Any,
    ) -> None:  # fmt: skip
        self.backend.conv_forward(out, argmax, x, weight, bias, padding, activation, slope, pool, workspace)
        if pool > 1:
            self.kinks.append(argmax.tobytes())
        if activation in KINKED:
            self.kinks.append((out > 0).tobytes())

    def strided_conv_forward(
        self, out: Array, x: Array, weight: Array, bias: Array, stride: Any, padding: Any, activation: str, *rest: Any
    ) -> None:
        self.backend.strided_conv_forward(out, x, weight, bias, stride, padding, activation, *rest)
        if activation in KINKED:
            self.kinks.append((out > 0).tobytes())

    def activation_forward(self, out: Array, x: Array, activation: str, slope: float, workspace: Any) -> None:
        self.backend.activation_forward(out, x, activation, slope, workspace)
        if activation in KINKED:
            self.kinks.append((out > 0).tobytes())

    def add_maps_forward(
        self, out: Array, branch: Array, shortcut: Array, activation: str, slope: float, workspace: Any
    ) -> None:
        self.backend.add_maps_forward(out, branch, shortcut, activation, slope, workspace)
        if activation in KINKED:
            self.kinks.append((out > 0).tobytes())

    def prelu_forward(self, out: Array, x: Array, *rest: Any) -> None:
        self.backend.prelu_forward(out, x, *rest)
        self.kinks.append((x > 0).tobytes())

    def pool_forward(self, out: Array, argmax: Array, x: Array, kind: str, *rest: Any) -> None:
        self.backend.pool_forward(out, argmax, x, kind, *rest)
        if kind == "max":
            self.kinks.append(argmax.tobytes())

    def batch_norm_forward(
        self, out: Array, mean: Array, inverse_std: Array, running_mean: Array, running_variance: Array,
        x: Array, *rest: Any,
    ) -> None:  # fmt: skip
        self.backend.batch_norm_forward(out, mean, inverse_std, running_mean, running_variance, x, *rest)
        self.sizes_in_deviations.append(float((np.abs(x) * inverse_std).max()))

    def dropout(self, out: Array, x: Array, *rest: Any) -> None:
        factors = self.backend.to_device(np.ones_like(x))
        self.backend.dropout(factors, factors.copy(), *rest)
        self.dropout_factors.append(factors)
        self.backend.dropout(out, x, *rest)


@dataclass
class Case:
    """A network's layers with all that it takes to run it once."""

    layers: tuple[Layer, ...]
    shape: Shape
    count: int = 3
    seed: int = 0
    batch_size: int | None = None


class Run:
    """A case on one backend, its arrays filled with numbers that depend on nothing but the case's seed.

    ``nudge`` changes every number by that share of its size, up or down.
    """

    def __init__(self, case: Case, backend: Any, dtype: npt.DTypeLike, nudge: float = 0.0) -> None:
        self.case = case
        self.watching = Watching(backend)
        self.network = Network(
            case.layers,
            case.shape,
            cast(Any, self.watching),
            case.batch_size or case.count,
            dtype=dtype,
            seed=case.seed,
        )
        generator = np.random.default_rng(case.seed)
        arrays = {}
        for stage in self.network.stages:
            for name, parameter in {**stage.parameters, **stage.statistics}.items():
                array, what = generator.standard_normal(parameter.shape), name.rpartition(".")[2]
                if what == "weight":
                    array *= 1.5 / np.sqrt(parameter.fan_in)
                elif what == "running_variance":
                    array = 0.5 + np.abs(array)
                else:
                    array = (what == "scale") + 0.4 * array
                arrays[f"{stage.name}.{name}"] = array
        x = generator.standard_normal((case.count, *case.shape))
        self.dout: Array = generator.standard_normal((case.count, self.network.units)).astype(dtype)
        """A random upstream delta: one of all ones would hide indices that changed places."""
        self.photos = backend.to_device(generator.permutation(100)[: case.count].astype(np.int32))
        self.step = backend.to_device(np.array([7], np.int32))
        signs = np.random.default_rng(case.seed + 1)
        for array in (*arrays.values(), x):
            # Numbers that float32 can hold, so that both precisions start from the same ones.
            array[...] = array.astype(np.float32)
            array *= 1 + nudge * signs.choice([-1.0, 1.0], array.shape)
        self.network.weights.from_host(arrays)
        self.network.input[: case.count] = x

    def forward(self, training: bool = True) -> Array:
        """The output, a copy."""
        self.watching.kinks.clear()
        self.watching.dropout_factors.clear()
        self.watching.sizes_in_deviations.clear()
        count = self.case.count
        self.network.forward(count, training=training, photos=self.photos, step=self.step)
        return np.array(self.network.output[:count])

    @property
    def kinks(self) -> bytes:
        """Which way all kinks went in the last forward."""
        return b"".join(self.watching.kinks)

    def backward(self) -> dict[str, Array]:
        """Gradients by name for ``dout``, copies."""
        dout = self.watching.to_device(self.dout)
        self.network.backward(self.case.count, self.photos, self.step, dout=dout)
        return self.gradients()

    def gradients(self) -> dict[str, Array]:
        assert self.network.gradient is not None
        return {name: np.array(array) for name, array in self.network.gradient.named.items()}


def away_from_kinks(case: Case, nudge: float = 1e-5) -> bool:
    """Whether arg-maxima and signs stay what they are when all numbers change by ``nudge``: float32 can't flip them."""
    exact = Run(case, reference, np.float64)
    exact.forward()
    for change in (nudge, -nudge):
        nudged = Run(case, reference, np.float64, change)
        nudged.forward()
        if nudged.kinks != exact.kinks:
            return False
    return True


def keeps_its_digits(case: Case, most: float = 16.0) -> bool:
    """Whether batch norm is given nothing larger than ``most`` deviations. Numbers that large differ in their last
    digits only, and the mean, rounded to float32, is off by as much of what is left when it is taken out."""
    exact = Run(case, reference, np.float64)
    exact.forward()
    return max(exact.watching.sizes_in_deviations, default=0.0) <= most


def first_away_from_kinks(make: Callable[[int], Case]) -> Case:
    """The case with the least seed that stands away from kinks."""
    for seed in range(50):
        case = make(seed)
        if away_from_kinks(case):
            return case
    raise AssertionError("every seed leads to near-ties")


def assert_close(found: Array, expected: Array, tolerance: float, what: str, least: float = 0.0) -> None:
    """Equal within ``tolerance`` of the largest expected element, or of ``least`` where that is larger."""
    assert found.shape == expected.shape, what
    scale = max(float(np.abs(expected).max(initial=0)), least)
    error = float(np.abs(found - expected).max(initial=0))
    assert error <= tolerance * scale, f"{what}: off by {error:.3g}, where {scale:.3g} is the largest"


def check_gradient(run: Run) -> bool:
    """Compare every element of the gradient with central differences (five points) in float64; relative 1e-6.

    False where a perturbation flips an arg-max or crosses a kink, even the smallest: there is no derivative to compare.
    """
    out = run.forward()
    kinks = run.kinks
    gradients = run.backward()
    size = float(np.abs(out * run.dout).sum())

    def value(array: Array, place: tuple[int, ...], change: float) -> float | None:
        kept = array[place]
        array[place] = kept + change
        result = float((run.forward() * run.dout).sum())
        array[place] = kept
        return result if run.kinks == kinks else None

    for name, array in run.network.weights.parameters.named.items():
        for place in np.ndindex(array.shape):
            analytic = float(gradients[name][place])
            for h in (1e-4, 1e-5, 2e-6):
                near = [value(array, place, s * h) for s in (1, -1)]
                far = [value(array, place, s * h) for s in (2, -2)]
                if None not in (*near, *far):
                    break
            else:
                return False
            numeric = (8 * (near[0] - near[1]) - (far[0] - far[1])) / (12 * h)  # type: ignore[operator]
            rounding = 16 * np.finfo(np.float64).eps * max(size, 1.0) / h
            allowed = 1e-6 * max(abs(analytic), abs(numeric)) + rounding
            assert abs(analytic - numeric) <= allowed, f"{name}{place}: {analytic} is not {numeric}"
    return True


@st.composite
def conv_pools(draw: st.DrawFn) -> int | PoolSettings | None:
    """What a conv layer may have for a pool."""
    return draw(
        st.one_of(
            st.none(),
            st.integers(1, 3),
            st.builds(
                PoolSettings,
                size=st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3))),
                stride=st.one_of(st.none(), st.integers(1, 3), st.tuples(st.integers(1, 2), st.integers(1, 3))),
                kind=st.sampled_from(["max", "average"]),
                edges=st.sampled_from(["drop", "keep"]),
            ),
        )
    )


activations = st.sampled_from(ACTIVATIONS)
slopes = st.sampled_from([0.0, 0.01, 0.1, 1.0])
sizes = st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3)))

convs = st.builds(
    Conv,
    kernels=st.integers(1, 3),
    size=sizes,
    padding=st.sampled_from(["valid", "same"]),
    activation=activations,
    slope=slopes,
    pool=conv_pools(),
)
elementwise = st.one_of(
    st.builds(Activate, name=activations, slope=slopes),
    st.just(PRelu()),
    st.builds(BatchNorm, momentum=st.sampled_from([0.1, 1.0]), epsilon=st.sampled_from([1e-5, 0.1])),
    st.builds(Dropout, rate=st.sampled_from([0.0, 0.3])),
)
pools = st.builds(
    Pool,
    size=st.one_of(sizes, st.just("global")),
    stride=st.one_of(st.none(), sizes),
    kind=st.sampled_from(["max", "average"]),
    edges=st.sampled_from(["drop", "keep"]),
)
heads = st.one_of(
    st.builds(Neuron, per_kernel=st.integers(1, 3), activation=activations, slope=slopes),
    st.builds(Dense, units=st.integers(1, 4), activation=activations, slope=slopes),
)


map_counts = st.integers(1, 3)
sides = st.sampled_from([5, 6, 7, 4, 3, 2, 1])


@st.composite
def cases(
    draw: st.DrawFn,
    conv_layers: st.SearchStrategy[Conv] = convs,
    maps: st.SearchStrategy[int] = map_counts,
    widths: st.SearchStrategy[int] = sides,
    most_parameters: int = 200,
) -> Case:
    """Networks that fit together: some layers over maps, a neuron or dense layer, some over units, a dense layer."""
    shape = (draw(sides), draw(widths), draw(maps))
    wanted: list[Layer] = draw(
        st.lists(st.one_of(conv_layers, conv_layers, pools, elementwise), min_size=1, max_size=4)
    )
    wanted.append(draw(conv_layers))
    wanted.append(draw(heads))
    wanted += draw(st.lists(elementwise, max_size=2))
    layers: list[Layer] = []
    for layer in wanted:
        try:
            stages = plan([*layers, layer], shape)
        except LayerError:
            continue  # too large for the map that is left
        if sum(prod(p.shape) for stage in stages for p in stage.parameters.values()) <= most_parameters:
            layers.append(layer)
    layers.append(Dense(units=draw(st.integers(2, 3))))
    count = draw(st.integers(3, 4))
    return Case(tuple(layers), shape, count, draw(st.integers(0, 2**16)), count + draw(st.integers(0, 2)))
