"""The tables of formulas: every backend has the same activations and optimizers, and one text says what each takes."""

from typing import get_args

import numpy as np
import pytest

from facecnn.kernels import formulas, reference
from facecnn.kernels.protocol import FUSED_ACTIVATIONS, Activation
from facecnn.kernels.update_rules import update_rule
from facecnn.learning.optimizers import OPTIMIZERS

ACTIVATIONS = list(get_args(Activation))


def test_every_activation_has_formulas() -> None:
    assert list(formulas.ACTIVATIONS) == ACTIVATIONS
    assert set(FUSED_ACTIVATIONS) < set(ACTIVATIONS)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_formulas_of_activations_in_python_are_those_of_the_reference(activation: Activation) -> None:
    x, dout = np.linspace(-3, 3, 25), np.ones(25)
    out, dx = np.zeros(25), np.zeros(25)
    reference.activation_forward(out, x, activation, 0.1, reference.Workspace())
    reference.activation_backward(dx, dout, x, out, activation, 0.1, reference.Workspace())
    value, derivative = formulas.ACTIVATIONS[activation]
    source = out if activation in FUSED_ACTIVATIONS else x
    np.testing.assert_allclose([value(np.float32(z), np.float32(0.1)) for z in x], out, atol=1e-6)
    np.testing.assert_allclose([derivative(np.float32(z), np.float32(0.1)) for z in source], dx, atol=1e-6)


def test_every_optimizer_has_a_formula_and_its_settings() -> None:
    assert {kind().rule for kind in OPTIMIZERS.values()} == set(formulas.OPTIMIZERS)
    for kind in OPTIMIZERS.values():
        rule = update_rule(kind().rule)
        assert rule.state == kind().state_names
        assert all(isinstance(getattr(kind(), setting), float) for setting in rule.settings), kind.name


def test_what_adam_takes() -> None:
    rule = update_rule("adam")
    assert rule.state == ("mean", "second_moment")
    assert rule.numbers == ("one_minus_beta1", "beta2", "one_minus_beta2", "epsilon")
    assert (rule.corrects_rate, rule.betas) == (True, ("beta1", "beta2"))
    assert rule.settings == ("beta1", "beta2", "epsilon")
    scalars = {"beta1": 0.75, "beta2": 0.875, "epsilon": 0.5, "decoupled_weight_decay": 0.25}
    assert rule.values([0, 0], scalars) == ([0.25, 0.875, 0.125, 0.5], [0.75, 0.875], 0.0, 0.25)


def test_a_step_of_an_optimizer_in_python() -> None:
    assert formulas.momentum(np.float32(1), np.float32(2), np.float32(4), np.float32(0.5), np.float32(0.25)) == (
        -0.5,
        3,
    )
    moved, mean = formulas.lion(*map(np.float32, (1, np.nan, 0, 0.5, 0.5, 0.5, 0.5, 0.5)))
    assert np.isnan(moved)
    assert np.isnan(mean)
