"""Whole commands with the real compiler, loader and launches, on a driver without a card."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest

from conftest import WritePeople
from cuda_backend.standin_driver.machine import Machine, Ran
from facecnn.config import load
from facecnn.network.size import CARD_SHARE, card_bytes
from facecnn.runs.checkpoint import load_checkpoint

pytestmark = pytest.mark.ptx

WORK = ("cuMemAlloc", "cuMemHostAlloc", "cuLaunchKernelEx", "cuGraphLaunch", "cuMemcpyHtoD", "cuMemcpyDtoH")


def good(ran: Ran) -> Ran:
    assert ran.exit_code == 0, ran.stderr
    assert not [call for call in ran.calls if call.result]
    return ran


@pytest.fixture(scope="module")
def trained(machine: Machine, people: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    """A training on the second card, and its run."""
    out = tmp_path_factory.mktemp("runs")
    options = ("-c", "smoke", "--epochs", "4", "--device", "cuda:1", "--out", out, "--name", "run")
    return good(machine.run("train", people, *options, cards=2)), out / "run"


def devices_of(ran: Ran) -> set[int]:
    return {call.device for call in ran.named(*WORK)}


def test_a_training_uses_the_card_that_was_asked_for(trained: tuple[Ran, Path]) -> None:
    ran, run = trained
    assert devices_of(ran) == {1}
    assert len(ran.named("cuGraphLaunch")) > 5
    assert (run / "best.safetensors").exists()


def test_the_doctor_tests_every_kernel_on_the_card_that_was_asked_for(machine: Machine) -> None:
    ran = machine.run("doctor", "--device", "cuda:1", "--format", "json", cards=3)
    assert not [call for call in ran.calls if call.result]
    assert devices_of(ran) == {1}
    found = ran.json()
    assert [device["memory"] for device in found["cuda"]["devices"]] == 3 * [2**33]
    assert len(found["self_test"]) > 30
    # Kernels that do nothing are wrong, but each can be compiled, loaded and launched.
    errors = [result["error"] for result in found["self_test"]]
    assert not [error for error in errors if error is not None and not error.startswith("it gave")]


@pytest.mark.parametrize("command", ["predict", "eval"])
def test_a_model_answers(command: str, machine: Machine, trained: tuple[Ran, Path], people: Path) -> None:
    ran = good(machine.run(command, people, "--model", trained[1], "--device", "cuda:0", cards=2))
    assert devices_of(ran) == {0}


def test_a_cross_validation(machine: Machine, people: Path) -> None:
    options = ("-c", "smoke", "--epochs", "2", "--folds", "2", "--device", "cuda")
    ran = good(machine.run("cross-validate", people, *options))
    assert "Fold 2 of 2" in ran.stderr


def test_a_card_that_is_full_ends_every_command_in_a_sentence(
    machine: Machine, trained: tuple[Ran, Path], people: Path, tmp_path: Path
) -> None:
    """Whichever allocation fails: some from the first to the last, since there are many. A run that was begun can be
    gone on with, and one that wasn't has left nothing."""
    count = int(trained[0].named("cuMemAlloc")[-1].figures["number"])
    assert count > 50
    unfinished = []
    for failing in (1, 2, 3, 5, 8, 13, 21, 34, 55, 80, count - 1, count):
        options = ("-c", "smoke", "--epochs", "4", "--device", "cuda:1", "--out", tmp_path / str(failing))
        ran = machine.run("train", people, *options, cards=2, fail_allocation=failing)
        ran.one_block()
        assert ran.exit_code == (5 if failing < 3 else 1)
        assert "memory is full" in ran.stderr.splitlines()[-1]
        runs = list((tmp_path / str(failing)).glob("*"))
        assert len(runs) <= 1
        unfinished += runs
    assert unfinished
    for run in unfinished:
        assert load_checkpoint(run, which="last").state["progress"] is not None
    good(machine.run("train", "--resume", unfinished[0], "--device", "cuda"))


SMALL = """
version: 1
photos: {faces: off, size: 64, normalise: none, validation: 0}
network: [{conv: {kernels: 2, size: 3, pool: 2}}, {dense: {units: people}}]
train: {epochs: 2, batch_size: 80}
"""


def test_a_batch_in_parts_leaves_room_for_the_photos_that_are_sent(
    machine: Machine, write_people: WritePeople, tmp_path: Path
) -> None:
    """And the training for the network that answers when it has ended."""
    people = write_people({"ann": 40, "bob": 40})
    config = tmp_path / "small.yaml"
    config.write_text(SMALL)
    loaded = load(str(config))
    stages, photos = loaded.plan(2), loaded.settings.photos
    memory = int(card_bytes(stages, 80) / CARD_SHARE) + 1000
    assert 2 * 80 * prod(photos.margin_shape) > memory - card_bytes(stages, 80), "photos need more than what is left"
    options = ("train", people, "-c", config, "--device", "cuda", "--out")
    ran = good(machine.run(*options, tmp_path / "runs", memory=memory))
    assert "Batches: 80 photos, of which the card takes 40 at a time" in ran.stderr
    assert "Photos: more than the card's memory takes" in ran.stderr
    pinned = ran.named("cuMemHostAlloc")
    assert len(pinned) > 1
    full = machine.run(*options, tmp_path / "none", memory=memory, fail_allocation=pinned[0].figures["number"])
    full.one_block()
    assert full.exit_code == 1
    assert "no more of this machine's memory can be pinned" in full.stderr
    assert not (tmp_path / "none").exists()
