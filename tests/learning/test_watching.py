"""What is watched of the kernels: how far they moved, which get no error to learn from, and what is said of those."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from facecnn.kernels import reference
from facecnn.learning.schedules import Constant
from facecnn.learning.watching import LOOKS, STEPS_BETWEEN_LOOKS, KernelNews, KernelWatch
from facecnn.network.layers import Activate, BatchNorm, Conv, Dense, Layer, Neuron, Pool
from facecnn.network.network import Network

from .trainings import RICH, SMOKE, Recorder, make_trainer, photos_of, trained

LAYERS: tuple[Layer, ...] = (
    Conv(kernels=3, size=2, activation="relu"),
    Conv(kernels=2, size=2, activation="identity"),
    Dense(units=2),
)


def network(frozen: int = 0) -> Network:
    made = Network(LAYERS, (5, 5, 1), reference, 2, dtype=np.float64, frozen=frozen)
    made.initialise(0)
    made.input[...] = np.random.default_rng(0).standard_normal(made.input.shape)
    return made


def step(made: Network) -> None:
    made.forward(2, training=True)
    made.backward(2, dout=np.random.default_rng(1).standard_normal((2, 2)))


def test_kernels_that_did_not_move_changed_by_nothing() -> None:
    made = network()
    watch = KernelWatch(made)
    step(made)
    assert watch.figures(2, closely=False)["kernel_change"] == {"conv1": 0.0, "conv2": 0.0}


def test_change_is_relative_to_the_norm_at_the_start() -> None:
    made = network()
    watch = KernelWatch(made)
    step(made)
    made.weights.by_stage["conv1"]["weight"][...] *= 1.25
    assert watch.figures(2, closely=False)["kernel_change"] == {"conv1": pytest.approx(0.25), "conv2": 0.0}


@pytest.mark.parametrize("dead", [[], [1], [0, 2]])
def test_kernels_whose_relu_is_never_open_are_named(dead: list[int]) -> None:
    made = network()
    watch = KernelWatch(made)
    bias: Any = made.weights.by_stage["conv1"]["bias"]
    bias[...] = 100
    bias[dead] = -100
    step(made)
    assert watch.figures(2, closely=False)["dead_kernels"] == [f"conv1[{k}]" for k in dead]


def test_where_no_error_arrives_all_kernels_are_dead() -> None:
    made = network()
    watch = KernelWatch(made)
    made.weights.by_stage["dense1"]["weight"][...] = 0
    step(made)
    assert watch.figures(2, closely=False)["dead_kernels"] == [
        "conv1[0]",
        "conv1[1]",
        "conv1[2]",
        "conv2[0]",
        "conv2[1]",
    ]


def test_frozen_kernels_are_not_called_dead() -> None:
    made = network(frozen=1)
    watch = KernelWatch(made)
    step(made)
    assert watch.figures(2, closely=False)["dead_kernels"] == []


# ------------------------------------------------------------------------------------------------- figures of kernels


def test_figures_of_every_kernel_follow_their_formulas() -> None:
    made = network()
    watch = KernelWatch(made)
    weight: Any = made.weights.by_stage["conv1"]["weight"]
    start = weight.copy()
    weight += np.random.default_rng(2).standard_normal(weight.shape)  # steps made before
    before = weight.copy()
    watch.before_last_step()
    step(made)
    weight += 0.01 * np.random.default_rng(3).standard_normal(weight.shape)
    figures = watch.figures(2, closely=True)["kernels"]["conv1"]

    def norms(kernels: Any) -> Any:
        return np.sqrt(np.square(kernels).sum(axis=(1, 2, 3)))

    assert made.gradient is not None
    gradient = made.gradient.by_stage["conv1"]["weight"]
    assert figures["gradient_norm"] == pytest.approx(norms(gradient), rel=0.005)  # three digits are kept
    assert figures["update_ratio"] == pytest.approx(norms(weight - before) / norms(before), rel=0.005)
    assert figures["distance"] == pytest.approx(norms(weight - start) / norms(start), rel=0.005)
    assert figures["active"] == pytest.approx((made.context(0, 2).out > 0).mean(axis=(0, 1, 2)), rel=0.005)


@pytest.mark.parametrize(
    ("activation", "flat", "steep"),
    [
        ("relu", [-1.0, -0.01], [0.01, 9.0]),
        ("leaky_relu", [-1.0, -0.01], [0.01, 9.0]),
        ("gelu", [-1.0, -0.1], [0.1, 9.0]),
        ("sigmoid", [-9.0, -4.5, 4.5, 9.0], [-4.0, 0.0, 4.0]),
        ("tanh", [-9.0, -2.5, 2.5, 9.0], [-2.0, 0.0, 2.0]),
    ],
)
def test_active_is_what_is_not_on_the_flat_side(activation: Any, flat: list[float], steep: list[float]) -> None:
    values = np.array([*flat, *steep])
    made = Network(
        (Conv(kernels=1, size=1, activation=activation), Dense(units=2)), (1, 1, 1), reference, len(values),
        dtype=np.float64,
    )  # fmt: skip
    made.weights.by_stage["conv1"]["weight"][...] = 1
    made.input[...] = values[:, None, None, None]
    watch = KernelWatch(made)
    made.forward(len(values), training=True)
    made.backward(len(values), dout=np.ones((len(values), 2)))
    (active,) = watch.figures(len(values), closely=True)["kernels"]["conv1"]["active"]
    assert active == pytest.approx(len(steep) / len(values), abs=0.001)


@pytest.mark.parametrize(
    ("layers", "stage"),
    [
        ([Conv(kernels=3, size=2, activation="relu", pool=2)], "conv1"),  # after the pool, which is part of the block
        ([Conv(kernels=3, size=2, activation="identity"), BatchNorm(), Activate(name="relu")], "activation1"),
        ([Conv(kernels=3, size=2, activation="identity", pool=2), Activate(name="relu")], "activation1"),
        ([Conv(kernels=3, size=2, activation="identity"), Neuron(), Activate(name="relu")], None),
    ],
)
def test_active_outputs_are_those_of_the_activation_that_follows(layers: list[Layer], stage: str | None) -> None:
    made = Network((*layers, Dense(units=2)), (5, 5, 1), reference, 2, dtype=np.float64)
    made.initialise(3)
    made.input[...] = np.random.default_rng(0).standard_normal(made.input.shape)
    watch = KernelWatch(made)
    step(made)
    figures = watch.figures(2, closely=True)["kernels"]["conv1"]
    if stage is None:
        assert "active" not in figures
        return
    number = [s.name for s in made.stages].index(stage)
    assert figures["active"] == pytest.approx((made.context(number, 2).out > 0).mean(axis=(0, 1, 2)), abs=0.001)


def test_only_a_part_of_many_outputs_is_looked_at() -> None:
    layers = (Conv(kernels=1, size=1, activation="relu"), Pool(size="global"), Dense(units=2))
    made = Network(layers, (800, 800, 1), reference, 3)
    made.initialise(0)
    made.input[...] = np.array([1, -1, -1])[:, None, None, None]
    made.weights.by_stage["conv1"]["weight"][...] = 1
    watch = KernelWatch(made)
    made.forward(3, training=True)
    made.backward(3, dout=np.ones((3, 2), np.float32))
    assert watch.figures(3, closely=True)["kernels"]["conv1"]["active"] == [1.0]  # of the first photo


def after_a_step(
    changes: list[float], reach: float = np.inf, moved: float = 0.0, dtype: type = np.float64
) -> list[str]:
    """Kernels called asleep when a step changed each by such a share of its norm."""
    made = Network((Conv(kernels=len(changes), size=2), Dense(units=2)), (5, 5, 1), reference, 2, dtype=dtype)
    made.initialise(0)
    made.input[...] = np.random.default_rng(0).standard_normal(made.input.shape)
    watch = KernelWatch(made)
    weight: Any = made.weights.by_stage["conv1"]["weight"]
    weight *= 1 + moved
    watch.before_last_step()
    step(made)
    weight *= 1 + np.array(changes, dtype)[:, None, None, None]
    return list(watch.figures(2, closely=True, reach=reach)["asleep_kernels"])


def test_kernels_far_slower_than_the_others_are_asleep() -> None:
    assert after_a_step([1e-2, 1e-2, 1e-3, 2e-2]) == []
    assert after_a_step([1e-2, 1e-2, 9e-5, 2e-2]) == ["conv1[2]"]


def test_where_rounding_decides_who_moves_nobody_is_asleep() -> None:
    changes = [3e-7, 3e-7, 0.0, 3e-7]
    assert after_a_step(changes, moved=0.01, dtype=np.float32) == []
    assert after_a_step(changes, moved=0.01) == ["conv1[2]"], "float64 tells them apart"


def test_kernels_that_will_not_move_in_the_whole_training_are_asleep() -> None:
    assert after_a_step([1e-6] * 3, reach=2000) == []
    assert after_a_step([1e-6] * 3, reach=500) == ["conv1[0]", "conv1[1]", "conv1[2]"]
    assert after_a_step([1e-6] * 3, reach=500, moved=0.01) == [], "they have learned and rest now"
    assert after_a_step([0.0] * 3, reach=np.inf) == [], "with a rate of 0 nothing can move"


# --------------------------------------------------------------------------------------------------------- in training


def test_epochs_are_looked_at_closely_now_and_then_and_the_last_one_always() -> None:
    for photos, epochs in ((22, 4), (8, 13)):
        recorder = trained(make_trainer(photos=photos_of(np.arange(photos) % 2), train={"epochs": epochs}))
        close = [epoch["step"] for epoch in recorder.epochs if "kernels" in epoch]
        batches = -(-photos // 8)
        assert close == sorted({*range(-(-STEPS_BETWEEN_LOOKS // batches) * batches, batches * epochs + 1,
                                       STEPS_BETWEEN_LOOKS), batches * epochs})  # fmt: skip


def test_the_update_ratio_is_that_of_an_epochs_last_step() -> None:
    trainer = make_trainer(train={"epochs": 4})
    kernels = []

    class Following(Recorder):
        def step(self, step: Any) -> None:
            kernels.append(trainer.watch.kernels())

    recorder = Following()
    assert trainer.run(recorder)
    before, after = kernels[-2]["conv1"], kernels[-1]["conv1"]
    norms = [np.linalg.norm(array.reshape(len(array), -1), axis=1) for array in (after - before, before)]
    assert recorder.epochs[-1]["kernels"]["conv1"]["update_ratio"] == pytest.approx(norms[0] / norms[1], rel=0.005)


def test_looking_changes_nothing() -> None:
    first, second = make_trainer(RICH), make_trainer(RICH)
    second.watch.before_last_step = lambda: None
    assert trained(first).lasts == trained(second).lasts


@pytest.mark.parametrize("micro_batch_size", [3, None])
def test_only_photos_of_the_last_forward_are_counted(micro_batch_size: int | None) -> None:
    counts = []
    trainer = make_trainer(SMOKE, micro_batch_size=micro_batch_size, train={"epochs": 1})
    original = trainer.watch.figures

    def counting(count: int, **more: Any) -> dict[str, Any]:
        counts.append(count)
        return original(count, **more)

    trainer.watch.figures = counting  # type: ignore[method-assign]
    trained(trainer)
    # 22 photos: 7, 7 and 8, the last in parts of 3, 3 and 2.
    assert counts == [8 if micro_batch_size is None else 2]


def test_who_is_asleep_is_judged_by_a_whole_training_at_the_full_learning_rate() -> None:
    """Its nine steps reach as far as fifteen with three fifths of the rate, which the third step has."""
    reaches = []
    trainer = make_trainer(schedule=Constant(warmup=0.5))
    original = trainer.watch.figures

    def noting(count: int, *, reach: float, **more: Any) -> dict[str, Any]:
        reaches.append(reach)
        return original(count, reach=reach, **more)

    trainer.watch.figures = noting  # type: ignore[method-assign]
    trained(trainer)
    assert reaches == pytest.approx([15, 9, 9])


# ---------------------------------------------------------------------------------------------------------------- news


def look(epoch: int, dead: list[str], asleep: list[str] = [], active: float = 0.0) -> dict[str, Any]:  # noqa: B006
    kernels = {name: {"active": [active] * 3, "distance": [0.1] * 3} for name in ("conv1", "conv2")}
    return {"epoch": epoch, "dead_kernels": dead, "asleep_kernels": asleep, "kernels": kernels}


def news(past: Any = ()) -> KernelNews:
    return KernelNews(network().stages, past)


def test_a_dead_kernel_is_named_once_with_what_to_try() -> None:
    told = news()
    messages = [told.of(look(epoch, ["conv1[2]"])) for epoch in range(1, 9)]
    assert [bool(found) for found in messages] == [False] * (LOOKS - 1) + [True] + [False] * (8 - LOOKS)
    (message,) = messages[LOOKS - 1]
    assert message.startswith(f"epoch {LOOKS}: ")
    for words in ("conv1[2]", "dead", "never active", "leaky_relu", "optimizer.learning_rate", "train.initialisation",
                  "batch_norm", "more kernels"):  # fmt: skip
        assert words in message


def test_a_kernel_that_wakes_up_in_between_is_not_named() -> None:
    told = news()
    assert not any(told.of(look(epoch, ["conv1[2]"] if epoch % LOOKS else [])) for epoch in range(20))


def test_advice_is_given_once_and_names_are_cut() -> None:
    told = KernelNews(Network((Conv(kernels=20, size=2), Dense(units=2)), (5, 5, 1), reference, 1).stages)
    figures = {"kernels": {"conv1": {"active": [0.5] * 20, "distance": [0.1] * 20}}, "asleep_kernels": []}
    first: list[str] = []
    for epoch in range(2 * LOOKS):
        dead = [f"conv1[{kernel}]" for kernel in range(9 if epoch < LOOKS else 10)]
        first += told.of({"epoch": epoch, "dead_kernels": dead, **figures})
    assert len(first) == 2
    assert "conv1[5] and 3 more" in first[0]
    assert "Worth a try" in first[0]
    assert "never active" not in first[0]
    assert "the layers above" in first[0]
    assert "leaky_relu" not in first[0], "that is what the layer has"
    assert first[1].endswith("conv1[9]")


def test_a_whole_layer_asleep_is_said_as_such() -> None:
    told = news()
    asleep = [f"conv2[{kernel}]" for kernel in range(3)]
    (message,) = [m for epoch in range(LOOKS) for m in told.of(look(epoch, [], asleep))]
    assert "asleep" in message
    assert "all 3 of conv2" in message
    assert "a higher optimizer.learning_rate" in message


def test_what_was_named_before_is_not_named_again_after_resuming() -> None:
    past = [look(epoch, ["conv1[2]"]) for epoch in range(LOOKS)]
    assert not any(news(past).of(look(LOOKS, ["conv1[2]"])) for _ in range(9))
    (message,) = news(past[: LOOKS - 1]).of(look(LOOKS, ["conv1[2]"]))
    assert "conv1[2]" in message


def test_figures_of_older_versions_are_passed_over() -> None:
    old = {"epoch": 1, "dead_kernels": ["conv1[2]"], "kernel_change": {"conv1": 0.1}}
    assert not any(news([old] * 9).of(old) for _ in range(9))
