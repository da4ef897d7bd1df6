"""Schedules against PyTorch's ``lr_scheduler``, over all steps of a training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from facecnn.learning.schedules import Cosine, Exponential, OneCycle, Plateau, Polynomial, Schedule, Step

pytestmark = pytest.mark.parity

STEPS = 84


def schedules() -> dict[str, tuple[Schedule, Callable[[Any], Any]]]:
    from torch.optim import lr_scheduler as torch

    return {
        "step": (Step(drops=3, factor_each=0.3), lambda optimizer: torch.StepLR(optimizer, STEPS // 4, 0.3)),
        "exponential": (
            Exponential(end=0.02),
            lambda optimizer: torch.ExponentialLR(optimizer, 0.02 ** (1 / STEPS)),
        ),
        "cosine": (
            Cosine(floor=0.1),
            lambda optimizer: torch.CosineAnnealingLR(optimizer, STEPS, eta_min=0.1),
        ),
        "cosine with restarts": (
            Cosine(floor=0.1, restarts=3),
            lambda optimizer: torch.CosineAnnealingWarmRestarts(optimizer, STEPS // 4, 1, 0.1),
        ),
        "cosine with restarts, stretched": (
            Cosine(restarts=2, stretch=2),
            lambda optimizer: torch.CosineAnnealingWarmRestarts(optimizer, STEPS // 7, 2),
        ),
        "one_cycle": (
            OneCycle(warmup=0.25, start=1 / 25, end=1 / 25e4),
            lambda optimizer: torch.OneCycleLR(optimizer, 1, STEPS, pct_start=0.25, cycle_momentum=False),
        ),
        "one_cycle, linear": (
            OneCycle(warmup=0.5, start=0.1, end=0.001, shape="linear"),
            lambda optimizer: torch.OneCycleLR(
                optimizer,
                1,
                STEPS,
                pct_start=0.5,
                anneal_strategy="linear",
                cycle_momentum=False,
                div_factor=10,
                final_div_factor=100,
            ),
        ),
        "polynomial": (Polynomial(power=2.5), lambda optimizer: torch.PolynomialLR(optimizer, STEPS, 2.5)),
        "warm-up": (
            Polynomial(warmup=0.25),
            lambda optimizer: torch.SequentialLR(
                optimizer,
                [
                    # From 1/22 by 1/22 each step: the 22nd of 21 steps of warm-up is the first at the full rate.
                    torch.LinearLR(optimizer, 1 / 22, 1, 21),
                    torch.PolynomialLR(optimizer, STEPS - 21, 1),
                ],
                [21],
            ),
        ),
    }


NAMES = [
    "step",
    "exponential",
    "cosine",
    "cosine with restarts",
    "cosine with restarts, stretched",
    "one_cycle",
    "one_cycle, linear",
    "polynomial",
    "warm-up",
]


def optimizer() -> Any:
    import torch

    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def test_all_are_compared() -> None:
    assert list(schedules()) == NAMES


@pytest.mark.filterwarnings("ignore:.*epoch parameter in:UserWarning", "ignore:.*`lr_scheduler.step:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_rates_equal_torchs(name: str) -> None:
    ours, make = schedules()[name]
    theirs = optimizer()
    scheduler = make(theirs)
    for step in range(STEPS):
        expected = theirs.param_groups[0]["lr"]
        assert ours.factor(step, STEPS) == pytest.approx(expected, rel=1e-12, abs=1e-15), f"step {step}"
        theirs.step()
        if step < STEPS - 1:
            scheduler.step()


@pytest.mark.parametrize("seed", range(20))
def test_plateau_equals_torchs(seed: int) -> None:
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    random = np.random.default_rng(seed)
    patience, cooldown = (int(number) for number in random.integers(0, 5, 2))
    ours = Plateau(patience=patience, factor_each=0.4, threshold=0.02, cooldown=cooldown, floor=0.01)
    theirs = optimizer()
    scheduler = ReduceLROnPlateau(theirs, factor=0.4, patience=patience, threshold=0.02, cooldown=cooldown, min_lr=0.01)
    memory: dict[str, float] = {}
    falls = 0
    for epoch in range(100):
        loss = float(np.exp(-epoch / 20) + 0.3 * random.random())
        before = theirs.param_groups[0]["lr"]
        scheduler.step(loss)
        memory = ours.after_epoch(memory, loss)
        expected = theirs.param_groups[0]["lr"]
        falls += expected < before
        assert ours.factor(0, 100, memory) == pytest.approx(expected, rel=1e-12), f"epoch {epoch}"
    assert falls > 0
