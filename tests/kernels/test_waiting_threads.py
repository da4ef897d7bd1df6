"""How threads that have nothing to do wait for the next loop: ``conftest.py`` decides for all other tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from facecnn.kernels import spinning
from facecnn.kernels.cpu import jit

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def said() -> dict[str, str]:
    """What the environment says about it."""
    return {name: os.environ[name] for name in NAMES if name in os.environ}


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What the environment says whenever threads are started; at first it says nothing."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(spinning, "_seen", None)
    found: list[dict[str, str]] = []
    monkeypatch.setattr(jit.numba, "set_num_threads", lambda count: found.append(said()))
    return found


@pytest.mark.parametrize(
    ("free", "waiting"), [(True, {"GOMP_SPINCOUNT": "10000"}), (False, {"OMP_WAIT_POLICY": "passive"})]
)
def test_they_spin_where_processors_are_free(
    free: bool, waiting: dict[str, str], started: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit, "processors_are_free", lambda count: free)
    jit.set_threads(2)
    assert started == [waiting]
    assert said() == {}


@pytest.mark.parametrize("name", NAMES)
def test_what_the_user_has_set_stays(name: str, started: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "7")
    jit.set_threads(2)
    assert started == [{name: "7"}] == [said()]


@pytest.mark.parametrize(("running", "free"), [(1, True), (3, True), (4, False)])
def test_free_are_those_that_no_program_runs_on(running: int, free: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four processors, of which this program wants two; among the running is the program itself."""
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(Path, "read_text", lambda path, **options: f"0.10 0.20 0.30 {running}/200 4321\n")
    assert spinning.processors_are_free(2) is free


@pytest.mark.parametrize("free", [True, False])
def test_what_was_seen_before_holds(free: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process has started since is no reason to wait asleep."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    running = iter([1 if free else 3] * 5)
    monkeypatch.setattr(Path, "read_text", lambda path, **options: f"0.10 0.20 0.30 {next(running, 2)}/200 4321\n")
    spinning.look_for_free_processors(2)
    running = iter(())
    assert spinning.processors_are_free(2) is free


def test_where_the_system_does_not_tell_none_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(path: Path, **options: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", absent)
    assert not spinning.processors_are_free(1)
