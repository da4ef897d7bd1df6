"""experiments/flip.py: only the unflipped formula is the gradient, and some of the wrong ones learn all the same."""

import pytest

from scripts.running import Row, assert_picture, run_script

pytestmark = pytest.mark.slow  # a study that trains networks

RIGHT = "right: nothing flipped"
FLIPPED = ("input flipped", "delta flipped", "both flipped")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    picture = tmp_path_factory.mktemp("flip") / "picture.png"
    done = run_script("experiments/flip", "--steps", "250", "--seeds", "1", "--output", picture)
    assert done.exit_code == 0, done.stderr
    assert_picture(picture)
    (table,) = done.tables
    return {row["formula"]: row for row in table}


def accuracy(row: Row) -> int:
    return int(row["right on new ones"].rstrip("%"))


def test_nothing_flipped_is_the_gradient(rows: dict[str, Row]) -> None:
    for layer in ("conv1", "conv2"):
        assert float(rows[RIGHT][f"{layer} error"]) < 1e-8
        assert float(rows[RIGHT][f"{layer} cosine"]) == 1


def test_every_other_formula_is_off(rows: dict[str, Row]) -> None:
    assert len(rows) == 12
    for formula, row in rows.items():
        if formula != RIGHT:
            assert float(row["conv1 error"]) > 0.1, formula


def test_what_is_flipped_points_elsewhere(rows: dict[str, Row]) -> None:
    for formula in FLIPPED:
        for layer in ("conv1", "conv2"):
            assert float(rows[formula][f"{layer} cosine"]) < 0.9


def test_going_down_only_the_layer_below_suffers(rows: dict[str, Row]) -> None:
    for formula in ("kernel not flipped going down", "derivative in the update only"):
        assert float(rows[formula]["conv2 error"]) < 1e-8


def test_dividing_by_the_maps_size_keeps_the_direction(rows: dict[str, Row]) -> None:
    """100 positions in the first layer's map, 9 in the second's: so much shorter."""
    row = rows["divided by the map's size"]
    assert float(row["conv1 cosine"]) == float(row["conv2 cosine"]) == 1
    assert float(row["conv1 error"]) == pytest.approx(1 - 1 / 100, abs=0.01)
    assert float(row["conv2 error"]) == pytest.approx(1 - 1 / 9, abs=0.01)


def test_training(rows: dict[str, Row]) -> None:
    """The right formula learns, flipped ones don't, and with some wrong ones it learns all the same."""
    assert accuracy(rows[RIGHT]) > 80
    for formula in FLIPPED:
        assert accuracy(rows[formula]) < 60
    for formula in ("derivative twice", "derivative in the update only", "kernel not flipped going down"):
        assert accuracy(rows[formula]) > 65


def test_help() -> None:
    assert "--rate" in run_script("experiments/flip", "--help").stdout
