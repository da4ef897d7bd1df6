"""experiments/linear_neuron.py: the learning rate's limit, and what lands in one step."""

from pathlib import Path

import pytest

from scripts.running import Row, assert_picture, run_script

NEWTON = "Newton, rate 1"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    picture = tmp_path_factory.mktemp("linear_neuron") / "picture.png"
    done = run_script("experiments/linear_neuron", "--output", picture)
    assert done.exit_code == 0, done.stderr
    assert "2/14 = 0.1429" in done.stdout
    passed = next(step for step in range(20) if 0.00005 * 2.5 ** (2 * step) > 50)
    assert f"output -0.01, error 5e-05; more than 50 after {passed} steps" in done.stdout
    assert_picture(picture)
    (table,) = done.tables
    return {row["rate"]: row for row in table}


def error(row: Row, step: int) -> float:
    return float(row[f"error after {step}"])


@pytest.mark.parametrize("rate", ["0.25", "1", "1.01 · 2/14"])
def test_above_the_limit_it_diverges(rows: dict[str, Row], rate: str) -> None:
    assert rows[rate]["verdict"] == "diverges"
    assert 50 < error(rows[rate], 1) < error(rows[rate], 5) < error(rows[rate], 20)


@pytest.mark.parametrize("rate", ["0.01", "0.1", "0.99 · 2/14"])
def test_below_the_limit_it_learns(rows: dict[str, Row], rate: str) -> None:
    assert rows[rate]["verdict"] == "learns"
    assert 50 > error(rows[rate], 1) > error(rows[rate], 5) > error(rows[rate], 20)


def test_at_the_limit_it_swings(rows: dict[str, Row]) -> None:
    assert error(rows["2/14"], 1) == error(rows["2/14"], 20) == 50


@pytest.mark.parametrize("name", ["1/14", NEWTON])
def test_lands_in_one_step(rows: dict[str, Row], name: str) -> None:
    assert rows[name]["verdict"] == "lands in one step"
    assert error(rows[name], 1) < 1e-20


@pytest.mark.parametrize(("rate", "value"), [("0.01", 0.01), ("0.1", 0.1), ("0.25", 0.25), ("1", 1.0)])
def test_a_step_multiplies_the_output(rows: dict[str, Row], rate: str, value: float) -> None:
    """By 1 - 14 * rate: that is why a rate of 1 doesn't land."""
    assert float(rows[rate]["output times"]) == pytest.approx(1 - 14 * value)
    assert error(rows[rate], 1) == pytest.approx(50 * (1 - 14 * value) ** 2, rel=0.01)


def test_small_weights_of_mixed_signs_only_take_longer(rows: dict[str, Row]) -> None:
    """0.02 - 2 · 0.03 + 3 · 0.01 = -0.01, an error of 0.00005; then the same factor, for ever."""
    row = rows["0.25, small weights"]
    assert row["output times"] == rows["0.25"]["output times"] == "-2.5"
    assert row["verdict"] == "diverges"
    for step in (1, 2, 5, 20):
        assert error(row, step) == pytest.approx(0.00005 * 2.5 ** (2 * step), rel=0.01)
    assert error(row, 5) < 1


def test_help_and_wrong_arguments(tmp_path: Path) -> None:
    assert "--steps" in run_script("experiments/linear_neuron", "--help").stdout
    assert run_script("experiments/linear_neuron", "--steps", "0").exit_code == 2
    assert run_script("experiments/linear_neuron", "--output", tmp_path / "missing" / "picture.png").exit_code == 6
