"""The section ``sweep`` of a settings file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.running import call
from facecnn.config import load, shipped
from facecnn.config.sweep import SCHEMA, ranges_in, settings_with
from facecnn.errors import UsageError

SMOKE = shipped()["smoke"].read_text(encoding="utf-8")
LINE = SMOKE.count("\n") + 1
"""On which the section begins."""


def write(folder: Path, section: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(f"{SMOKE}sweep:{section}\n", encoding="utf-8")
    return file


def test_ranges(tmp_path: Path) -> None:
    loaded = load(
        write(
            tmp_path,
            """
  optimizer.learning_rate: {low: 0.001, high: 0.1, log: true}
  optimizer: {choices: [{name: adamw}, {name: momentum, momentum: 0.8}]}
  train.epochs: {low: 2, high: 8, step: 2}
  photos.augment.shift: {low: 0, high: 0.5}
  photos.augment.blur: {low: 0, high: 1}
  network.0.conv.kernels: {choices: [2, 4]}""",
        )
    )
    rate, optimizer, epochs, shift, blur, kernels = ranges = ranges_in(loaded)
    assert (rate.low, rate.high, rate.log, rate.whole) == (0.001, 0.1, True, False)
    assert (epochs.low, epochs.high, epochs.step, epochs.whole) == (2, 8, 2, True)
    assert not shift.whole
    assert not blur.whole, "whole numbers as ends, and the setting takes others"
    assert kernels.record() == {"choices": [2, 4]}
    drawn = {
        "optimizer.learning_rate": 0.05,
        "optimizer": optimizer.choices[1],
        "train.epochs": 6,
        "photos.augment.shift": 0.25,
        "photos.augment.blur": 0.75,
        "network.0.conv.kernels": "2",
    }
    settings = settings_with(loaded, ranges, drawn).settings
    assert (settings.optimizer.name, settings.optimizer.momentum) == ("momentum", 0.8)
    assert settings.optimizer.learning_rate == 0.05, "a section is set before what is in it"
    assert settings.train.epochs == 6
    assert settings.photos.augment is not None
    assert (settings.photos.augment.shift, settings.photos.augment.blur) == (0.25, 0.75)
    assert settings.network[0].kernels == 2
    assert loaded.settings == load("smoke").settings, "what was loaded stays"


WRONG = {
    "": (0, 1, "sweep must have a line for each setting, got nothing"),
    " 3": (0, 1, "sweep must have a line for each setting, got 3"),
    "\n  train.epochs: 3": (1, 3, "sweep: train.epochs must be {low: 0.001"),
    "\n  train.epochs: {low: 3}": (1, 3, "sweep: train.epochs has no high"),
    "\n  train.epochs: {low: 3, hihg: 4}": (1, 26, "sweep: train.epochs: unknown key hihg: did you mean high?"),
    "\n  train.epochs: {low: 3, high: 3}": (1, 18, "sweep: train.epochs.low must be less than high (got 3, 3)"),
    "\n  train.epochs: {low: x, high: 3}": (1, 18, "sweep: train.epochs.low must be a number, got the text 'x'"),
    "\n  train.epochs: {low: true, high: 3}": (1, 18, "sweep: train.epochs.low must be a number, got true"),
    "\n  train.epochs: {low: 2, high: 3, step: 0}": (1, 35, "train.epochs.step must be a number above 0, got 0"),
    "\n  train.epochs: {low: 2, high: 3, log: 1}": (1, 35, "train.epochs.log must be true or false, got 1"),
    "\n  photos.augment.shift: {low: 0, high: 0.1, log: true}": (1, 26, "low must be greater than 0 with log: true"),
    "\n  train.epochs: {low: 2, high: 8, log: true, step: 2}": (1, 46, "log: true or a step, not both"),
    "\n  train.epochs: {choices: 3}": (1, 18, "train.epochs.choices must be a list of two values or more, got 3"),
    "\n  train.epochs: {choices: [3]}": (1, 18, "must be a list of two values or more, got only one"),
    "\n  train.epochs: {choices: [3, 4, 3]}": (1, 34, "sweep: train.epochs.choices has 3 twice"),
    "\n  train.epochs: {choices: [3, 4], low: 2}": (1, 3, "has choices, so it can have nothing else"),
    "\n  train.epochs: {low: 0, high: 4}": (1, 23, "train.epochs must be at least 1"),
    "\n  train.epochs: {choices: [3, a lot]}": (1, 31, "train.epochs must be a whole number"),
    "\n  optimizer.learning_rat: {low: 0.1, high: 0.2}": (1, 33, "learning_rat: did you mean learning_rate?"),
    "\n  network.9.conv.kernels: {low: 1, high: 4}": (1, 33, "network has the places 0 to 3, not 9"),
    "\n  train.seed: {low: 1, high: 4}": (1, 3, "sweep: train.seed can't be searched: the luckiest seed"),
    "\n  calibration.false_accept_rate: {low: 0.01, high: 0.1}": (1, 3, "trials are judged without a threshold"),
}
"""By section: lines below its first, column and message of an error."""


@pytest.mark.parametrize("section", WRONG)
def test_what_is_wrong_is_said_with_its_place(section: str, tmp_path: Path) -> None:
    file = write(tmp_path, section)
    below, column, message = WRONG[section]
    with pytest.raises(UsageError) as raised:
        ranges_in(load(file))
    first = str(raised.value).splitlines()[0]
    assert first.startswith(f"{file}:{LINE + below}:{column}: ")
    assert message in first
    assert call("config", "check", file).exit_code == 2


def test_all_errors_are_listed(tmp_path: Path) -> None:
    file = write(tmp_path, "\n  train.epochs: 3\n  train.batch_size: {low: 0, high: 70000}")
    with pytest.raises(UsageError) as raised:
        ranges_in(load(file))
    assert len(str(raised.value).splitlines()) == 3


def test_without_a_section(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no section sweep in it"):
        ranges_in(load("smoke"))


def test_other_commands_take_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "\n  train.epochs: {low: 2, high: 4}")
    assert load(file).settings == load("smoke").settings
    assert call("config", "check", file).exit_code == 0


@pytest.mark.parametrize(
    ("section", "valid"),
    [
        ({"train.epochs": {"low": 2, "high": 4, "log": True}}, True),
        ({"train.epochs": {"choices": [2, 4]}}, True),
        ({"train.epochs": {"choices": [2]}}, False),
        ({"train.epochs": {"low": 2}}, False),
        ({}, False),
    ],
)
def test_the_schema_for_editors(section: dict[str, Any], valid: bool) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = call("config", "schema").json()
    assert schema["properties"]["sweep"] == SCHEMA
    document = json.loads(json.dumps({"sweep": section}))
    assert jsonschema.Draft202012Validator(schema).is_valid(document) == valid
