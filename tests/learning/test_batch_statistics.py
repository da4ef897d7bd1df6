"""Batch norm, dropout and the weights' average: each in training, in evaluation, and after a stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from facecnn.kernels import cpu, reference
from facecnn.learning.full_batch_optimizers import LineSearch
from facecnn.network.feeding import PhotoFeed
from facecnn.network.inference import log_probabilities
from facecnn.network.layers import BatchNorm, Dropout, Layer, with_outputs
from facecnn.network.network import Network

from .trainings import HELD_OUT, RICH, SIDE, SMOKE, Recorder, make_trainer, photos_of, trained

NORMED: tuple[Layer, ...] = (SMOKE[0], BatchNorm(momentum=0.3), *SMOKE[1:])
DROPPED: tuple[Layer, ...] = (SMOKE[0], Dropout(rate=0.5), *SMOKE[1:])
RUNNING = ("batch_norm1.running_mean", "batch_norm1.running_variance")


def statistics(weights: Any) -> dict[str, Any]:
    return {name: array for name, array in weights.to_host().items() if name in RUNNING}


def stopped_and_resumed(step: int, **changes: Any) -> tuple[Any, Any]:
    """A trainer stopped after a step, and a fresh one that was given what was saved."""
    first, recorder = make_trainer(**changes), Recorder()
    assert not first.run(recorder, lambda: first.progress.step == step)
    second = make_trainer(**changes)
    assert recorder.saved is not None
    second.restore(*recorder.saved)
    return first, second


# ------------------------------------------------------------------------------------------------------- batch norm


def test_running_statistics_follow_the_batches() -> None:
    trainer = make_trainer(NORMED, train={"epochs": 2})
    expected = {name: array.astype(np.float64) for name, array in statistics(trainer.network.weights).items()}
    assert not expected[RUNNING[0]].any()
    assert (expected[RUNNING[1]] == 1).all()

    class Following(Recorder):
        def step(self, step: Any) -> None:
            number = [stage.name for stage in trainer.network.stages].index("batch_norm1")
            count = step.photos - (self.steps[-1].photos if self.steps and self.steps[-1].epoch == step.epoch else 0)
            x = trainer.network.context(number, count).x.astype(np.float64)
            x = x.reshape(-1, x.shape[-1])
            for name, seen in zip(RUNNING, (x.mean(axis=0), x.var(axis=0, ddof=1)), strict=True):
                expected[name] = 0.7 * expected[name] + 0.3 * seen
            super().step(step)

    assert trainer.run(Following())
    for name, array in statistics(trainer.network.weights).items():
        assert array == pytest.approx(expected[name], rel=1e-4, abs=1e-5), name


def test_after_a_full_batch_optimizer_running_statistics_are_those_of_all_photos() -> None:
    trainer = make_trainer(NORMED, optimizer=LineSearch())
    trained(trainer)
    found = statistics(trainer.network.weights)
    trainer.step.loss.here()
    number = [stage.name for stage in trainer.network.stages].index("batch_norm1")
    x = trainer.network.context(number, 22).x.astype(np.float64)
    x = x.reshape(-1, x.shape[-1])
    for name, expected in zip(RUNNING, (x.mean(axis=0), x.var(axis=0, ddof=1)), strict=True):
        assert found[name] == pytest.approx(expected, rel=1e-4, abs=1e-5), name


def test_evaluation_leaves_the_running_statistics_alone() -> None:
    trainer = make_trainer(NORMED)
    trained(trainer)
    before = statistics(trainer.network.weights)
    trainer.answers(trainer.data.validation)
    for name, array in statistics(trainer.network.weights).items():
        assert array.tobytes() == before[name].tobytes(), name


@pytest.mark.parametrize("average", [None, 0.8])
def test_an_answer_does_not_depend_on_the_photos_beside_it(average: float | None) -> None:
    trainer = make_trainer(NORMED, train={"average_weights": average})
    trained(trainer)
    photos = photos_of(HELD_OUT, seed=4)
    together = trainer.answers(photos)
    for number in range(len(photos)):
        alone = replace(photos, rows=photos.rows[[number]], labels=photos.labels[[number]])
        assert trainer.answers(alone)[0] == pytest.approx(together[number], rel=1e-5, abs=1e-6)


def test_evaluation_normalises_by_the_running_statistics() -> None:
    trainer = make_trainer(NORMED, augment=None)
    trained(trainer)
    before = trainer.answers(trainer.data.validation)
    arrays = trainer.network.weights.to_host()
    # Half the deviation with half the scale is the same; half the deviation alone is not.
    halved = {**arrays, RUNNING[1]: arrays[RUNNING[1]] / 4 - 0.75e-5}
    trainer.network.weights.from_host({**halved, "batch_norm1.scale": arrays["batch_norm1.scale"] / 2})
    assert trainer.answers(trainer.data.validation) == pytest.approx(before, rel=1e-4, abs=1e-5)
    trainer.network.weights.from_host(halved)
    assert not np.allclose(trainer.answers(trainer.data.validation), before, atol=1e-3)


@pytest.mark.parametrize("step", [2, 3, 4])
@pytest.mark.parametrize("average", [None, 0.8])
def test_running_statistics_come_back_after_a_stop(step: int, average: float | None) -> None:
    first, second = stopped_and_resumed(step, layers=NORMED, train={"average_weights": average})
    before = statistics(first.network.weights)
    assert all(np.abs(array - (name == RUNNING[1])).max() > 1e-3 for name, array in before.items())
    for name, array in statistics(second.network.weights).items():
        assert array.tobytes() == before[name].tobytes(), name
    assert second.answers(second.data.validation).tobytes() == first.answers(first.data.validation).tobytes()


# -------------------------------------------------------------------------------------------------- weights' average


def test_the_average_averages_running_statistics_too_and_answers_by_them() -> None:
    decay = 0.6
    trainer = make_trainer(NORMED, train={"average_weights": decay, "epochs": 3})
    expected = {name: array.astype(np.float64) for name, array in statistics(trainer.network.weights).items()}

    class Following(Recorder):
        def step(self, step: Any) -> None:
            t = step.step - 1
            d = min(decay, (1 + t) / (10 + t))
            for name, array in statistics(trainer.network.weights).items():
                expected[name] = d * expected[name] + (1 - d) * array

    assert trainer.run(Following())
    model = trainer.step.arrays.model.to_host()
    for name in RUNNING:
        assert model[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-6), name
        assert not np.allclose(model[name], trainer.network.weights.to_host()[name], rtol=1e-4), name

    # The model alone, in another network and on another backend, gives the same answers.
    layers = with_outputs(NORMED, 2)
    network = Network(layers, (SIDE, SIDE, 1), reference, 6, keep="outputs")
    network.weights.from_host(model)
    feed = PhotoFeed(reference, trainer.data.validation.pixels, trainer.data.validation.rows, 6)
    answers = log_probabilities(network, feed, "standardise", mirror=True)
    assert trainer.answers(trainer.data.validation) == pytest.approx(answers, rel=1e-4, abs=1e-5)


def test_validation_is_of_the_average() -> None:
    trainer = make_trainer(RICH, train={"average_weights": 0.9, "epochs": 4})
    recorder = trained(trainer)
    labels = trainer.data.validation.labels
    by_average = -trainer.answers(trainer.data.validation)[np.arange(len(labels)), labels].mean()
    assert recorder.epochs[-1]["validation_loss"] == pytest.approx(by_average, rel=1e-6)
    current = make_trainer(RICH)
    current.network.weights.from_host(trainer.network.weights.to_host())
    by_current = -current.answers(trainer.data.validation)[np.arange(len(labels)), labels].mean()
    assert by_current != pytest.approx(by_average, rel=1e-3)


# ------------------------------------------------------------------------------------------------------------ dropout


def test_nothing_is_dropped_in_evaluation() -> None:
    dropped = make_trainer(DROPPED)
    trained(dropped)
    plain = make_trainer(SMOKE)
    plain.network.weights.from_host(dropped.network.weights.to_host())
    assert dropped.answers(dropped.data.validation).tobytes() == plain.answers(dropped.data.validation).tobytes()


class Masks:
    """The CPU's kernels, noting what each dropout of a training step multiplies by, in the order of the photos."""

    def __init__(self) -> None:
        self.noted: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(cpu, name)

    def record(self, function: Callable[[], None], workspace: Any) -> Callable[[], None]:
        """The function itself: what is played back doesn't come by here."""
        return function

    def dropout(self, out: Any, x: Any, photos: Any, rate: float, *rest: Any) -> None:
        if rate > 0:
            factors = np.ones_like(x)
            cpu.dropout(factors, factors.copy(), photos, rate, *rest)
            self.noted.append(factors[np.argsort(photos)].tobytes())
        cpu.dropout(out, x, photos, rate, *rest)


def test_what_is_dropped_changes_from_step_to_step_and_is_the_same_after_a_stop() -> None:
    def masks(stops: set[int]) -> list[bytes]:
        backend, recorder = Masks(), Recorder()
        trainer = make_trainer(DROPPED, backend=backend)
        while not trainer.run(recorder, lambda: trainer.progress.step in stops):  # noqa: B023
            trainer = make_trainer(DROPPED, backend=backend)
            assert recorder.saved is not None
            trainer.restore(*recorder.saved)
        return backend.noted

    whole = masks(set())
    # Nine steps, each with one mask that forward and backward share.
    assert len(whole) == 18
    assert whole[::2] == whole[1::2]
    assert len(set(whole)) == 9
    assert masks({2, 3, 7}) == whole


def test_no_other_layer_and_no_other_seed_drops_the_same() -> None:
    noted = []
    for seed in (1, 2):
        backend = Masks()
        layers = (SMOKE[0], Dropout(rate=0.5), Dropout(rate=0.5), *SMOKE[1:])
        trained(make_trainer(layers, backend=backend, train={"epochs": 1, "batch_size": 22, "seed": seed}))
        forward, backward = backend.noted[:2], backend.noted[2:]
        assert backward == forward[::-1]
        noted += forward
    assert len(set(noted)) == 4
