"""Several ranks, which are threads of this process, train as one does on the same batches."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from facecnn.config import apply_overrides, load
from facecnn.errors import DeviceError, UsageError
from facecnn.jobs import devices
from facecnn.jobs.signals import StopRequest
from facecnn.jobs.training import ranks as sharing
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.ranks import SharedStop, check_suits_ranks
from facecnn.kernels import open_device, reference
from facecnn.kernels.cards import Card, Cuda
from facecnn.learning import loop
from facecnn.learning.loop import Trainer
from facecnn.learning.optimizers import AdamW
from facecnn.learning.schedules import Plateau
from facecnn.network.layers import BatchNorm, Residual
from facecnn.network.network import Network
from facecnn.parallel.ranks import ALONE, Alone, Ranks, share
from learning.trainings import RICH, SMOKE, Recorder, make_trainer

from .threads import on_ranks


@pytest.fixture(autouse=True)
def _in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    open_device("reference")
    monkeypatch.setattr("facecnn.learning.step.Network", partial(Network, dtype=np.float64))


def trained(ranks: Ranks, **changes: Any) -> tuple[Trainer, Recorder]:
    """A training on the reference, and what came of it."""
    layers = changes.pop("layers", RICH)
    trainer = make_trainer(layers, backend=reference, ranks=ranks, **changes)
    recorder = Recorder()
    assert trainer.run(recorder)
    return trainer, recorder


def shared(size: int, **changes: Any) -> list[tuple[Trainer, Recorder]]:
    return on_ranks(size, lambda ranks: trained(ranks, **changes))


def weights(trainer: Trainer) -> Any:
    return trainer.network.weights.to_host()


def assert_alike(found: Trainer, wanted: Trainer) -> None:
    ours, theirs = weights(found), weights(wanted)
    for name, array in theirs.items():
        np.testing.assert_allclose(ours[name], array, rtol=0, atol=1e-8, err_msg=name)
    assert found.progress.step == wanted.progress.step
    assert found.progress.best_epoch == wanted.progress.best_epoch


BLOCK = (SMOKE[0], Residual(layers=(replace(SMOKE[0], pool=None, padding="same"), BatchNorm())), *SMOKE[1:])
"""With batch norm in a layer that holds others."""


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layers": BLOCK},
        {"layers": SMOKE, "micro_batch_size": 2},
        {"train": {"average_weights": 0.9}, "optimizer": AdamW(learning_rate=0.01, clip=0.1, noise=0.01)},
        {"schedule": Plateau(patience=1), "train": {"epochs": 6, "stop_after_epochs_without_gain": 2}},
        {"train": {"restarts": 3, "restart_epochs": 1}},
        {"layers": RICH, "train": {"freeze": 2}},
        {"train": {"initialisation": "zca_patches"}},
    ],
    ids=["plain", "block", "micro-batches", "clip", "plateau", "restarts", "frozen", "patches"],
)
def test_every_way_of_training_gives_the_result_of_one_process(changes: dict[str, Any]) -> None:
    alone, _ = trained(ALONE, **changes)
    ranks = shared(2, **changes)
    for trainer, _ in ranks:
        assert_alike(trainer, alone)
    first, second = (weights(trainer) for trainer, _ in ranks)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    assert ranks[0][0].progress == ranks[1][0].progress


def test_rank_0_alone_saves_and_measures() -> None:
    (_, leading), (_, following) = shared(2)
    assert leading.lasts
    assert leading.bests
    assert not following.lasts
    assert not following.bests
    assert "kernel_change" in leading.epochs[-1]


def test_a_rank_whose_weights_drift_takes_those_of_rank_0_at_the_next_save() -> None:
    def drifting(ranks: Ranks) -> Trainer:
        trainer = make_trainer(RICH, backend=reference, ranks=ranks)

        class Drift(Recorder):
            def step(self, step: Any) -> None:
                trainer.network.weights.parameters.flat[0] += 1e-6 * ranks.rank

        assert trainer.run(Drift())
        return trainer

    first, second = (weights(trainer) for trainer in on_ranks(2, drifting))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def resumed(saved: Any, ranks: Ranks) -> Recorder:
    trainer = make_trainer(RICH, backend=reference, ranks=ranks)
    if ranks.rank == 0:
        trainer.restore(*saved)
    recorder = Recorder()
    assert trainer.run(recorder)
    return recorder


def stopped_after(step: int, ranks: Ranks) -> Recorder:
    trainer, recorder = make_trainer(RICH, backend=reference, ranks=ranks), Recorder()
    assert not trainer.run(recorder, lambda: trainer.progress.step == step)
    return recorder


def test_a_stopped_training_goes_on_with_the_same_bits_on_as_many_ranks() -> None:
    _, whole = shared(2)[0]
    saved = on_ranks(2, lambda ranks: stopped_after(4, ranks))[0].saved
    recorder = on_ranks(2, lambda ranks: resumed(saved, ranks))[0]
    assert recorder.lasts[-1] == whole.lasts[-1]
    assert recorder.epochs[-1]["train_loss"] == whole.epochs[-1]["train_loss"]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 3), (2, 3)])
def test_a_stopped_training_goes_on_with_another_number_of_ranks(before: int, after: int) -> None:
    _, whole = trained(ALONE)

    def on(size: int, function: Callable[[Ranks], Recorder]) -> Recorder:
        return function(ALONE) if size == 1 else on_ranks(size, function)[0]

    saved = on(before, lambda ranks: stopped_after(4, ranks)).saved
    recorder = on(after, lambda ranks: resumed(saved, ranks))
    assert recorder.epochs[-1]["train_loss"] == pytest.approx(whole.epochs[-1]["train_loss"], abs=1e-9)


def test_a_rank_without_a_photo_of_a_batch_is_refused() -> None:
    with pytest.raises(UsageError, match="there are batches of 7, of which 8 ranks can't have one each"):
        on_ranks(8, lambda ranks: trained(ranks))


def test_each_photo_is_held_out_on_one_rank_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    whole = loop.blocks_of_log_probabilities

    def noting(network: Any, photos: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(len(photos.rows))
        return whole(network, photos, *arguments, **options)

    monkeypatch.setattr(loop, "blocks_of_log_probabilities", noting)
    shared(4, train={"epochs": 1})
    assert sorted(seen) == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        ("smoke", ["optimizer.name=newton_cg"], "2 ranks can't share the steps of a full-batch optimizer"),
        ("smoke", ["train.initialisation=lsuv"], "each of 2 ranks has a part only"),
        ("pretrained", [], "class_means makes no steps that 2 ranks could share"),
    ],
)
def test_what_ranks_cannot_share_is_refused(config: str, overrides: list[str], message: str) -> None:
    loaded = apply_overrides(load(config), overrides)
    check_suits_ranks(loaded, ALONE)
    with pytest.raises(UsageError, match=message):
        on_ranks(2, lambda ranks: check_suits_ranks(loaded, ranks))


@pytest.mark.parametrize(
    ("cards", "device", "found"),
    [(0, "auto", "auto"), (2, "auto", "cuda:1"), (2, "cuda", "cuda:1"), (2, "cuda:0", "cuda:0"), (2, "cpu", "cpu")],
)
def test_each_rank_of_a_machine_has_a_card_and_its_part_of_the_processors(
    cards: int, device: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Cuda(available=cards > 0, cards=tuple(Card(number, "card", "card") for number in range(cards)))
    monkeypatch.setattr(devices, "find_cuda", lambda number: there)
    monkeypatch.setattr(devices, "_processors", lambda: list(range(7)))
    second = on_ranks(2, lambda ranks: sharing.options_for_rank(TrainOptions(device=device), ranks))[1]
    assert second.device == found
    assert second.threads == 3


def test_more_ranks_than_cards_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "find_cuda", lambda number: Cuda(available=True, cards=(Card(0, "card", "card"),)))
    with pytest.raises(DeviceError, match=r"2 ranks on .*, whose cards are 1"):
        on_ranks(2, lambda ranks: sharing.options_for_rank(TrainOptions(), ranks))


def test_ranks_that_are_bound_to_processors_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads(ranks: Ranks) -> int | None:
        bound.set([4 * ranks.rank + one for one in range(4)])
        return sharing.options_for_rank(TrainOptions(device="cpu"), ranks).threads

    bound: ContextVar[list[int]] = ContextVar("bound")
    monkeypatch.setattr(devices, "_processors", lambda: bound.get())
    assert on_ranks(2, threads) == [4, 4]


@pytest.mark.parametrize("count", [0, 1, 7, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_follow_each_other_and_differ_by_one_at_most(count: int, size: int) -> None:
    shares = on_ranks(size, lambda ranks: share(count, ranks))
    assert [start for start, _ in shares] == [0, *(stop for _, stop in shares[:-1])]
    assert shares[-1][1] == count
    sizes = [stop - start for start, stop in shares]
    assert max(sizes) - min(sizes) <= 1


class _SignalDuringTheExchange(Alone):
    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop

    def gather(self, value: Any) -> list[Any]:
        self._stop.number = signal.SIGINT
        return [value]


def test_a_signal_during_the_exchange_stops_all_ranks_after_the_next_step() -> None:
    own = StopRequest()
    stop = SharedStop(own, _SignalDuringTheExchange(own))
    assert [stop(), stop()] == [False, True]
    assert own.number == signal.SIGINT


def test_a_signal_to_one_rank_stops_all() -> None:
    def stopped(ranks: Ranks) -> tuple[bool, int | None]:
        own = StopRequest()
        own.number = signal.SIGTERM if ranks.rank == 1 else None
        return SharedStop(own, ranks)(), own.number

    assert on_ranks(3, stopped) == [(True, signal.SIGTERM)] * 3
