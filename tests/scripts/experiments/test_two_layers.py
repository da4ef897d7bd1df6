"""experiments/two_layers.py: a kernel that spans all maps sees what no number of separate ones does."""

import pytest

from scripts.running import Outcome, assert_picture, run_script

pytestmark = pytest.mark.slow  # a study that trains networks


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    picture = tmp_path_factory.mktemp("two_layers") / "picture.png"
    outcome = run_script("experiments/two_layers", "--steps", "200", "--seeds", "1", "--output", picture)
    assert outcome.exit_code == 0, outcome.stderr
    assert_picture(picture)
    return outcome


def test_maps(done: Outcome) -> None:
    """Separate maps multiply: 3 colours times 8, 16 and 24 kernels; a spanning layer has as many as kernels."""
    rows = done.tables[0]
    assert [int(row["maps out"]) for row in rows if row["kind"] == "spanning"] == [8, 16, 24]
    assert [int(row["maps out"]) for row in rows if row["kind"] == "separate"] == [24, 24 * 16, 24 * 16 * 24]


def test_weights(done: Outcome) -> None:
    """A spanning kernel has 5x5 weights for every input map, a separate one 5x5 in all; each has one bias."""
    for row in done.tables[0]:
        kernels = {"1": 8, "2": 16, "3": 24}[row["layer"]]
        maps = int(row["maps in"]) if row["kind"] == "spanning" else 1
        assert int(row["weights"]) == kernels * (25 * maps + 1)


def test_both_gradients_are_right(done: Outcome) -> None:
    for row in done.tables[1]:
        assert float(row["gradient error"]) < 1e-7


def test_only_spanning_kernels_tell(done: Outcome) -> None:
    right: dict[str, list[int]] = {"spanning": [], "separate": []}
    for row in done.tables[2]:
        if row["head"] == "largest of each map":
            right[row["kind"]].append(int(row["right on new ones"].rstrip("%")))
    assert max(right["spanning"]) > 80
    assert max(right["separate"]) < 56
    assert min(right["spanning"]) > max(right["separate"])


def test_help() -> None:
    assert "--seeds" in run_script("experiments/two_layers", "--help").stdout
