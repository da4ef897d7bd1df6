"""``facecnn config``."""

import json
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
from PIL import Image
from ruamel.yaml import YAML

from facecnn.config import load
from facecnn.learning.schedules import SCHEDULES

from .running import Facecnn

SHIPPED = ["default", "many", "seed", "deep", "smoke"]


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shown_can_be_read_again(name: str, tmp_path: Path, facecnn: Facecnn) -> None:
    done = facecnn("config", "show", "-c", name)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.count("#") > 20
    (tmp_path / "shown.yaml").write_text(done.stdout, encoding="utf-8")
    assert load(tmp_path / "shown.yaml").settings == load(name).settings
    assert facecnn("config", "show", "-c", tmp_path / "shown.yaml").stdout == done.stdout


def test_show_applies_set(facecnn: Facecnn) -> None:
    done = facecnn("config", "show", "-c", "smoke", "--set", "train.epochs=77", "--set", "photos.colour=rgb")
    shown = YAML(typ="safe", pure=True).load(done.stdout)
    assert shown["train"]["epochs"] == 77
    assert shown["photos"]["colour"] == "rgb"
    assert facecnn("config", "show").stdout == facecnn("config", "show", "-c", "default").stdout


@pytest.mark.parametrize("schedule", [*SCHEDULES])
def test_the_schedule_is_drawn_and_the_settings_are_still_printed(
    schedule: str, tmp_path: Path, facecnn: Facecnn
) -> None:
    arguments = ["config", "show", "-c", "smoke", "--set", f"schedule={{name: {schedule}}}"]
    done = facecnn(*arguments, "--plot", tmp_path / "s.png")
    assert done.exit_code == 0
    assert done.stdout == facecnn(*arguments).stdout
    (tmp_path / "shown.yaml").write_text(done.stdout, encoding="utf-8")
    assert load(tmp_path / "shown.yaml").settings.schedule == SCHEDULES[schedule]()
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.format == "PNG"


def test_rates_are_drawn_and_not_shares_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    drawn: list[float] = []
    monkeypatch.setattr("facecnn.jobs.schedule.draw_schedule", lambda path, rates, *_: drawn.extend(rates))
    options = ["--set", "schedule={name: constant}", "--set", "optimizer.learning_rate=0.03"]
    assert facecnn("config", "show", "-c", "smoke", *options, "--plot", tmp_path / "s.png").exit_code == 0
    assert set(drawn) == {0.03}


def test_without_a_learning_rate_there_is_nothing_to_draw(tmp_path: Path, facecnn: Facecnn) -> None:
    done = facecnn("config", "show", "--set", "optimizer={name: line_search}", "--plot", tmp_path / "s.png")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "no learning rate" in done.stderr
    assert not (tmp_path / "s.png").exists()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_schema_accepts_what_is_shown(name: str, facecnn: Facecnn) -> None:
    schema = facecnn("config", "schema").json()
    jsonschema.Draft202012Validator.check_schema(schema)
    shown = YAML(typ="safe", pure=True).load(facecnn("config", "show", "-c", name).stdout)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(json.loads(json.dumps(shown)))
    shown["train"]["epoch"] = 3
    assert not validator.is_valid(shown)


@pytest.mark.parametrize("name", SHIPPED)
def test_check_shows_the_layers(name: str, facecnn: Facecnn) -> None:
    done = facecnn("config", "check", name)
    assert done.exit_code == 0
    assert "conv1" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_check_names_the_place_of_every_fault(tmp_path: Path, facecnn: Facecnn) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text(
        "version: 1\nnetwork:\n  - conv: {kernals: 4}\n  - dense: {units: people}\ntrain:\n  epochs: ten\n"
    )
    for command in (["check", config], ["show", "-c", config]):
        done = facecnn("config", *command)
        assert (done.exit_code, done.stdout) == (2, "")
        assert f"{config}:3:" in done.stderr
        assert "did you mean kernels?" in done.stderr
        assert f"{config}:6:" in done.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["check", "nosuch"], "no such file"),
        (["check", "."], "a folder"),
        (["check"], "CONFIG"),
        (["show", "-c", "nosuch"], "no such file"),
        (["show", "--set", "train.epochs"], "train.epochs=VALUE"),
        (["show", "--set", "train.epochs=x"], "--set train.epochs=x"),
        (["show", "--nosuch"], "--nosuch"),
        ([], "check"),
    ],
)
def test_usage_errors(command: list[str], message: str, facecnn: Facecnn) -> None:
    done = facecnn("config", *command)
    assert done.exit_code == 2
    assert message in done.stderr


def test_traceback_shows_where(facecnn: Facecnn, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from facecnn.cli import app

    for arguments in (["config", "check", "nosuch"], ["train", "nosuch"], ["inspect", "nosuch"]):
        result = CliRunner().invoke(app, [*arguments, "--traceback"])
        assert "Traceback (most recent call last)" in result.stderr
        assert result.stderr.splitlines()[-1].startswith("error: nosuch: ")
