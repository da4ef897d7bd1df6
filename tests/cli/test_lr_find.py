"""``facecnn lr-find``."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from facecnn.config import load

from .contract import check
from .running import Facecnn, Outcome, Trained

FIGURES = {
    "device": str,
    "device_reason": str,
    "photos": int,
    "optimizer": str,
    "learning_rate": float,
    "suggestion": float,
    "range_test": {
        "tests": int,
        "steps": int,
        "rates": [float],
        "losses": [float],
        "low": [float],
        "middle": float,
        "diverged_at": (float, None),
    },
    "curvature": {"largest": float, "products": int, "converged": bool, "photos": int, "weights": (str, None)},
    "largest_stable_rate": {"gradient_descent": (float, None), "optimizer": (float, None)},
    "plot": str,
    "written": (str, None),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def find(facecnn: Facecnn, people: Path) -> Facecnn:
    """lr-find on two people, quickly."""

    def call(*arguments: str | Path) -> Outcome:
        return facecnn("lr-find", people, "--device", "cpu", "--steps", "60", *arguments)

    return call


def test_figures_and_picture(find: Facecnn, here: Path) -> None:
    figures = find("-c", "smoke", "--format", "json").json()
    check(figures, FIGURES)
    assert (figures["optimizer"], figures["learning_rate"]) == ("adamw", 0.01)
    assert figures["photos"] == figures["curvature"]["photos"] == 16
    assert figures["range_test"]["low"][0] <= figures["suggestion"] <= figures["range_test"]["low"][1]
    assert figures["suggestion"] == figures["range_test"]["middle"]
    assert figures["largest_stable_rate"] == {
        "gradient_descent": pytest.approx(2 / figures["curvature"]["largest"]),
        "optimizer": None,
    }
    assert [path.name for path in here.iterdir()] == [figures["plot"]] == ["lr-find.png"]
    with Image.open(here / "lr-find.png") as picture:
        assert picture.format == "PNG"


def test_the_pictures_folder_is_made(find: Facecnn, here: Path) -> None:
    assert find("-c", "smoke", "--out", "new/folder", "--steps", "20").exit_code == 0
    assert [str(path) for path in Path().rglob("*.png")] == ["new/folder/lr-find.png"]
    done = find("-c", "smoke", "--plot", "nosuch/picture.png")
    assert done.exit_code == 6
    assert "Device:" not in done.stderr  # before any work


def test_the_same_seed_gives_the_same_and_another_other_figures(
    find: Facecnn, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests: list[Any] = []
    monkeypatch.setattr("facecnn.jobs.lr_find.draw_range_test", lambda path, rates, single, *_: tests.append(single))
    first, second = (find("-c", "smoke", "--seed", "3", "--format", "json").json() for _ in range(2))
    assert first == second
    assert find("-c", "smoke", "--seed", "4", "--format", "json").json()["range_test"] != first["range_test"]
    assert len({tuple(losses) for losses in tests[0]}) == 3, "each test is one of other weights"


def test_text_says_both_rates_and_what_to_do(find: Facecnn, here: Path) -> None:
    done = find("-c", "smoke", "--set", "optimizer={name: momentum, momentum: 0.9}", "--plot", here / "p.png")
    assert done.exit_code == 0
    for part in (
        "Suggested learning rate",
        "--set optimizer.learning_rate=",
        "Largest curvature",
        "plain gradient descent (2 / curvature)",
        "momentum as in the config",
    ):
        assert part in done.stdout
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    assert (here / "p.png").exists()


def test_with_momentum_the_limit_is_higher(find: Facecnn, here: Path) -> None:
    limits = find("-c", "smoke", "--set", "optimizer={name: momentum, momentum: 0.8}", "--format", "json").json()[
        "largest_stable_rate"
    ]
    assert limits["optimizer"] == pytest.approx(1.8 * limits["gradient_descent"])


def test_the_suggestion_is_at_most_one_over_the_curvature(find: Facecnn, here: Path) -> None:
    steep = ["-c", "smoke", "--set", "photos.normalise=none", "--set", "optimizer={name: momentum}"]
    figures = find(*steep, "--format", "json").json()
    limit = 1 / figures["curvature"]["largest"]
    assert figures["suggestion"] == pytest.approx(min(figures["range_test"]["middle"], limit), rel=0.05)
    assert ("too long a step" in " ".join(find(*steep).stdout.split())) == (limit < figures["range_test"]["middle"])


def test_the_curvature_at_a_models_weights(trained: Trained, facecnn: Facecnn, here: Path) -> None:
    common = ["lr-find", trained.photos, "--steps", "20", "--format", "json", "--device", "cpu"]
    figures = facecnn(*common, "-m", trained.path).json()
    check(figures, FIGURES | {"suggestion": (float, None), "range_test": {}})
    assert figures["curvature"]["weights"] == str(trained.path / "best.safetensors")
    fresh = facecnn(*common, "-c", "smoke").json()
    assert fresh["curvature"]["largest"] != figures["curvature"]["largest"]
    wrong = facecnn(*common, "-m", trained.path, "-c", "seed", "--seed", "1")
    assert wrong.exit_code == 2
    assert "--config, --seed" in wrong.stderr


CONFIG = """\
version: 1   # mine
photos: {size: 24, folder: null, augment: null}   # tight
network:
  - conv: {kernels: 4, size: 3, padding: same, activation: relu, pool: 2}  # few
  - dense: {units: people}
optimizer:
  name: adamw
  learning_rate: 0.5   # a guess
train: {batch_size: 8}
"""


def test_the_config_is_written_with_its_comments(find: Facecnn, here: Path) -> None:
    config = here / "mine.yaml"
    config.write_text(CONFIG)
    figures = find("-c", config, "--write", config, "--format", "json").json()
    assert figures["written"] == str(config)
    after = config.read_text()
    assert load(config).settings.optimizer.learning_rate == figures["suggestion"]  # type: ignore[union-attr]
    assert after.replace(f"{figures['suggestion']!r}", "0.5").split() == CONFIG.split()


def test_a_rate_that_was_not_written_is_added(find: Facecnn, here: Path) -> None:
    (here / "mine.yaml").write_text(CONFIG.replace("optimizer:\n  name: adamw\n  learning_rate: 0.5   # a guess\n", ""))
    figures = find("-c", "mine.yaml", "--write", "new.yaml", "--format", "json").json()
    new = load("new.yaml").settings
    assert new.optimizer.learning_rate == figures["suggestion"]  # type: ignore[union-attr]
    assert "# tight" in (here / "new.yaml").read_text()


def test_what_was_set_is_written_too(find: Facecnn, here: Path) -> None:
    figures = find("-c", "smoke", "--set", "train.epochs=77", "--write", "new.yaml", "--format", "json").json()
    new = load("new.yaml").settings
    assert new.train.epochs == 77
    assert new.optimizer.learning_rate == figures["suggestion"]  # type: ignore[union-attr]
    assert load("smoke").settings.photos == new.photos


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-c", "smoke", "--write", "smoke"], "give a file name"),
        (["-c", "smoke", "--write", "other.yaml"], "there is such a file"),
        (["-c", "smoke", "--set", "optimizer={name: line_search}"], "no learning rate"),
        (["-c", "smoke", "--steps", "1"], "--steps"),
        (["-c", "nosuch"], "no such file"),
    ],
)
def test_usage_errors(arguments: list[str], message: str, find: Facecnn, here: Path) -> None:
    (here / "other.yaml").write_text("version: 1\n")
    done = find(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert [path.name for path in here.iterdir()] == ["other.yaml"]


def test_a_picture_that_cannot_be_written(find: Facecnn, here: Path) -> None:
    done = find("-c", "smoke", "--plot", here / "nosuch" / "p.png")
    assert done.exit_code == 6
    assert "its folder does not exist" in done.stderr
