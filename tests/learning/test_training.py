"""The training loop: the same bits whatever happens on the way, what is kept, and when it ends."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from facecnn.errors import DivergedError, UsageError
from facecnn.kernels import available_threads, cpu, reference
from facecnn.learning.full_batch_optimizers import Lbfgs, LineSearch, NewtonCg
from facecnn.learning.loop import Trainer
from facecnn.learning.optimizers import OPTIMIZERS, AdamW, Momentum, Nesterov, Sgd
from facecnn.learning.progress import StepReport
from facecnn.learning.schedules import Constant, Plateau
from facecnn.network.layers import BatchNorm, Dense, Dropout
from facecnn.network.loss import CrossEntropy, MeanSquaredError
from facecnn.network.size import measure
from network.test_feeding import SMALL_DEVICE

from .trainings import HELD_OUT, LABELS, PLAIN, RICH, SIDE, SMOKE, Recorder, in_bytes, make_trainer, photos_of, trained

EPOCHS = 12
"""Of three steps each: the run is saved once on the way, after the ninth, and at the end."""
BETWEEN_SAVES = 25
pytestmark = pytest.mark.usefixtures("module_saves")
RICH_TRAINING: dict[str, Any] = {"train": {"epochs": EPOCHS, "average_weights": 0.9}}
NOBODY = photos_of(np.zeros(0, np.int64))
MISLABELLED = replace(photos_of(HELD_OUT), labels=1 - HELD_OUT)
"""The better the training photos are learned, the worse these fare: the best epoch is an early one."""


@pytest.fixture(scope="module")
def uninterrupted() -> Recorder:
    return trained(make_trainer(RICH, **RICH_TRAINING))


@pytest.fixture
def threads() -> Iterator[int]:
    """Threads that there are; afterwards all are in use again."""
    count = available_threads()
    yield count
    cpu.set_threads(count)


# --------------------------------------------------------------------------------------------------- the same bits


def test_same_seed_same_bytes(uninterrupted: Recorder) -> None:
    again = trained(make_trainer(RICH, **RICH_TRAINING))
    assert again.lasts == uninterrupted.lasts
    assert again.bests == uninterrupted.bests
    assert again.figures() == uninterrupted.figures()


def test_another_seed_other_weights(uninterrupted: Recorder) -> None:
    other = make_trainer(RICH, train={**RICH_TRAINING["train"], "seed": 2})
    assert in_bytes(other.arrays()) != in_bytes(make_trainer(RICH, **RICH_TRAINING).arrays())
    assert trained(other).figures() != uninterrupted.figures()


def test_the_number_of_threads_does_not_matter(uninterrupted: Recorder, threads: int) -> None:
    if threads < 2:
        pytest.skip("needs two processors")
    for count in (1, 2):
        cpu.set_threads(count)
        assert trained(make_trainer(RICH, **RICH_TRAINING)).lasts == uninterrupted.lasts


@settings(deadline=None, derandomize=True, max_examples=12)
@given(stops=st.sets(st.integers(1, 3 * EPOCHS), min_size=1, max_size=4))
def test_stopped_and_gone_on_with_is_the_same_as_not_stopped(uninterrupted: Recorder, stops: set[int]) -> None:
    recorder = Recorder()
    trainer = make_trainer(RICH, **RICH_TRAINING)
    rounds = 1
    while not trainer.run(recorder, lambda: trainer.progress.step in stops):  # noqa: B023
        assert recorder.saved is not None
        assert recorder.saved[1]["step"] == trainer.progress.step, "what was stopped must be saved as it stood"
        trainer = make_trainer(RICH, **RICH_TRAINING)
        trainer.restore(*recorder.saved)
        rounds += 1
    assert rounds == 1 + len(stops - {3 * EPOCHS})
    assert recorder.lasts[-1] == uninterrupted.lasts[-1]
    assert recorder.bests[-1] == uninterrupted.bests[-1]
    assert recorder.figures() == uninterrupted.figures()
    assert in_bytes(trainer.arrays()) == uninterrupted.lasts[-1][0]


EVERY_RULE = [rule(learning_rate=0.005) for rule in OPTIMIZERS.values()]
CLIPPED_AND_NOISY = [
    Momentum(learning_rate=0.005, clip=0.1),
    Nesterov(learning_rate=0.005, noise=0.1),
    AdamW(learning_rate=0.005, clip=1.0, noise=0.01, noise_decay=0.3),
]


@pytest.mark.parametrize(
    ("optimizer", "average"),
    [*((rule, None) for rule in [*EVERY_RULE, *CLIPPED_AND_NOISY]), (AdamW(learning_rate=0.005), 0.9)],
    ids=repr,
)
def test_every_kind_of_state_is_restored(optimizer: Any, average: float | None) -> None:
    changes: dict[str, Any] = {"optimizer": optimizer, "train": {"average_weights": average}}
    whole = trained(make_trainer(**changes))
    recorder = Recorder()
    first = make_trainer(**changes)
    assert not first.run(recorder, lambda: first.progress.step == 4)
    assert recorder.interrupted == [True]
    second = make_trainer(**changes)
    assert recorder.saved is not None
    second.restore(*recorder.saved)
    assert in_bytes(second.arrays()) == in_bytes(first.arrays())
    assert second.run(recorder)
    assert recorder.lasts[-1] == whole.lasts[-1]


def test_a_finished_training_has_nothing_left_to_do(uninterrupted: Recorder) -> None:
    trainer = make_trainer(RICH, **RICH_TRAINING)
    assert uninterrupted.saved is not None
    trainer.restore(*uninterrupted.saved)
    assert trainer.progress.finished
    nothing = trained(trainer)
    assert not nothing.steps
    assert not nothing.lasts


def test_arrays_of_another_network_are_not_restored(uninterrupted: Recorder) -> None:
    assert uninterrupted.saved is not None
    arrays, progress = uninterrupted.saved
    trainer = make_trainer(RICH, **RICH_TRAINING)
    for name in ("model.conv1.weight", "training.dense1.bias", "second_moment.neuron1.weight"):
        missing = {key: array for key, array in arrays.items() if key != name}
        with pytest.raises(KeyError, match=name.split(".", 1)[1]):
            trainer.restore(missing, progress)
        with pytest.raises(ValueError, match=name.split(".", 1)[1]):
            trainer.restore(arrays | {name: arrays[name].reshape(-1, 1)}, progress)


# ------------------------------------------------------------------------------------------------ batches and epochs


class Noting:
    """The reference, noting which photos each step's first layer, a dense one, sees."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self._rows: dict[bytes, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(reference, name)

    def prepare_photos(self, out: Any, pixels: Any, rows: Any, *rest: Any) -> None:
        reference.prepare_photos(out, pixels, rows, *rest)
        self._rows |= {photo.tobytes(): row for photo, row in zip(out, rows.tolist(), strict=True)}

    def dense_forward(self, out: Any, x: Any, *rest: Any) -> None:
        self.batches.append([self._rows[photo.tobytes()] for photo in x])
        reference.dense_forward(out, x, *rest)


@settings(deadline=None, derandomize=True, max_examples=25)
@example(count=22, batch_size=8, seed=0)
@example(count=3, batch_size=40, seed=0)
@given(count=st.integers(1, 30), batch_size=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
def test_batches_are_equal_within_one_photo_and_show_every_photo_once(count: int, batch_size: int, seed: int) -> None:
    noting = Noting()
    photos = photos_of(np.arange(count + 5) % 2)
    chosen = np.random.default_rng(0).permutation(count + 5)[:count]
    trainer = make_trainer(
        (Dense(units=2),), photos=photos, train_indices=chosen, validation=NOBODY, augment=None, backend=noting,
        train={"epochs": 2, "batch_size": batch_size, "seed": seed},
    )  # fmt: skip
    recorder = trained(trainer)
    per_epoch = len(noting.batches) // 2
    epochs = [noting.batches[:per_epoch], noting.batches[per_epoch:]]
    for batches in epochs:
        sizes = [len(batch) for batch in batches]
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1
        assert per_epoch == -(-count // batch_size)
        assert sorted(row for batch in batches for row in batch) == sorted(chosen)
    if count >= 10:
        assert epochs[0] != epochs[1], "every epoch has an order of its own"
    assert [report.photos for report in recorder.steps[:per_epoch]] == np.cumsum([len(b) for b in epochs[0]]).tolist()
    assert trainer.steps == len(recorder.steps) == recorder.epochs[-1]["step"]


def losses_of_one_network(seed: int, augment: Any) -> list[float]:
    """Of each epoch the loss of all photos in a network that stays as it is: it depends on how they were changed."""
    weights = make_trainer(SMOKE).network.weights.to_host()
    training = make_trainer(
        SMOKE,
        optimizer=Sgd(learning_rate=1e-30),
        augment=augment,
        initial_arrays={name: array for name, array in weights.items() if name.endswith(("weight", "bias"))},
        train={"epochs": 4, "seed": seed},
    )
    return [epoch["train_loss"] for epoch in trained(training).epochs]


def test_photos_come_in_another_order_in_every_epoch_and_with_every_seed() -> None:
    orders = []
    for seed in (1, 2):
        noting = Noting()
        train = {"epochs": 3, "batch_size": 8, "seed": seed}
        trained(make_trainer((Dense(units=2),), validation=NOBODY, augment=None, backend=noting, train=train))
        shown = [row for batch in noting.batches for row in batch]
        assert len(shown) == 3 * 22
        orders += [tuple(shown[start : start + 22]) for start in (0, 22, 44)]
    assert len(set(orders)) == 6


def test_photos_are_changed_otherwise_in_every_epoch_and_with_every_seed() -> None:
    as_they_are, *changed = (
        losses_of_one_network(seed, augment)
        for seed, augment in ((1, None), (1, replace(PLAIN, brightness=0.2)), (2, replace(PLAIN, brightness=0.2)))
    )
    assert as_they_are == pytest.approx(as_they_are[:1] * 4, rel=1e-6)
    assert len({*changed[0], *changed[1]}) == 8
    assert np.std(changed) > 1e-4 * as_they_are[0]


def test_with_few_photos_there_are_as_many_epochs_as_the_steps_take() -> None:
    assert make_trainer(train={"epochs": 3, "least_steps": 100}).epochs == 34
    assert make_trainer(train={"epochs": 40, "least_steps": 100}).epochs == 40


def test_the_rate_follows_the_schedule() -> None:
    recorder = trained(make_trainer(schedule=Constant(warmup=0.5), optimizer=AdamW(learning_rate=0.02)))
    rates = [epoch["learning_rate"] for epoch in recorder.epochs]
    # Nine steps, four of them warm-up to a fifth each; an epoch tells its last step's rate.
    assert rates == pytest.approx([0.02 * 3 / 5, 0.02, 0.02])


def test_it_learns() -> None:
    recorder = trained(make_trainer(train={"epochs": 15}))
    last = recorder.epochs[-1]
    assert last["validation_accuracy"] == 1
    assert last["train_accuracy"] > 0.9
    assert last["train_loss"] < recorder.epochs[0]["train_loss"] / 3
    assert all(change > 0 for change in last["kernel_change"].values())


def test_batch_norm_of_single_photos_is_refused() -> None:
    layers = (Dense(units=3), BatchNorm(), Dense(units=2))
    with pytest.raises(UsageError, match=r"train\.batch_size 1: with 22 photos.*one photo.*batch_norm"):
        make_trainer(layers, train={"batch_size": 1})
    with pytest.raises(UsageError, match="batches of one photo"):
        make_trainer(layers, photos=photos_of([0, 1, 0]), train={"batch_size": 2})
    make_trainer(layers, train={"batch_size": 2})
    make_trainer((Dense(units=2),), train={"batch_size": 1})


@pytest.mark.parametrize("how", ["lsuv", "zca_patches"])
def test_initial_weights_are_made_for_photos_that_are_trained_on(how: str) -> None:
    photos, chosen, others = photos_of(LABELS), np.arange(12), np.arange(12, 22)
    weights = []
    for changed in ([], others, chosen):
        pixels = photos.pixels.copy()
        pixels[changed] = pixels[changed][:, ::-1] // 2
        trainer = make_trainer(
            photos=replace(photos, pixels=pixels),
            train_indices=chosen,
            backend=reference,
            train={"initialisation": how},
        )
        weights.append(in_bytes(trainer.network.weights.to_host()))
    assert weights[0] == weights[1] != weights[2]


# ------------------------------------------------------------------------------------------------------ what is kept


def test_best_is_the_epoch_with_the_lowest_validation_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facecnn.learning.loop.VALIDATION_SHARE", 1.0)
    recorder = trained(make_trainer(RICH, **RICH_TRAINING))
    losses = {epoch["epoch"]: epoch["validation_loss"] for epoch in recorder.epochs}
    assert len(losses) > 2
    state = recorder.bests[-1][1]
    assert state["best_epoch"] == state["epoch"] == min(losses, key=losses.__getitem__)
    assert state["best_loss"] == min(losses.values())


def judged_epochs(**changes: Any) -> list[int]:
    """Epochs after which the held-out photos were judged."""
    recorder = trained(make_trainer(**changes))
    return [epoch["epoch"] for epoch in recorder.epochs if epoch["validation_loss"] is not None]


def test_short_epochs_end_with_a_validation_only_if_it_costs_little() -> None:
    # A photo in a step takes as long as three passes, and a held-out one is passed twice, also mirrored: four of them
    # may be judged after 8 / (3 * 0.03) = 88.9 photos of training, so after five epochs of 22; one after two.
    assert judged_epochs(validation=photos_of(np.array([0, 1, 0, 1])), train={"epochs": 12}) == [5, 10, 12]
    assert judged_epochs(validation=photos_of(np.array([0])), train={"epochs": 3}) == [2, 3]


def test_many_held_out_photos_are_judged_after_two_hundred_steps() -> None:
    # 67 epochs of three steps
    assert judged_epochs(validation=photos_of(np.arange(1000) % 2), train={"epochs": 135}) == [67, 134, 135]


@pytest.mark.parametrize(
    "changes",
    [{"schedule": Plateau()}, {"train": {"stop_after_epochs_without_gain": 100}}, {"optimizer": LineSearch()}],
    ids=["plateau", "patience", "full batch"],
)
def test_held_out_photos_are_judged_after_each_epoch_that_matters(changes: dict[str, Any]) -> None:
    train = {"epochs": 3, **changes.get("train", {})}
    assert judged_epochs(**{"validation": photos_of(np.arange(60) % 2), **changes, "train": train}) == [1, 2, 3]


@pytest.mark.parametrize("average", [None, 0.9])
def test_best_holds_the_weights_of_its_epoch(average: float | None) -> None:
    changes: dict[str, Any] = {"validation": MISLABELLED, "train": {"epochs": 8, "average_weights": average}}
    whole = trained(make_trainer(**changes))
    arrays, state = whole.bests[-1]
    assert state["epoch"] < 8
    trainer = make_trainer(**changes)
    recorder = Recorder()
    assert not trainer.run(recorder, lambda: trainer.progress.step == 3 * state["epoch"])
    assert arrays == in_bytes({f"model.{name}": array for name, array in trainer.step.arrays.model.to_host().items()})
    current = in_bytes(trainer.network.weights.to_host())["conv1.weight"]
    assert (arrays["model.conv1.weight"] == current) == (average is None)


def test_without_validation_the_last_is_the_best() -> None:
    recorder = trained(make_trainer(validation=NOBODY))
    arrays, state = recorder.bests[-1]
    assert state["epoch"] == 3
    assert arrays == {name: array for name, array in recorder.lasts[-1][0].items() if name.startswith("model.")}
    assert recorder.epochs[-1]["validation_loss"] is None
    assert recorder.epochs[-1]["validation_accuracy"] is None


def test_saves_are_some_steps_apart(uninterrupted: Recorder) -> None:
    steps = [state["step"] for _, state in uninterrupted.lasts]
    assert steps == [-(-BETWEEN_SAVES // 3) * 3, 3 * EPOCHS]
    assert not any(uninterrupted.interrupted)


def test_the_more_work_a_step_is_the_fewer_are_between_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = (Dense(units=2),)
    work = 8 * SIDE * SIDE * 2  # multiply-adds of a batch
    monkeypatch.setattr("facecnn.learning.loop.LEAST_STEPS_BETWEEN_SAVES", 4)
    monkeypatch.setattr("facecnn.learning.loop.MOST_STEPS_BETWEEN_SAVES", 16)
    for steps, saved in ((1, [6, 12, 18, 24, 30]), (10, [12, 24, 30]), (100, [18, 30])):  # epochs of three steps
        monkeypatch.setattr("facecnn.learning.loop.WORK_BETWEEN_SAVES", steps * work)
        recorder = trained(make_trainer(layers, train={"epochs": 10}))
        assert [state["step"] for _, state in recorder.lasts] == saved


def test_validation_accuracy_is_counted_over_all_outputs() -> None:
    labels = np.array([0, 1, 2, 2])  # the third output is everybody else
    trainer = make_trainer(
        photos=photos_of(np.arange(24) % 3), validation=photos_of(labels, seed=4), outputs=3,
        train={"epochs": 1},
    )  # fmt: skip
    metrics = trained(trainer).epochs[0]
    answers = trainer.answers(trainer.data.validation)
    assert answers.shape == (4, 3)
    assert metrics["validation_accuracy"] == (answers.argmax(axis=1) == labels).mean()
    assert metrics["validation_loss"] == pytest.approx(-answers[np.arange(4), labels].mean())


def test_average_weights_follows_its_formula() -> None:
    decay = 0.3
    trainer = make_trainer(train={"average_weights": decay, "epochs": 2})
    expected = trainer.network.weights.to_host()
    expected = {name: array.astype(np.float64) for name, array in expected.items()}

    class Following(Recorder):
        def step(self, step: Any) -> None:
            t = step.step - 1
            d = min(decay, (1 + t) / (10 + t))
            for name, array in trainer.network.weights.to_host().items():
                expected[name] = d * expected[name] + (1 - d) * array

    assert trainer.run(Following())
    for name, array in trainer.step.arrays.model.to_host().items():
        assert array == pytest.approx(expected[name], rel=1e-5, abs=1e-6), name
    current = trainer.network.weights.to_host()["conv1.weight"]
    assert not np.allclose(trainer.step.arrays.model.to_host()["conv1.weight"], current, rtol=1e-5)


@pytest.mark.parametrize("freeze", [1, 2, 4])
def test_frozen_layers_keep_weights_and_statistics_to_the_bit(freeze: int) -> None:
    trainer = make_trainer(RICH, train={"freeze": freeze, "average_weights": 0.5}, optimizer=AdamW(weight_decay=0.5))
    frozen = {stage.name for stage in trainer.network.stages if stage.index < freeze}
    before = in_bytes(trainer.network.weights.to_host())
    trained(trainer)
    for arrays in (trainer.network.weights.to_host(), trainer.step.arrays.model.to_host()):
        same = {name for name, array in in_bytes(arrays).items() if array == before[name]}
        assert same == {name for name in before if name.split(".")[0] in frozen}


def test_freezing_everything_is_refused() -> None:
    with pytest.raises(UsageError, match=r"train\.freeze 99: no layer is left to train"):
        make_trainer(RICH, train={"freeze": 99})


# -------------------------------------------------------------------------------------------------- when it ends


def test_patience_ends_it_so_many_epochs_after_the_best() -> None:
    recorder = trained(make_trainer(validation=MISLABELLED, train={"epochs": 40, "stop_after_epochs_without_gain": 3}))
    losses = [epoch["validation_loss"] for epoch in recorder.epochs]
    assert len(losses) == int(np.argmin(losses)) + 1 + 3 < 40
    assert recorder.lasts[-1][1]["finished"]


def test_stops_that_would_never_come_are_refused() -> None:
    with pytest.raises(UsageError, match="no held-out photos"):
        make_trainer(validation=NOBODY, train={"stop_after_epochs_without_gain": 1})
    with pytest.raises(UsageError, match="the cross-entropy is meant"):
        make_trainer(loss=MeanSquaredError(), train={"stop_when_worst_loss_below": 0.1})


def test_it_ends_when_even_the_worst_photo_is_learned() -> None:
    recorder = trained(make_trainer(train={"epochs": 60, "stop_when_worst_loss_below": 0.3}))
    worst = [epoch["train_worst_loss"] for epoch in recorder.epochs]
    assert worst[-1] < 0.3
    assert all(loss >= 0.3 for loss in worst[:-1])
    assert len(worst) < 60
    assert all(epoch["train_loss"] <= epoch["train_worst_loss"] for epoch in recorder.epochs)


@pytest.mark.parametrize("validation", [photos_of(HELD_OUT), NOBODY], ids=["validation", "none"])
@pytest.mark.parametrize("batch_size", [8, 22], ids=["in-mid-epoch", "in-the-last-step"])
def test_divergence_is_said_and_leaves_the_last_save_alone(validation: Any, batch_size: int) -> None:
    recorder = Recorder()
    good = make_trainer(validation=validation, train={"batch_size": batch_size, "epochs": 4})
    assert not good.run(recorder, lambda: good.progress.step >= 2)
    lasts, bests = list(recorder.lasts), list(recorder.bests)
    assert lasts
    wild = overflowing(validation=validation, train={"batch_size": batch_size, "epochs": 1})
    with pytest.raises(DivergedError, match=r"diverged in epoch 1, step \d: .*\nTake a smaller learning rate"):
        wild.run(recorder)
    assert recorder.lasts == lasts
    assert recorder.bests == bests


def test_an_interrupt_right_after_the_weights_overflowed_saves_nothing() -> None:
    recorder = Recorder()
    with pytest.raises(DivergedError, match="step 1: there are weights that are no longer numbers"):
        overflowing().run(recorder, lambda: True)
    assert len(recorder.steps) == 1
    assert not recorder.lasts
    assert not recorder.bests


def test_a_loss_beyond_measure_is_divergence_though_it_is_a_number() -> None:
    trainer = make_trainer(optimizer=Sgd(learning_rate=0.01, clip=1.0), train={"epochs": 1})
    trainer.network.weights.by_stage["dense1"]["weight"][...] *= 1e9
    recorder = Recorder()
    with pytest.raises(DivergedError, match=r"diverged in epoch 1, step 3: the loss is \de\+"):
        trainer.run(recorder)
    assert not recorder.lasts
    assert not recorder.bests


def overflowing(**changes: Any) -> Trainer:
    """A training whose first step takes the weights beyond float32, after a loss that was fine."""
    trainer = make_trainer(optimizer=Momentum(learning_rate=3e38), schedule=Constant(), **changes)
    trainer.network.weights.by_stage["dense1"]["weight"][...] *= 100
    return trainer


# ------------------------------------------------------------------------------------------------------------- losses


def test_balanced_class_weights_count_every_person_alike() -> None:
    labels = np.array([0] * 15 + [1] * 5 + [1] * 10)  # the last ten are not trained on
    changes: dict[str, Any] = {
        "photos": photos_of(labels), "train_indices": np.arange(20), "train": {"epochs": 1, "batch_size": 20},
        "optimizer": Momentum(learning_rate=0.1, momentum=0.0), "schedule": Constant(), "augment": None,
        "backend": reference,
    }  # fmt: skip
    layers = (Dense(units=2),)

    def moved(loss: CrossEntropy) -> Any:
        trainer = make_trainer(layers, loss=loss, **changes)
        trainer.network.weights.parameters.flat[...] = 0
        trained(trainer)
        return trainer.network.weights.to_host()["dense1.bias"]

    # From weights of zero both answers are as likely; the bias moves by how far the labels are from even.
    assert moved(CrossEntropy()) == pytest.approx([0.1 * (0.75 - 0.5), -0.1 * (0.75 - 0.5)], rel=1e-5)
    assert moved(CrossEntropy(class_weights="balanced")) == pytest.approx([0, 0], abs=1e-7)


def test_mean_squared_error_trains() -> None:
    recorder = trained(make_trainer(loss=MeanSquaredError(), train={"epochs": 15}))
    assert recorder.epochs[-1]["validation_accuracy"] == 1
    assert recorder.epochs[-1]["train_loss"] < recorder.epochs[0]["train_loss"]


def test_photos_may_lie_in_any_order_in_the_pixels() -> None:
    order = np.random.default_rng(3).permutation(len(LABELS))
    plain = photos_of(LABELS)
    shuffled = replace(plain, pixels=plain.pixels[order], rows=np.argsort(order).astype(np.int32))
    changes: dict[str, Any] = {"augment": PLAIN, "train": {"epochs": 1}}
    assert (
        trained(make_trainer(photos=plain, **changes)).lasts == trained(make_trainer(photos=shuffled, **changes)).lasts
    )


def test_answers_use_the_average_and_mirror_where_training_mirrors() -> None:
    trainer = make_trainer(train={"average_weights": 0.9})
    assert trainer.mirrors
    assert not make_trainer(augment=None).mirrors
    assert not make_trainer(augment=PLAIN).mirrors
    trained(trainer)
    photos = trainer.data.validation
    flipped = replace(photos, pixels=np.ascontiguousarray(photos.pixels[:, :, ::-1]))
    assert trainer.answers(photos) == pytest.approx(trainer.answers(flipped), abs=1e-5)
    before = trainer.answers(photos)
    trainer.network.weights.from_host({name: array * 2 for name, array in trainer.network.weights.to_host().items()})
    assert np.array_equal(trainer.answers(photos), before)


class _Objectives(Recorder):
    """Those of each step."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self._trainer = trainer
        self.found: list[float] = []

    def step(self, step: StepReport) -> None:
        self.found.append(self._trainer.objective())


@pytest.mark.parametrize("loss", [CrossEntropy(label_smoothing=0.1, class_weights="balanced"), MeanSquaredError()])
@pytest.mark.parametrize("micro_batch_size", [1, 3, 7])
def test_a_batch_in_parts_has_the_same_gradient(loss: Any, micro_batch_size: int) -> None:
    layers = (SMOKE[0], Dropout(rate=0.2), *SMOKE[1:])
    labels = np.array([0, 0, 1, 0, 0, 0, 1, 0])
    weights, gradients, objectives = [], [], []
    for size in (None, micro_batch_size):
        trainer = make_trainer(layers, loss=loss, photos=photos_of(labels), train={"epochs": 2}, micro_batch_size=size)
        recorder = _Objectives(trainer)
        trainer.run(recorder)
        assert trainer.network.gradient is not None
        weights.append(np.array(trainer.network.weights.parameters.flat))
        gradients.append(np.array(trainer.network.gradient.flat))
        objectives.append(recorder.found)
    np.testing.assert_allclose(gradients[1], gradients[0], atol=1e-5 * np.abs(gradients[0]).max())
    np.testing.assert_allclose(weights[1], weights[0], atol=1e-4)
    assert objectives[1] == pytest.approx(objectives[0], rel=1e-4)


def test_photos_sent_batch_by_batch_train_to_the_same_bytes(uninterrupted: Recorder) -> None:
    trainer = make_trainer(RICH, backend=SMALL_DEVICE, **RICH_TRAINING)
    assert trainer.step.streamed
    assert trained(trainer).lasts == uninterrupted.lasts


def test_a_profile_says_where_a_step_takes_its_time_and_changes_nothing(uninterrupted: Recorder) -> None:
    recorder = trained(make_trainer(RICH, profile=True, **RICH_TRAINING))
    assert recorder.lasts == uninterrupted.lasts
    for epoch in recorder.epochs:
        places = epoch["milliseconds"]
        assert all(value > 0 for value in places.values())
        assert {"batch", "augmentation", "loss", "update", "conv1 forward", "conv1 backward_weight"} < set(places)
        assert "conv1 backward" not in places  # nothing lies below that could learn
        assert {f"{layer} {way}" for layer in ("dropout1", "batch_norm1") for way in ("forward", "backward")} < {
            *places
        }
        assert sum(places.values()) < 1000 * epoch["seconds"]


def test_figures_are_read_once_in_a_while_and_at_the_end_of_an_epoch() -> None:
    reads = []
    backend: Any = SimpleNamespace(**{**vars(cpu), "to_host": lambda array: reads.append(1) or cpu.to_host(array)})
    trainer = make_trainer(backend=backend, photos=photos_of(np.arange(60) % 2), train={"batch_size": 2, "epochs": 1})
    seen = []
    recorder = Recorder()
    recorder.step = lambda step: seen.append((step.step, len(reads)))  # type: ignore[method-assign]
    reads.clear()
    assert trainer.run(recorder)
    at = [step for (step, count), (_, before) in zip(seen, [(0, 0), *seen[:-1]], strict=True) if count > before]
    assert at == [1, 11, 21, 30]


@pytest.mark.parametrize(
    ("bytes_at_once", "expected"), [(0, 30 * [2]), (5000, [*7 * [8], 4]), (2**18, [16, 16, 16, 12])]
)
def test_small_batches_are_prepared_several_at_once_to_the_same_bits(
    bytes_at_once: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of two photos has 1,152 bytes; at most eight are prepared at once, and none of another epoch."""
    many: dict[str, Any] = {"photos": photos_of(np.arange(60) % 2), "train": {"batch_size": 2, "epochs": 2}}
    plain = trained(make_trainer(RICH, **many))
    monkeypatch.setattr("facecnn.learning.batches.PREPARED_BYTES", bytes_at_once)
    prepared: list[int] = []

    def prepare_photos(out: Any, *arguments: Any) -> None:
        prepared.append(len(out))
        cpu.prepare_photos(out, *arguments)

    plainly: Any = lambda function, workspace: function  # noqa: E731  (a recording would not call it each time)
    backend: Any = SimpleNamespace(**{**vars(cpu), "prepare_photos": prepare_photos, "record": plainly})
    trainer = make_trainer(RICH, backend=backend, validation=NOBODY, **many)
    assert trainer.run(Recorder())
    assert prepared == [*expected, *expected]
    assert in_bytes(trainer.step.arrays.model.to_host()) == {
        name.removeprefix("model."): array for name, array in plain.lasts[-1][0].items() if name.startswith("model.")
    }


@pytest.mark.parametrize(
    ("prepared_at_once", "batches_of_work", "expected"),
    [
        (2**18, 100, [8, 16, 24, 29, 30]),
        (0, 100, [8, 16, 24, 29, 30]),
        (3 * 1152, 100, [6, 12, 18, 24, 29, 30]),
        (0, 4, [*range(4, 29, 4), 29, 30]),
        (2**18, 0, [8, 16, 24, 29, 30]),
        (0, 0, list(range(1, 31))),
    ],
)
def test_steps_with_small_batches_are_made_in_one_go_to_the_same_bits(
    prepared_at_once: int, batches_of_work: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of two photos has 1,152 bytes. The last of an epoch is made by itself, as its kernels may be watched."""
    many: dict[str, Any] = {"photos": photos_of(np.arange(60) % 2), "train": {"batch_size": 2, "epochs": 3}}
    trainer = make_trainer(RICH, **many)
    single = trained(trainer)
    monkeypatch.setattr("facecnn.learning.batches.PREPARED_BYTES", prepared_at_once)
    work = 2 * measure(trainer.network.stages, 2).multiply_adds
    monkeypatch.setattr("facecnn.learning.batches.GROUP_MULTIPLY_ADDS", batches_of_work * work)
    recorder = Recorder(every_step=False)
    assert make_trainer(RICH, **many).run(recorder)
    assert [report.step for report in recorder.steps] == [30 * epoch + step for epoch in range(3) for step in expected]
    assert recorder.lasts == single.lasts
    assert recorder.figures() == single.figures()
    by_step = {report.step: report for report in single.steps}
    for report in recorder.steps:
        assert report.photos == by_step[report.step].photos
        if report.step % 30 == 0:
            assert report == by_step[report.step]


BY_TWOS: dict[str, Any] = {"train": {"batch_size": 2, "average_weights": 0.9}}


@pytest.fixture(scope="module")
def uninterrupted_by_twos() -> Recorder:
    return trained(make_trainer(RICH, **BY_TWOS))


@settings(deadline=None, derandomize=True, max_examples=12)
@given(rounds=st.lists(st.tuples(st.integers(1, 33), st.booleans()), max_size=4))
@example(rounds=[(5, True), (6, False), (20, False)])  # from amid batches that are prepared at once
def test_stopped_amid_small_batches_and_gone_on_with_is_the_same(
    uninterrupted_by_twos: Recorder, rounds: list[tuple[int, bool]]
) -> None:
    recorder = Recorder()
    trainer = make_trainer(RICH, **BY_TWOS)
    for stop, recorder.every_step in [*rounds, (34, False)]:
        if trainer.run(recorder, lambda: trainer.progress.step >= stop):  # noqa: B023
            break
        assert recorder.saved is not None
        trainer = make_trainer(RICH, **BY_TWOS)
        trainer.restore(*recorder.saved)
    assert recorder.lasts[-1] == uninterrupted_by_twos.lasts[-1]
    assert recorder.bests[-1] == uninterrupted_by_twos.bests[-1]
    assert recorder.figures() == uninterrupted_by_twos.figures()


# ------------------------------------------------------------------------------------------- full-batch optimizers

MINIMISED: dict[str, Any] = {"train": {"epochs": 8, "least_steps": 0}}


@pytest.mark.parametrize("optimizer", [LineSearch(), Lbfgs(history=3), NewtonCg(products=4)], ids=lambda m: m.name)
@pytest.mark.parametrize("layers", [SMOKE, RICH], ids=["smoke", "with batch norm and dropout"])
def test_a_full_batch_optimizer_lowers_the_loss_and_goes_on_to_the_same_bits(optimizer: Any, layers: Any) -> None:
    def make() -> Trainer:
        return make_trainer(layers, optimizer=optimizer, **MINIMISED)

    whole = trained(make())
    losses = [epoch["train_loss"] for epoch in whole.epochs]
    assert losses[-1] < 0.8 * losses[0]
    assert all(later <= earlier + 1e-6 for earlier, later in itertools.pairwise(losses))

    trainer = make()
    recorder = Recorder()
    assert not trainer.run(recorder, stop=lambda: trainer.progress.step == 4)
    resumed = make()
    assert recorder.saved is not None
    resumed.restore(*recorder.saved)
    rest = trained(resumed)
    assert rest.lasts[-1] == whole.lasts[-1]
    assert rest.figures() == whole.figures()[-len(rest.epochs) :]


def test_a_full_batch_optimizer_sees_all_photos_at_once_without_chance() -> None:
    trainer = make_trainer(RICH, optimizer=LineSearch(), **MINIMISED)
    assert trainer.steps_per_epoch == 1
    nothing_drops = make_trainer((SMOKE[0], BatchNorm(), *SMOKE[1:]), optimizer=LineSearch(), **MINIMISED)
    nothing_drops.network.weights.from_host(trainer.network.weights.to_host())
    assert trainer.step.loss.here().loss == nothing_drops.step.loss.here().loss
    first, again = (trainer.step.loss.here() for _ in range(2))
    assert first.loss == again.loss  # nothing is drawn anew
    assert trainer.micro_batch_size == len(LABELS)  # batch norm takes them all together
    assert make_trainer(SMOKE, optimizer=LineSearch(), **MINIMISED).micro_batch_size == 8  # else they come in parts


def test_a_full_batch_optimizer_sees_the_chosen_photos_with_their_own_labels() -> None:
    photos, chosen = photos_of(LABELS), np.array([7, 3, 1, 4, 8, 9, 21, 16, 15, 11])
    alone = replace(photos, rows=photos.rows[chosen], labels=photos.labels[chosen])
    points = [
        make_trainer(photos=seen, train_indices=numbers, optimizer=LineSearch(), **MINIMISED).step.loss.here()
        for seen, numbers in ((photos, chosen), (alone, np.arange(10)))
    ]
    assert points[0].loss == points[1].loss
    assert np.array_equal(points[0].gradient, points[1].gradient)


@pytest.mark.parametrize("layers", [RICH, SMOKE], ids=["all at once", "in parts"])
def test_the_whole_sets_gradient_is_that_of_its_loss(layers: Any) -> None:
    trainer = make_trainer(layers, optimizer=Lbfgs(weight_decay=0.1), backend=reference, **MINIMISED)
    whole = trainer.step.loss
    start = whole.here()
    direction = np.random.default_rng(0).standard_normal(len(start.w))
    direction /= np.linalg.norm(direction)
    h = 2e-2
    above, below = (whole.evaluate(start.w + sign * h * direction)[0] for sign in (1, -1))
    assert (above - below) / (2 * h) == pytest.approx(float(direction @ start.gradient), rel=2e-2, abs=1e-4)


def test_a_training_ends_when_nothing_better_is_found() -> None:
    optimizer = Lbfgs(weight_decay=1.0)
    recorder = trained(make_trainer(optimizer=optimizer, train={"epochs": 500, "least_steps": 0}))
    assert len(recorder.epochs) < 500
    assert all(isinstance(epoch["learning_rate"], float) for epoch in recorder.epochs)
    json.dumps(recorder.epochs, allow_nan=False)
