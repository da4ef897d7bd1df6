"""Whole commands with the real compiler, loader and launches, on a driver without a card."""

from __future__ import annotations

from pathlib import Path

import pytest

from cuda_backend.standin_driver.machine import Machine, Ran

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
