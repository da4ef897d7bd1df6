"""What an answer rests on: gradients by the input against central differences, and maps of networks whose attention is
known because they were built to look at one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from facecnn.arrays import Array
from facecnn.kernels import cpu, reference
from facecnn.kernels.protocol import AUGMENTATION_NONE, MIRROR, SHIFT_X, SHIFT_Y
from facecnn.network.feeding import PhotoFeed
from facecnn.network.inference import log_probabilities
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
)
from facecnn.network.network import Keep, Network
from facecnn.network.sensitivity import (
    AS_IT_IS,
    GREY,
    LogOdds,
    input_gradient,
    occlusion,
    prepared_inputs,
    smooth_gradient,
)

from .nets import Case, Run, assert_close, away_from_kinks, cases

H = 1e-5


def view(mirror: bool = False, down: float = 0.0, along: float = 0.0) -> Array:
    """The parameters of a view; shifts are fractions of the side."""
    parameters = AUGMENTATION_NONE.copy()
    parameters[[MIRROR, SHIFT_Y, SHIFT_X]] = mirror, down, along
    return parameters


BOTH = np.stack([view(), view(mirror=True)])
MANY = np.stack([view(), view(down=0.1), view(along=-0.2), view(mirror=True, along=0.2)])


def in_evaluation(case: Case, backend: Any, dtype: npt.DTypeLike) -> tuple[Run, Array]:
    """A case that was run forward, and its gradient by the input for the case's random upstream delta."""
    run = Run(case, backend, dtype)
    run.forward(training=False)
    dout = run.watching.to_device(run.dout)
    return run, input_gradient(run.network, case.count, dout)


def check_input_gradient(case: Case) -> bool:
    """Compare every element with central differences; False where a kink is in the way."""
    run, analytic = in_evaluation(case, reference, np.float64)
    run.forward(training=False)
    kinks, x = run.kinks, run.network.input[: case.count]
    assert analytic.shape == x.shape
    scale = max(1.0, float(np.abs(analytic).max()))
    for place in np.ndindex(x.shape):
        kept, values = x[place], []
        for step in (H, -H):
            x[place] = kept + step
            values.append(float((run.forward(training=False) * run.dout).sum()))
            if run.kinks != kinks:
                return False
        x[place] = kept
        numeric = (values[0] - values[1]) / (2 * H)
        assert abs(numeric - analytic[place]) < 1e-6 * scale, place
    return True


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=40)
@given(case=cases())
def test_the_input_gradient_of_random_networks(case: Case) -> None:
    assume(check_input_gradient(case))


@pytest.mark.parametrize(
    "layer",
    [
        Conv(kernels=3, padding="same", activation="tanh", pool=2),
        BatchNorm(epsilon=0.5),
        Dropout(rate=0.5),
        PRelu(),
        Activate(name="gelu"),
        Pool(size=2, kind="average"),
        Neuron(per_kernel=2),
        Dense(units=3),
        Residual(
            layers=(Conv(kernels=3, padding="same", pool=2), BatchNorm(), Dropout(rate=0.5)),
            shortcut=PoolSettings(kind="average"),
        ),
    ],
    ids=repr,
)
def test_the_input_gradient_through_each_layer_first(layer: Layer) -> None:
    for seed in range(10):
        if check_input_gradient(Case((layer, Dense(units=2)), (4, 5, 2), 2, seed)):
            return
    raise AssertionError("every seed leads across a kink")


CPU_CONVS = st.sampled_from([
    Conv(kernels=2, size=3, padding="same", activation="leaky_relu", slope=0.1, pool=2),
    Conv(kernels=2, size=(2, 3), activation="tanh"),
])  # fmt: skip
CPU_WIDTHS = st.sampled_from([6, 3])


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=25)
@given(case=cases(conv_layers=CPU_CONVS, maps=st.just(2), widths=CPU_WIDTHS, most_parameters=400))
def test_the_cpu_gives_the_same_input_gradient(case: Case) -> None:
    assume(away_from_kinks(case))
    _, exact = in_evaluation(case, reference, np.float64)
    _, fast = in_evaluation(case, cpu, np.float32)
    assert_close(fast, exact, 2e-4, "input", least=1e-3)


def test_asking_changes_nothing_that_was_learned() -> None:
    network = small_network(keep="outputs")
    before = network.weights.to_host()
    score = LogOdds(network, 1)
    x = np.random.default_rng(3).normal(size=(2, 12, 12, 1)).astype(np.float32)
    first = score(x[None])
    occlusion(score, x, 0.0, BOTH)
    smooth_gradient(score, x, BOTH)
    after = network.weights.to_host()
    assert all(np.array_equal(after[name], array) for name, array in before.items())
    assert np.array_equal(score(x[None]), first)


def small_network(*, keep: Keep = "gradients", dtype: npt.DTypeLike = np.float64, batch_size: int = 4) -> Network:
    layers = (Conv(kernels=3, activation="tanh", pool=2), BatchNorm(), Dropout(rate=0.5), Dense(units=3))
    network = Network(layers, (12, 12, 1), reference, batch_size, dtype=dtype, keep=keep)
    generator = np.random.default_rng(0)
    network.weights.from_host(
        {name: 0.3 + np.abs(generator.normal(size=a.shape)) if name.endswith("variance") else
         generator.normal(size=a.shape) for name, a in network.weights.to_host().items()}
    )  # fmt: skip
    return network


# ---------------------------------------------------------------------------------------------------------- log-odds


@pytest.mark.parametrize("mirror", [False, True])
def test_log_odds_are_those_of_the_answer(mirror: bool) -> None:
    network = small_network()
    pixels = np.random.default_rng(1).integers(0, 256, (3, 18, 18, 1), np.uint8)
    feed = PhotoFeed(reference, pixels, np.arange(3), 4)
    logs = log_probabilities(network, feed, "standardise", mirror=mirror)
    inputs = prepared_inputs(network, pixels, "standardise", BOTH if mirror else AS_IT_IS)
    assert inputs.shape == (3, 1 + mirror, 12, 12, 1)
    for output in range(3):
        for temperature, bias in ((1.0, 0.0), (2.5, 0.0), (2.5, 1.5)):
            biases = np.array([0, 0, bias])
            scaled = np.exp(logs / temperature - biases)
            p = (scaled / scaled.sum(axis=1, keepdims=True))[:, output]
            score = LogOdds(network, output, temperature, biases)
            assert score(inputs) == pytest.approx(np.log(p / (1 - p)), abs=1e-9)


@pytest.mark.parametrize("count", [1, 3])
def test_the_gradient_of_the_log_odds(count: int) -> None:
    score = LogOdds(small_network(), 2, 1.7)
    inputs = np.random.default_rng(2).normal(size=(3, count, 12, 12, 1))  # nine are more than a batch
    analytic = score.gradient(inputs)
    assert analytic.shape == inputs.shape
    for place in [(0, 0, 3, 4, 0), (1, 0, 0, 0, 0), (2, count - 1, 11, 11, 0), (2, count - 1, 6, 2, 0)]:
        values = []
        for step in (H, -H):
            changed = inputs.copy()
            changed[place] += step
            values.append(score(changed)[place[0]])
        assert analytic[place] == pytest.approx((values[0] - values[1]) / (2 * H), rel=1e-5, abs=1e-8)


def test_log_odds_go_on_where_the_probability_is_one() -> None:
    score = attentive((4, 4), slice(0, 4), slice(0, 4), steepness=100.0)
    odds = score(np.stack([np.full((1, 4, 4, 1), value, np.float32) for value in (1.0, 2.0)]))
    assert odds == pytest.approx([1600, 3200])
    assert np.abs(score.gradient(np.ones((1, 1, 4, 4, 1), np.float32))).min() == pytest.approx(100)


# -------------------------------------------------------------------------------------------------------------- maps


def attentive(shape: tuple[int, int], rows: slice, columns: slice, steepness: float = 1.0) -> LogOdds:
    """Of two outputs, the log-odds are ``steepness`` times the sum of the pixels in one place."""
    network = Network((Dense(units=2),), (*shape, 1), reference, 8, keep="outputs")
    weight = np.zeros((2, *shape), np.float32)
    weight[0, rows, columns] = steepness
    network.weights.from_host({"dense1.weight": weight.reshape(2, -1), "dense1.bias": np.zeros(2)})
    return LogOdds(network, 0)


def test_covering_counts_where_the_network_looks() -> None:
    score = attentive((32, 32), slice(4, 8), slice(20, 24))
    found = occlusion(score, np.ones((1, 32, 32, 1), np.float32), 0.0)
    assert (found.before, found.lowest) == (16, 0)
    assert (found.drop[4:8, 20:24] == 16).all(), "every patch over this place covers all of it"
    assert found.drop.max() == 16
    far = np.ones((32, 32), bool)
    far[:16, 12:] = False  # no patch of 8 reaches from beyond
    assert not found.drop[far].any()
    assert (found.drop >= 0).all()


def test_what_speaks_against_an_answer_is_negative() -> None:
    score = attentive((16, 16), slice(0, 4), slice(0, 4), steepness=-1.0)
    found = occlusion(score, np.ones((1, 16, 16, 1), np.float32), 0.0)
    assert found.drop.min() == -16
    assert found.lowest == found.before == -16, "a patch elsewhere changes nothing"


@pytest.mark.parametrize("shape", [(4, 4), (5, 7), (48, 48), (30, 41)])
def test_every_place_is_covered(shape: tuple[int, int]) -> None:
    score = attentive(shape, slice(None), slice(None))
    found = occlusion(score, np.ones((1, *shape, 1), np.float32), 0.0)
    assert found.drop.shape == shape
    assert (found.drop > 0).all(), "the network sums over all pixels"
    # A patch of this size takes its own share, wherever it lies.
    patch = max(1, round(shape[0] / 4)) * max(1, round(shape[1] / 4))
    assert found.drop == pytest.approx(np.full(shape, patch))


def test_grey_is_what_a_picture_without_content_has() -> None:
    network = small_network()
    flat = np.full((1, 18, 18, 1), 127.5, np.uint8)
    for normalise, grey in GREY.items():
        assert prepared_inputs(network, flat, normalise) == pytest.approx(grey, abs=0.01)


def test_smoothed_gradients_of_a_linear_network_are_its_weights() -> None:
    score = attentive((8, 8), slice(2, 4), slice(5, 7), steepness=3.0)
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype(np.float32)
    expected = np.zeros((8, 8, 1))
    expected[2:4, 5:7] = 3
    assert smooth_gradient(score, x) == pytest.approx(expected)


def test_smoothed_gradients_depend_on_the_seed_alone() -> None:
    score = LogOdds(small_network(), 0)
    x = np.random.default_rng(5).normal(size=(1, 12, 12, 1))
    first, again, other = (smooth_gradient(score, x, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_smoothing_takes_noise_away() -> None:
    """Two smoothed gradients of nearly equal pictures are more alike than the plain ones."""
    score = LogOdds(small_network(), 0)
    generator = np.random.default_rng(6)
    x = generator.normal(size=(1, 12, 12, 1))
    near = x + generator.normal(0, 0.3, x.shape)

    def apart(pair: Sequence[Array]) -> float:
        return float(np.linalg.norm(pair[0] - pair[1]) / np.linalg.norm(pair))

    assert apart([smooth_gradient(score, one) for one in (x, near)]) < apart(
        [score.gradient(one[None])[0, 0] for one in (x, near)]
    )


def test_a_place_is_covered_in_every_view() -> None:
    """One network that looks at a spot, and a picture that is bright only where the spot's content comes from: however
    the views are moved, covering that place takes all of it away, and its pixels are the ones that count."""
    side, spot = 20, (slice(8, 12), slice(10, 14))
    picture = np.zeros((1, 2 * side, 2 * side, 1), np.uint8)  # with a margin of a half on each edge
    picture[0, 10 + 8 : 10 + 12, 10 + 10 : 10 + 14] = 255
    for only, rows, columns in (
        (view(), slice(8, 12), slice(10, 14)),
        (view(mirror=True), slice(8, 12), slice(6, 10)),
        (view(down=0.1), slice(10, 14), slice(10, 14)),
        (view(along=-0.2), slice(8, 12), slice(6, 10)),
        (view(mirror=True, along=0.2), slice(8, 12), slice(2, 6)),
        (view(mirror=True, down=-0.2, along=-0.1), slice(4, 8), slice(8, 12)),
    ):
        score = attentive((side, side), rows, columns)  # where the bright spot lies in this view
        x = prepared_inputs(score.network, picture, "none", only[None])[0]
        found = occlusion(score, x, 0.0, only[None])
        assert found.before == pytest.approx(16), only
        assert found.lowest == pytest.approx(0, abs=1e-5), "one patch covers all of it"
        assert (found.drop[spot] > 7).all(), "the others cover a part"
        assert not found.drop[:4].any()
        assert not found.drop[:, :6].any()
        gradient = smooth_gradient(score, x, only[None])
        assert gradient[spot] == pytest.approx(np.ones((4, 4, 1)))
        assert float(np.abs(gradient).sum()) == pytest.approx(16)


def test_views_count_alike() -> None:
    """The map of several views is the mean of each one's own, where log-odds are linear."""
    score = attentive((20, 20), slice(7, 13), slice(9, 15))
    picture = np.random.default_rng(4).integers(0, 256, (1, 40, 40, 1), np.uint8)
    x = prepared_inputs(score.network, picture, "none", MANY)[0]
    together = occlusion(score, x, 0.5, MANY)
    alone = [occlusion(score, one[None], 0.5, which[None]) for one, which in zip(x, MANY, strict=True)]
    assert together.before == pytest.approx(np.mean([found.before for found in alone]))
    assert together.drop == pytest.approx(np.mean([found.drop for found in alone], axis=0), abs=1e-5)
    gradients = [smooth_gradient(score, one[None], which[None]) for one, which in zip(x, MANY, strict=True)]
    assert smooth_gradient(score, x, MANY) == pytest.approx(np.mean(gradients, axis=0))


def test_what_is_moved_out_of_sight_is_left_out() -> None:
    score = attentive((8, 8), slice(None), slice(None))
    far = np.stack([view(down=0.5, along=-0.5), view(mirror=True, down=-1.0)])
    x = np.ones((2, 8, 8, 1), np.float32)
    found = occlusion(score, x, 0.0, far)
    assert found.before == 64
    assert not found.drop[5:, :3].any(), "where no patch reaches into what one of the views shows"
    assert found.drop[:4, 4:].mean() > 0
    gradient = smooth_gradient(score, x, far)
    assert gradient[:4, 4:] == pytest.approx(np.full((4, 4, 1), 0.5))
    assert float(np.abs(gradient).sum()) == pytest.approx(8)
