"""The analytic gradient against central differences in float64, and the CPU's float32 against both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from facecnn.config import load
from facecnn.kernels import cpu, reference
from facecnn.network.layers import (
    Activate,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Layer,
    Neuron,
    Pool,
    PoolSettings,
    PRelu,
    Residual,
    UnitLength,
    with_outputs,
)

from .nets import (
    ACTIVATIONS,
    Case,
    Run,
    assert_close,
    away_from_kinks,
    cases,
    check_gradient,
    first_away_from_kinks,
    keeps_its_digits,
)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=60)
@given(case=cases())
def test_gradient_of_random_networks(case: Case) -> None:
    assume(check_gradient(Run(case, reference, np.float64)))


BLOCKS: list[Layer] = [
    Residual(layers=(Conv(kernels=2, padding="same", activation="relu"), Conv(kernels=2, size=1))),
    # Fewer rows and columns and more maps than the shortcut, or the other way round.
    Residual(layers=(Conv(kernels=3, size=(2, 3), activation="identity"),), activation="tanh"),
    Residual(layers=(Conv(kernels=1, activation="gelu"),), activation="leaky_relu", slope=0.2),
    Residual(
        layers=(Conv(kernels=2, padding="same", pool=2), BatchNorm(), PRelu(), Dropout(rate=0.3)),
        shortcut=PoolSettings(kind="average"),
        activation="gelu",
    ),
    Residual(layers=(Conv(kernels=3, size=2),), shortcut=PoolSettings(size=3, stride=2), activation="identity"),
    Residual(layers=(Activate(name="sigmoid"), Pool(size=2, kind="average")), activation="sigmoid", repeat=2),
    Residual(
        layers=(
            Residual(layers=(Conv(kernels=3, size=1),), activation="tanh"),
            Residual(layers=(Conv(kernels=2, size=2, activation="tanh"),), shortcut=PoolSettings(size=2, stride=1)),
        ),
    ),
]

# Each stands on a convolution, so that the error that it passes down is checked as well as its own weights' gradient.
ONE_BY_ONE: list[Layer] = [
    *(Activate(name=name, slope=0.2) for name in ACTIVATIONS),
    *(Conv(kernels=3, size=3, activation=name, slope=0.2, pool=2) for name in ACTIVATIONS),
    Conv(kernels=2, size=(2, 3), padding="same", activation="tanh", pool=3),
    Conv(kernels=2, size=4, padding="same", activation="tanh"),
    Conv(kernels=2, size=(5, 6), activation="sigmoid"),
    *(Conv(kernels=3, size=3, stride=2, activation=name, slope=0.2) for name in ACTIVATIONS),
    Conv(kernels=2, size=2, stride=(1, 3), activation="tanh", pool=2),
    Conv(kernels=2, size=1, activation="tanh", pool=PoolSettings(size=3, stride=2)),
    Conv(kernels=2, size=2, activation="tanh", pool=PoolSettings(size=2, stride=1, kind="average")),
    Pool(size=2),
    Pool(size=(3, 2), stride=(1, 2)),
    Pool(size=2, stride=3, kind="average"),
    Pool(size=3, stride=1, kind="average"),
    Pool(size="global"),
    Pool(size="global", kind="average"),
    Pool(size=2, edges="keep"),
    Pool(size=(2, 4), stride=(3, 3), kind="average", edges="keep"),
    PRelu(),
    Neuron(),
    Neuron(per_kernel=3, activation="gelu"),
    Dense(units=4, activation="tanh"),
    Dropout(rate=0.4),
    BatchNorm(),
    BatchNorm(epsilon=0.5),
    *BLOCKS,
]


@pytest.mark.parametrize("layer", ONE_BY_ONE, ids=repr)
def test_gradient_of_each_layer(layer: Layer) -> None:
    for seed in range(10):
        case = Case((Conv(kernels=2, size=1, activation="identity"), layer, Dense(units=2)), (5, 6, 2), 3, seed)
        if check_gradient(Run(case, reference, np.float64)):
            return
    raise AssertionError("every seed leads across a kink")


@pytest.mark.parametrize(
    "layer", [BatchNorm(), Dropout(rate=0.3), Activate(name="gelu"), PRelu(), UnitLength()], ids=repr
)
def test_gradient_of_each_layer_over_units(layer: Layer) -> None:
    assert check_gradient(Run(Case((Dense(units=3), layer, Dense(units=2)), (2, 3, 2), 4), reference, np.float64))


def seed_network(side: int = 12) -> Case:
    layers = with_outputs(load("seed").settings.network, 2)
    return first_away_from_kinks(lambda seed: Case(layers, (side, side, 3), 2, seed))


def test_gradient_of_the_seed_network() -> None:
    assert check_gradient(Run(seed_network(), reference, np.float64))


def test_the_gradient_check_notices_a_flipped_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    right = reference.conv_backward_weight

    def flipped(dweight: np.ndarray, *rest: object) -> None:
        right(dweight, *rest)  # type: ignore[arg-type]
        dweight[...] = dweight[:, ::-1, ::-1].copy()

    monkeypatch.setattr(reference, "conv_backward_weight", flipped)
    case = Case((Conv(kernels=1, size=2, activation="tanh"), Dense(units=2)), (4, 4, 1))
    with pytest.raises(AssertionError, match=r"conv1\.weight"):
        check_gradient(Run(case, reference, np.float64))


def test_a_frozen_network_gets_the_same_gradient_above_its_frozen_layers() -> None:
    layers = (Conv(kernels=2, size=2, activation="tanh"), Conv(kernels=3, size=2, activation="tanh"), Dense(units=2))
    case = Case(layers, (5, 5, 2))
    free, frozen = Run(case, reference, np.float64), Run(case, reference, np.float64)
    frozen.network = type(free.network)(layers, case.shape, reference, case.count, dtype=np.float64, frozen=1)
    frozen.network.weights.copy_from(free.network.weights)
    frozen.network.input[...] = free.network.input
    assert np.array_equal(free.forward(), frozen.forward())
    expected, found = free.backward(), frozen.backward()
    assert not found["conv1.weight"].any()
    for name in ("conv2.weight", "conv2.bias", "dense1.weight", "dense1.bias"):
        assert np.array_equal(found[name], expected[name])


# ------------------------------------------------------------------------------------------------ cpu and reference

# Few sets of settings, since each is compiled by itself, and for some rows again; two maps everywhere.
CPU_CONVS = st.sampled_from([
    Conv(kernels=2, size=3, padding="same", activation="leaky_relu", slope=0.1, pool=2),
    Conv(kernels=2, size=(2, 3), activation="tanh"),
    Conv(kernels=2, size=1, activation="gelu", pool=PoolSettings(size=3, stride=2)),
    Conv(kernels=2, size=3, stride=2, activation="leaky_relu", slope=0.1),
])  # fmt: skip
CPU_WIDTHS = st.sampled_from([6, 3])


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    case=cases(conv_layers=CPU_CONVS, maps=st.just(2), widths=CPU_WIDTHS, most_parameters=400), training=st.booleans()
)
def test_the_cpu_computes_random_networks_as_the_reference_does(case: Case, training: bool) -> None:
    assume(away_from_kinks(case) and keeps_its_digits(case))
    exact, fast = Run(case, reference, np.float64), Run(case, cpu, np.float32)
    # float32 has 6e-8 a rounding; sums of up to some hundred terms and batch norm over few numbers leave 1e-4 of it.
    before = {name: np.abs(array).max() for name, array in exact.network.weights.statistics.named.items()}
    assert_close(fast.forward(training), exact.forward(training), 1e-4, "output")
    for name, array in exact.network.weights.statistics.named.items():
        # What moves from a number to a far smaller one keeps the rounding of the first.
        assert_close(fast.network.weights.statistics.named[name], array, 1e-4, name, least=before[name] / 100)
    exact.forward()
    fast.forward()
    expected, found = exact.backward(), fast.backward()
    largest = max(float(np.abs(array).max()) for array in expected.values())
    for name, array in expected.items():
        # A bias below batch norm has no gradient at all, only rounding: held against the other gradients.
        assert_close(found[name], array, 2e-4, name, least=largest / 10)
