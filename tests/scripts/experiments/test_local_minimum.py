"""experiments/local_minimum.py: behind a max-pool the error can reach zero, or a minimum, with another kernel."""

import numpy as np
import pytest

from scripts.running import Outcome, Row, assert_picture, run_script

pytestmark = pytest.mark.slow  # a study that trains networks

SHORT, LONG, NO_POOL = "4 pixels, pool 2", "10 pixels, pool 2", "10 pixels, no pool"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    picture = tmp_path_factory.mktemp("local_minimum") / "picture.png"
    outcome = run_script("experiments/local_minimum", "--steps", "2000", "--starts", "100", "--output", picture)
    assert outcome.exit_code == 0, outcome.stderr
    assert_picture(picture)
    return outcome


@pytest.fixture(scope="module")
def places(done: Outcome) -> dict[tuple[str, str], Row]:
    return {(row["task"], row["place"]): row for row in done.tables[0]}


@pytest.fixture(scope="module")
def ends(done: Outcome) -> dict[str, Row]:
    return {row["task"]: row for row in done.tables[1]}


def kernel(row: Row) -> list[float]:
    return [float(number) for number in row["kernel"].split()]


def test_zero_error_with_another_kernel(places: dict[tuple[str, str], Row]) -> None:
    """[10, 3, 5, -4] . [1, 1, 1]: 18 comes from 10, 3, 5; the trained kernel makes it of 3, 5, -4."""
    target, start, end = (places[SHORT, place] for place in ("target", "start", "end"))
    assert (target["sums"], start["sums"]) == ("18 4", "9 15")
    assert float(end["error"]) < 1e-6
    # In one direction only, that of the winner's pixels: 3 is what the output lacks, 50 = 9 + 25 + 16.
    assert kernel(end) == pytest.approx([3 * 3 / 50, 3 + 3 * 5 / 50, 3 * -4 / 50])
    # So two weights grow; the third falls, as its pixel is negative.
    moved = [after - before for before, after in zip(kernel(start), kernel(end), strict=True)]
    assert [change > 0 for change in moved] == [True, True, False]


def test_the_winners_at_the_start_stay(places: dict[tuple[str, str], Row]) -> None:
    for task in (SHORT, LONG):
        winners = {place: places[task, place]["winners"] for place in ("target", "start", "end")}
        assert winners["start"] == winners["end"] != winners["target"]


def bottom(winners: list[int]) -> tuple[list[float], float]:
    """The kernel with the least error if these positions win, and that error; by least squares."""
    pixels = np.lib.stride_tricks.sliding_window_view(np.array([10.0, 3, 5, -4, 2, -2, 2, 7, 5, 5]), 3)
    target = pixels.sum(axis=1).reshape(-1, 2).max(axis=1)
    found, squares, _, _ = np.linalg.lstsq(pixels[winners], target)
    return found.tolist(), 0.5 * float(squares[0])


def test_local_minima(done: Outcome, places: dict[tuple[str, str], Row], ends: dict[str, Row]) -> None:
    """More pooled numbers than weights: the error stays, and rises in every direction. Each is the bottom of the bowl
    that belongs to its winners, and there is more than one."""
    minima = done.tables[2]
    assert minima[0]["winners"] == places[LONG, "end"]["winners"]
    assert len(minima) > 1
    for row in minima:
        weights, error = bottom([int(winner) for winner in row["winners"].split()])
        assert kernel(row) == pytest.approx(weights, abs=0.005)
        assert float(row["error"]) == pytest.approx(error, rel=0.005)
        assert float(row["higher by"]) > 0
    shares = [int(row["random starts"].rstrip("%")) for row in minima]
    assert sum(shares) == pytest.approx(int(ends[LONG]["local minimum"].rstrip("%")), abs=1)


def test_without_a_pool_the_kernel_comes_back(places: dict[tuple[str, str], Row], ends: dict[str, Row]) -> None:
    assert kernel(places[NO_POOL, "end"]) == [1, 1, 1]
    assert float(places[NO_POOL, "end"]["error"]) < 1e-6
    assert ends[NO_POOL]["the true kernel"] == "100%"


def test_random_starts(ends: dict[str, Row]) -> None:
    assert ends[SHORT]["zero error, another kernel"] == "100%"
    found, stuck = (int(ends[LONG][kind].rstrip("%")) for kind in ("the true kernel", "local minimum"))
    assert found >= 25
    assert stuck >= 25


def test_help() -> None:
    assert "--starts" in run_script("experiments/local_minimum", "--help").stdout
