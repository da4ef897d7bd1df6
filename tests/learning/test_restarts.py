"""Several initial weights, of which the best are trained: the same bits as if nothing had been tried."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.errors import DivergedError, UsageError
from facecnn.kernels import cpu, reference
from facecnn.learning.full_batch_optimizers import Lbfgs
from facecnn.learning.loop import Trainer
from facecnn.learning.optimizers import AdamW
from facecnn.learning.schedules import Plateau
from facecnn.network.layers import Activate, Conv, Dense, Layer
from facecnn.network.network import Network

from .trainings import HELD_OUT, LABELS, PLAIN, RICH, SMOKE, Recorder, in_bytes, make_trainer, photos_of, trained

EPOCHS, TRIAL, STARTS = 9, 2, 3
TRAIN: dict[str, Any] = {"epochs": EPOCHS, "restart_epochs": TRIAL, "restarts": STARTS, "average_weights": 0.9}
SEED = 1
"""That of ``make_trainer``; of its three starts the one in the middle wins."""
STEPS = 3
"""Of an epoch."""


def only(start: int, layers: Any = RICH, **changes: Any) -> Trainer:
    """A training of the initial weights number ``start`` without any trial; not averaged."""
    train = {**TRAIN, **changes.pop("train", {}), "restarts": 1, "average_weights": None}
    trainer = make_trainer(layers, train=train, **changes)
    how = trainer.settings.train.initialisation
    trainer.network.initialise(SEED + start * 2**32, how, trainer._initial_photos)
    return trainer


def weights_of(recorder: Recorder) -> dict[str, bytes]:
    return {name: array for name, array in recorder.lasts[-1][0].items() if name.startswith("model.")}


@pytest.fixture(scope="module")
def uninterrupted() -> Recorder:
    return trained(make_trainer(RICH, train=TRAIN))


def test_the_start_with_the_lowest_training_loss_is_trained_as_if_nothing_had_been_tried() -> None:
    recorder = trained(make_trainer(RICH, train={**TRAIN, "average_weights": None}))
    alone = [trained(only(start)) for start in range(STARTS)]
    losses = [tried.epochs[TRIAL - 1]["train_loss"] for tried in alone]
    assert recorder.trials == losses
    assert recorder.start == int(np.argmin(losses)) == 1
    winner = alone[recorder.start]
    assert weights_of(recorder) == weights_of(winner)
    # Figures that are relative to the start are so, too: each epoch stands there once, as of the training alone.
    same = ("epoch", "train_loss", "validation_loss", "learning_rate", "step")
    assert [[row[key] for key in same] for row in recorder.epochs] == [[r[key] for key in same] for r in winner.epochs]
    assert [epoch["epoch"] for epoch in recorder.epochs] == list(range(1, EPOCHS + 1))
    assert [(start, report.step, report.steps, report.epochs) for start, report in recorder.trial_steps] == [
        (start, step, TRIAL * STEPS, TRIAL) for start in range(STARTS) for step in range(1, TRIAL * STEPS + 1)
    ]


def test_one_start_is_the_training_without_trials() -> None:
    plain, one = (trained(make_trainer(train=train)) for train in ({}, {"restarts": 1, "restart_epochs": 99}))
    assert one.lasts == plain.lasts
    assert one.trials == one.trial_steps == []
    # And the first of several is the one that there would have been without the others.
    assert trained(make_trainer(train={"restarts": 2, "restart_epochs": 1})).trials[0] == plain.epochs[0]["train_loss"]


def test_held_out_photos_have_no_say() -> None:
    mislabelled = photos_of(1 - HELD_OUT)
    chosen = {
        trained(make_trainer(validation=held_out, train=TRAIN)).trials[0]
        for held_out in (photos_of(HELD_OUT), mislabelled)
    }
    assert len(chosen) == 1


def test_frozen_weights_move_no_more_than_without_trials() -> None:
    trainer = make_trainer(RICH, train={**TRAIN, "freeze": 2})
    recorder = trained(trainer)
    assert recorder.start is not None
    before = only(recorder.start).network.weights.to_host()
    for name in ("conv1.weight", "batch_norm1.running_mean"):
        assert np.array_equal(trainer.step.arrays.model.to_host()[name], before[name])


def test_the_distance_is_that_from_the_chosen_start(uninterrupted: Recorder) -> None:
    assert uninterrupted.start == 1
    start = only(1).watch.kernels()
    last = uninterrupted.saved
    assert last is not None
    for name, kernels in start.items():
        now = last[0][f"training.{name}.weight"]
        change = np.linalg.norm(now - kernels) / np.linalg.norm(kernels)
        assert uninterrupted.epochs[-1]["kernel_change"][name] == pytest.approx(change, rel=1e-5)


# -------------------------------------------------------------------------------------------------- stopped and gone on


@settings(deadline=None, derandomize=True, max_examples=10)
@given(stops=st.sets(st.integers(1, STARTS * TRIAL * STEPS + EPOCHS * STEPS), min_size=1, max_size=3))
def test_stopped_and_gone_on_with_is_the_same_as_not_stopped(uninterrupted: Recorder, stops: set[int]) -> None:
    """The steps of the trials count first; a stop in a trial makes it anew."""
    recorder = Recorder()
    trainer = make_trainer(RICH, train=TRAIN)
    made = iter(sorted(stops))
    at = next(made)

    def stop() -> bool:
        # What is made anew after a stop is not counted, as in the recorder it comes after what was there before.
        nonlocal at
        trials = trainer.progress.trials
        done = len(trials) * TRIAL * STEPS + trainer.progress.step
        if done < at:
            return False
        at = next(made, 10**9)
        return True

    rounds = 0
    while not trainer.run(recorder, stop):
        assert recorder.saved is not None
        again = make_trainer(RICH, train=TRAIN)
        again.restore(*recorder.saved)
        assert in_bytes(again.arrays()) == in_bytes(recorder.saved[0])
        assert again.trials_left == trainer.trials_left
        trainer, rounds = again, rounds + 1
    assert rounds >= len(stops - {STARTS * TRIAL * STEPS + EPOCHS * STEPS})
    assert recorder.lasts[-1] == uninterrupted.lasts[-1]
    assert recorder.bests[-1] == uninterrupted.bests[-1]
    assert recorder.figures() == uninterrupted.figures()
    assert recorder.trials == uninterrupted.trials


def test_ended_trials_are_not_made_again(uninterrupted: Recorder) -> None:
    recorder = Recorder()
    first = make_trainer(RICH, train=TRAIN)
    assert not first.run(recorder, lambda: len(first.progress.trials) == 1 and first.progress.step == 2)
    assert recorder.saved is not None
    assert recorder.saved[1]["trials"] == uninterrupted.trials[:1]
    assert (recorder.saved[1]["epoch"], recorder.saved[1]["step"]) == (0, 0)
    second, rest = make_trainer(RICH, train=TRAIN), Recorder()
    second.restore(*recorder.saved)
    assert second.run(rest)
    assert [start for start, report in rest.trial_steps if report.step == 1] == [1, 2]
    assert rest.lasts[-1] == uninterrupted.lasts[-1]


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": Lbfgs(history=2)},
        {"schedule": Plateau(patience=0, threshold=0.5)},
        {"backend": reference},
        {"augment": None, "optimizer": AdamW(learning_rate=0.01, clip=0.5, noise=0.01)},
        *({"train": {"initialisation": how}} for how in ("xavier", "lecun", "orthogonal", "lsuv", "zca_patches")),
    ],
    ids=str,
)
def test_whatever_else_is_set(changes: dict[str, Any]) -> None:
    settings = {"epochs": 3, "restart_epochs": 2, "restarts": 2, "least_steps": 0, **changes.get("train", {})}
    changes = {**changes, "train": settings}
    whole = trained(make_trainer(SMOKE, **changes))
    alone = [trained(only(start, SMOKE, **changes)) for start in range(2)]
    assert whole.trials == [recorder.epochs[1]["train_loss"] for recorder in alone]
    assert whole.trials[0] != whole.trials[1]
    assert whole.start is not None
    assert weights_of(whole) == weights_of(alone[whole.start])

    trainer, recorder = make_trainer(SMOKE, **changes), Recorder()
    assert not trainer.run(recorder, lambda: not trainer.trials_left and trainer.progress.epoch == 1)
    resumed = make_trainer(SMOKE, **changes)
    assert recorder.saved is not None
    resumed.restore(*recorder.saved)
    rest = trained(resumed)
    assert rest.lasts[-1] == whole.lasts[-1]
    assert rest.figures() == whole.figures()[-len(rest.epochs) :]


# -------------------------------------------------------------------------------------------------------- what it helps

FEW: tuple[Layer, ...] = (
    Conv(kernels=2, size=3, activation="relu", pool=2), Dense(units=2), Activate(name="relu"), Dense(units=2),
)  # fmt: skip
"""So few relus that all may be dead from the start, after which nothing is learned but the share of each person."""


@pytest.mark.parametrize("backend", [reference, pytest.param(cpu, marks=pytest.mark.slow)], ids=["reference", "cpu"])
def test_a_dead_start_is_left_for_one_that_learns(backend: Any) -> None:
    changes: dict[str, Any] = {"augment": None, "photos": photos_of(LABELS), "backend": backend}
    train = {"epochs": 25, "seed": 2}
    dead = trained(make_trainer(FEW, train=train, **changes))
    assert dead.epochs[-1]["train_loss"] == pytest.approx(np.log(2), abs=0.01)
    chosen = trained(make_trainer(FEW, train={**train, "restarts": 4, "restart_epochs": 8}, **changes))
    assert chosen.trials[0] == pytest.approx(np.log(2), abs=0.05)
    assert chosen.epochs[-1]["train_loss"] < 0.1
    assert chosen.epochs[-1]["validation_accuracy"] == 1


def overflowing(monkeypatch: pytest.MonkeyPatch, starts: set[int]) -> None:
    """Let some starts begin with weights that overflow in the first step."""
    good = Network.initialise

    def initialise(network: Network, seed: int, *arguments: Any) -> None:
        good(network, seed, *arguments)
        if seed >> 32 in starts:
            network.weights.by_stage["dense1"]["weight"][...] = 3e38

    monkeypatch.setattr(Network, "initialise", initialise)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("backend", [cpu, reference], ids=["cpu", "reference"])
def test_a_start_that_diverges_is_lost_and_leaves_nothing_behind(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {"optimizer": AdamW(learning_rate=0.01, clip=1.0), "backend": backend}
    alone = trained(only(1, **changes))
    overflowing(monkeypatch, {0, 2})
    recorder = trained(make_trainer(RICH, train={**TRAIN, "average_weights": None}, **changes))
    assert [loss is None for loss in recorder.trials] == [True, False, True]
    assert weights_of(recorder) == weights_of(alone)


def test_where_all_diverge_the_training_has(monkeypatch: pytest.MonkeyPatch) -> None:
    overflowing(monkeypatch, set(range(STARTS)))
    recorder = Recorder()
    with pytest.raises(DivergedError, match=r"(?s)Each of 3 initial weights diverged.*smaller learning rate"):
        make_trainer(RICH, train=TRAIN).run(recorder)
    assert not recorder.bests
    assert not recorder.epochs


def test_trials_longer_than_the_training_are_refused() -> None:
    with pytest.raises(UsageError, match=r"train\.restart_epochs 4: .*has 3 epochs"):
        make_trainer(train={"restarts": 2, "restart_epochs": 4})
    make_trainer(train={"restarts": 2, "restart_epochs": 3})
    make_trainer(train={"restarts": 2, "restart_epochs": 4, "least_steps": 12})
    make_trainer(train={"restart_epochs": 4})


def test_a_trial_may_be_as_long_as_the_training() -> None:
    recorder = trained(make_trainer(augment=PLAIN, train={"restarts": 2, "restart_epochs": 3}))
    assert recorder.epochs[-1]["train_loss"] == min(loss for loss in recorder.trials if loss is not None)
