"""The settings file: what is read, and what is said about what can't be."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from facecnn.cli.config import app
from facecnn.config import Settings, apply_overrides, from_dict, json_schema, load, shipped, to_dict, to_yaml
from facecnn.errors import UsageError
from facecnn.kernels.protocol import Activation
from facecnn.learning.calibration import CalibrationSettings
from facecnn.learning.optimizers import AdamW, Momentum
from facecnn.learning.schedules import Constant, Cosine, Step
from facecnn.learning.settings import TrainSettings
from facecnn.network.layers import (
    Activate,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    LayerError,
    Neuron,
    Pool,
    PoolSettings,
    Residual,
    UnitLength,
)
from facecnn.network.loss import CrossEntropy, MeanSquaredError
from facecnn.photos.preparation import AugmentSettings, PhotoSettings

FILE = "config.yaml"


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(text):
    Path(FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(FILE)


def refused(text):
    """The lines of the error."""
    with pytest.raises(UsageError) as caught:
        read(text)
    return str(caught.value).split("\n")


def overridden(*overrides, config="default", **options):
    return apply_overrides(load(config), overrides, **options).settings


def override_refused(*overrides, config="default", **options):
    with pytest.raises(UsageError) as caught:
        overridden(*overrides, config=config, **options)
    return str(caught.value).split("\n")


# What is read


def test_the_documented_form():
    loaded = read("""
version: 1
photos:
  folder: ~/faces
  size: [48, 64]
  augment: null
network:
  - conv: {kernels: 16, size: [3, 5], padding: same, activation: leaky_relu, slope: 0.1, pool: 2}
  - conv: {kernels: 8, pool: {size: 3, stride: 2, kind: average}}
  - conv: 4
  - conv: {kernels: 4, size: 1, stride: [2, 1]}
  - batch_norm: {}
  - batch_norm
  - dropout: 0.2
  - pool: global
  - residual:
      layers: [conv: {kernels: 4, size: 1}, batch_norm, dropout: 0.3]
      shortcut: {size: 2, kind: average}
      repeat: 2
  - neuron: {per_kernel: 8}
  - neuron
  - activation: leaky_relu
  - dense: people
loss: {name: mean_squared_error}
optimizer: {name: momentum, learning_rate: 1e-3}
schedule: {name: step, drops: 3}
train: {epochs: 3, average_weights: 0.99, seed: 012}
calibration: {false_accept_rate: 0.01}
""")
    assert loaded.settings == Settings(
        photos=PhotoSettings(folder="~/faces", size=(48, 64), augment=None),
        network=(
            Conv(kernels=16, size=(3, 5), padding="same", slope=0.1, pool=2),
            Conv(kernels=8, pool=PoolSettings(size=3, stride=2, kind="average")),
            Conv(kernels=4),
            Conv(kernels=4, size=1, stride=(2, 1)),
            BatchNorm(),
            BatchNorm(),
            Dropout(rate=0.2),
            Pool(size="global"),
            Residual(
                layers=(Conv(kernels=4, size=1), BatchNorm(), Dropout(rate=0.3)),
                shortcut=PoolSettings(size=2, kind="average"),
                repeat=2,
            ),
            Neuron(per_kernel=8),
            Neuron(),
            Activate(name="leaky_relu"),
            Dense(units="people"),
        ),
        loss=MeanSquaredError(),
        optimizer=Momentum(learning_rate=0.001),
        schedule=Step(drops=3),
        train=TrainSettings(epochs=3, average_weights=0.99, seed=12),  # YAML 1.2: no octal
        calibration=CalibrationSettings(false_accept_rate=0.01),
    )


def test_what_is_left_out_has_the_defaults_of_its_class_and_the_default_network():
    found = read("train: {epochs: 3}").settings
    assert found.photos == PhotoSettings()
    assert (found.loss, found.optimizer, found.schedule) == (CrossEntropy(), AdamW(), Constant())
    assert found.network == load("default").settings.network


def test_options_without_a_name_belong_to_the_default_choice():
    assert read("optimizer: {beta1: 0.5}").settings.optimizer == AdamW(beta1=0.5)


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbftrain: {epochs: 3}",
        b"train:\r\n  epochs: 3\r\n",
        b'{"train": {"epochs": 3}}',
        b"---\ntrain: {epochs: 3}",
    ],
)
def test_byte_order_mark_windows_lines_and_json(text):
    assert read(text).settings.train.epochs == 3


def test_dates_and_yaml_1_1_words_are_text():
    assert read("photos: {folder: 2026-01-01}").settings.photos.folder == "2026-01-01"
    assert read("photos: {folder: no}").settings.photos.folder == "no"


def test_a_shipped_name_wins_over_a_file_of_that_name(tmp_path):
    Path("smoke").write_text("train: {epochs: 77}")
    assert load("smoke").settings.train.epochs != 77
    assert load("./smoke").settings.train.epochs == 77


# Places


def test_where():
    loaded = read("train:\n  epochs: 3\nnetwork:\n  - conv:\n      kernels: 8\n  - dense: people\n")
    assert loaded.where(("train", "epochs")) == "config.yaml:2:3"
    assert loaded.where(("network", 0, "kernels")) == "config.yaml:5:7"
    assert loaded.where(("network", 0, "conv", "kernels")) == "config.yaml:5:7"
    assert loaded.where(("network", 1)) == "config.yaml:6:5"
    assert loaded.where(("train", "seed")) == "config.yaml:1:1"  # not written: where it would be
    assert loaded.where(()) == "config.yaml:1:1"


def test_layer_errors_get_the_place_of_the_layer():
    loaded = read(
        "photos: {size: 16}\nnetwork:\n  - conv: {kernels: 2}\n  - conv: {kernels: 2, size: 32}\n  - dense: people\n"
    )
    with pytest.raises(UsageError, match=r"^config\.yaml:4:5: network\[1\] conv: a kernel of 32x32 .* 14x14"):
        loaded.plan(outputs=2)
    error = LayerError("does not fit")
    error.index = 2
    assert str(loaded.located(error)) == "config.yaml:5:5: does not fit"


def test_layers_of_a_block_that_do_not_fit_are_named_with_their_place():
    loaded = read("photos: {size: 16}\nnetwork:\n  - residual:\n      layers:\n        - conv: {kernels: 2, size: 32}")
    with pytest.raises(UsageError, match=r"^config\.yaml:5:11: network\[0\] residual\.layers\[0\] conv: a kernel"):
        loaded.plan(outputs=2)


@pytest.mark.parametrize("last", ["dense: 2", "conv: {kernels: 5}", "dropout: 0.1"])
def test_last_layer_must_give_what_the_data_needs(last):
    loaded = read(f"network:\n  - conv: {{kernels: 2}}\n  - {last}\n")
    with pytest.raises(UsageError, match=r"(?s)^config\.yaml:3:5: the last layer gives .* needs 5 .*units: people"):
        loaded.plan(outputs=5)


def test_a_layer_set_on_the_command_line_is_named_so():
    loaded = apply_overrides(load("smoke"), ["network.1={conv: {kernels: 2, size: 99}}"])
    with pytest.raises(UsageError, match=r"^--set network\.1=.*99x99"):
        loaded.plan(outputs=2)


# Faults in the file: a text, and what must be said at which line and column

FAULTS = {
    "unknown key": ("train:\n  epoch: 3", "2:3", "unknown key epoch: did you mean epochs?"),
    "unknown key in flow": (
        "optimizer: {learning_rat: 0.1}",
        "1:13",
        "unknown key learning_rat: did you mean learning_rate?",
    ),
    "unknown section": ("trian: {}", "1:1", "unknown key trian: did you mean train?"),
    "at the top level": ("version: 1\nbatch_size: 3", "2:1", "batch_size belongs under train"),
    "in a layer": ("network:\n  - dense: {units: 2, epochs: 3}", "2:23", "epochs belongs under train"),
    "of another layer": ("network: [dense: {units: 2, kernels: 2}]", "1:29", "kernels belongs to conv, not dense"),
    "text for whole number": ("train: {epochs: ten}", "1:9", "train.epochs must be a whole number, got the text 'ten'"),
    "fraction for whole number": ("train: {epochs: 3.5}", "1:9", "train.epochs must be a whole number, got 3.5"),
    "true is not 1": ("train: {epochs: true}", "1:9", "train.epochs must be a whole number, got true"),
    "not square": (
        "photos:\n  align: dlib\n  size: [64, 48]",
        "3:3",
        "photos.size must be square with photos.align dlib, got [64, 48]: take one number, such as 150",
    ),
    "number for list": ("network: 5", "1:1", "network must be a list of layers (lines that begin with -), got 5"),
    "list for text": ("photos: {folder: [a, b]}", "1:10", "photos.folder must be text or null, got a list"),
    "number for section": ("train: 5", "1:1", "train must be a mapping (key: value), got 5"),
    "quoted number": ('optimizer: {learning_rate: "0.1"}', "1:13", "got the text '0.1': write it without quotes"),
    "negative rate": (
        "optimizer: {learning_rate: -0.1}",
        "1:13",
        "optimizer.learning_rate must be greater than 0 (got -0.1)",
    ),
    "negative epochs": ("train: {epochs: -1}", "1:9", "train.epochs must be at least 1"),
    "no batch": ("train: {batch_size: 0}", "1:9", "train.batch_size must be at least 1 and at most 65536 (got 0)"),
    "momentum": ("optimizer: {name: momentum, momentum: 1.5}", "1:29", "must be at least 0 and less than 1 (got 1.5)"),
    "dropout": (
        "network: [dropout: 1.0]",
        "1:11",
        "network[0].dropout.rate must be at least 0 and less than 1 (got 1.0)",
    ),
    "nan": ("optimizer: {learning_rate: .nan}", "1:13", "optimizer.learning_rate must be a number, got .nan"),
    "inf": ("optimizer: {learning_rate: .inf}", "1:13", "too large a number (got .inf)"),
    "-inf": ("optimizer: {learning_rate: -.inf}", "1:13", "must be greater than 0 (got -.inf)"),
    "1e400": ("optimizer: {learning_rate: 1e400}", "1:13", "too large a number (got 1e400)"),
    "1e30 epochs": ("train: {epochs: 1e30}", "1:9", "train.epochs must be a whole number, got 1e30"),
    "seed of 20 digits": (
        "train: {seed: 99999999999999999999}",
        "1:9",
        "at most 4294967295 (got 99999999999999999999)",
    ),
    "seed of 5000 digits": (f"train: {{seed: {'9' * 5000}}}", "1:9", "train.seed is too large a number"),
    "rate of 500 digits": (f"optimizer: {{learning_rate: {'9' * 500}}}", "1:13", "learning_rate is too large a number"),
    "twice": ("train:\n  epochs: 3\n  seed: 1\n  epochs: 4", "4:3", "epochs is given twice (first on line 2)"),
    "tab": ("train:\n\tepochs: 8", "2:1", "tab character: indent with spaces"),
    "tab after spaces": ("train:\n  \tepochs: 8", "2:3", "tab character: indent with spaces"),
    "anchor": ("base: &b {lr: 1}\ntrain: *b", "1:7", "anchor &b"),
    "cycle": ("train: &x {epochs: *x}", "1:8", "anchor &x"),
    "merge key": ("train: {<<: {epochs: 3}}", "1:9", "unknown key <<"),
    "python tag": (
        'train: {seed: !!python/object/apply:os.system ["touch pwned"]}',
        "1:15",
        "tag !!python/object/apply:os.system",
    ),
    "binary tag": ("train: {seed: !!binary aGk=}", "1:15", "tag !!binary"),
    "set tag": ("train: !!set {a, b}", "1:8", "tag !!set"),
    "own tag": ("train: !custom {epochs: 1}", "1:8", "tag !custom"),
    "list": ("- a\n- b", "1:1", "expected key: value lines, got a list"),
    "word": ("word", "1:1", "expected key: value lines, got the text 'word'"),
    "two documents": ("train: {epochs: 3}\n---\ntrain: {epochs: 4}", "2:1", "a second document"),
    "YAML 1.1": ("%YAML 1.1\n---\ntrain: {}", "2:1", "only YAML 1.2"),
    "nested lists": ("[" * 2000, "1:17", "nested more than 16 deep"),
    "nested mappings": ("{" * 2000, "1:17", "nested more than 16 deep"),
    "many brackets": ("[" * 60000, "1:17", "nested more than 16 deep"),
    "NUL": ("train: {epochs: 3\0}", "1:18", "NUL character U+0000"),
    "vertical tab": ("train:\n  epochs: 3\v", "2:12", "control character U+000B"),
    "escape": ("a\x1b[31m: 3", "1:2", "control character U+001B"),
    "mark in the middle": ("train: \ufeff{}", "1:8", "byte-order mark U+FEFF"),
    "no-break space": ("train:\n  epochs:\u00a03", "2:3", "U+00A0 (no-break space) is not a space to YAML"),
    "indented with no-break spaces": ("\u00a0train: {}", "1:1", "U+00A0 (no-break space) is not a space to YAML"),
    "no space, top": ("lr:0.1", "1:1", "a space is missing after the colon"),
    "no space, section": ("train:\n  epochs:3", "2:3", "a space is missing after the colon"),
    "no space, next line valid": ("train:\n  epochs:3\n  seed: 3", "2:3", "a space is missing after the colon"),
    "no space, flow": ("train: {epochs:3}", "1:9", "a space is missing after the colon"),
    "no as a switch": (
        "photos: {augment: {mirror: no}}",
        "1:20",
        "must be true or false, got the text 'no': write true or false",
    ),
    "off as a switch": ("photos: {augment: {mirror: off}}", "1:20", "must be true or false, got the text 'off'"),
    "time as a seed": ("train: {seed: 12:30:00}", "1:9", "train.seed must be a whole number, got the text '12:30:00'"),
    "number as a key": ("1: a", "1:1", "a key must be text, got 1"),
    "nothing as a key": ("~: a", "1:1", "a key must be text, got nothing"),
    "list as a key": ("? [1, 2]\n: c", "1:3", "a key must be text, got a list"),
    "empty key": ('"": d', "1:1", "a key must be text, got an empty text"),
    "no value": ("train:\n  epochs:\n  seed: 3", "2:3", "train.epochs has no value: it must be a whole number"),
    "null": ("train: {epochs: ~}", "1:9", "train.epochs has no value"),
    "empty section": ("train:\nversion: 1", "1:1", "train has no value"),
    "missing option": ("network:\n  - conv: {size: 3}", "2:11", "network[0].conv.kernels is missing"),
    "kernel of 0": ("network: [conv: {kernels: 8, size: 0}]", "1:30", "network[0].conv.size must be at least 1"),
    "stride of 0": ("network: [pool: {stride: 0}]", "1:18", "network[0].pool.stride must be at least 1"),
    "padding": ("network: [conv: {kernels: 8, padding: -1}]", "1:30", "conv.padding must be valid or same, got -1"),
    "dilation": ("network: [conv: {kernels: 8, dilation: 0}]", "1:30", "unknown key dilation"),
    "option of another optimizer": (
        "optimizer: {name: momentum, beta2: 0.9}",
        "1:29",
        "beta2 belongs to rmsprop, adam, adamw or lion, not momentum",
    ),
    "option of another schedule": ("schedule: {name: step, floor: 0.1}", "1:24", "floor belongs to cosine"),
    "unknown optimizer": (
        "optimizer: {name: adamm}",
        "1:13",
        "got the text 'adamm': did you mean adam?",
    ),
    "unknown schedule": ("schedule: {name: cosin}", "1:12", "did you mean cosine?"),
    "unknown activation": ("network: [activation: rellu]", "1:11", "got the text 'rellu': did you mean relu?"),
    "unknown layer": ("network: [convv: 8]", "1:11", "unknown layer convv: did you mean conv? (known: conv,"),
    "optimizer as a word": ("optimizer: adamw", "1:1", "write optimizer: {name: adamw}"),
    "no layers": ("network: []", "1:1", "network has no layers"),
    "layer not indented": ("network:\n - conv:\n   kernels: 8", "2:4", "indent what belongs to conv"),
    "no layers in a block": ("network: [residual: {layers: []}]", "1:22", "residual.layers has no layers: list some"),
    "block without layers": ("network: [residual]", "1:11", "network[0].residual.layers is missing"),
    "block of a number": ("network: [residual: 2]", "1:11", "network[0].residual must be a mapping"),
    "never repeated": (
        "network: [residual: {layers: [conv: 2], repeat: 0}]",
        "1:41",
        "network[0].residual.repeat must be at least 1 and at most 100",
    ),
    "option of a layer in a block": (
        "network:\n  - residual:\n      layers:\n        - conv: {kernels: 2, size: 0}",
        "4:30",
        "network[0].residual.layers[0].conv.size must be at least 1",
    ),
    "of another layer, in a block": (
        "network: [residual: {layers: [dropout: 0.1, conv: {kernels: 2, units: 2}]}]",
        "1:64",
        "units belongs to dense, not conv",
    ),
    "unknown layer in a block": (
        "network: [residual: {layers: [residual: {layers: [convv: 8]}]}]",
        "1:51",
        "network[0].residual.layers[0].residual.layers[0]: unknown layer convv: did you mean conv?",
    ),
    "no layer in a block": (
        "network: [residual: {layers: [8]}]",
        "1:31",
        "network[0].residual.layers[0] must be a layer, such as",
    ),
    "shortcut of a block": (
        "network: [residual: {layers: [conv: 2], shortcut: {kind: avg}}]",
        "1:52",
        "network[0].residual.shortcut.kind must be max or average",
    ),
    "layers of no block": ("network: [conv: {kernels: 2, layers: []}]", "1:30", "layers belongs to residual, not conv"),
    "empty layer": ("network:\n - batch_norm:", "2:4", "network[0].batch_norm has no value"),
    "layer with text": ("network:\n - batch_norm: 3", "2:4", "network[0].batch_norm must be a mapping"),
    "too many units": (
        "network: [dense: 1000000000]",
        "1:11",
        "network[0].dense.units must be at least 1 and at most 1000000",
    ),
    "too many kernels": (
        "network: [conv: 100000]",
        "1:11",
        "network[0].conv.kernels must be at least 1 and at most 4096",
    ),
    "side of three": (
        "photos: {size: [3, 4, 5]}",
        "1:10",
        "photos.size must be a whole number or a list of 2 such numbers, got a list of 3",
    ),
    "small side": ("photos: {size: [3, 20]}", "1:17", "photos.size[0] must be at least 4"),
    "fraction as side": ("photos: {size: [30, 2.5]}", "1:21", "photos.size[1] must be a whole number, got 2.5"),
    "pool kind": (
        "network: [conv: {kernels: 2, pool: {kind: avg}}]",
        "1:37",
        "network[0].conv.pool.kind must be max or average, got the text 'avg'",
    ),
    "augment as a switch": (
        "photos: {augment: true}",
        "1:10",
        "photos.augment must be a mapping (key: value) or null, got true",
    ),
    "empty folder": ("photos: {folder: ''}", "1:10", "photos.folder is an empty text"),
    "half a character": ('photos: {folder: "\\uD800"}', "1:10", "photos.folder"),
    "newer version": ("version: 99\nwhatever: 3", "1:1", "written for version 99, this is 1: update facecnn"),
    "version 0": ("version: 0", "1:1", "version must be 1, got 0"),
    "open bracket": ("train: {epochs: 3", "1:18", "not valid YAML"),
    "open quote": ("train: 'abc", "1:12", "not valid YAML"),
    "two on a line": ("train: epochs: 3", "1:14", "not valid YAML"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named_with_its_place(name):
    text, place, message = FAULTS[name]
    first = refused(text)[0]
    assert first.startswith(f"config.yaml:{place}: ")
    assert message in first
    assert not re.search(r"pydantic|https?://|Input should", first)
    assert not Path("pwned").exists()


def test_all_faults_are_listed_in_order():
    lines = refused("""trian: {}
train:
  epochs: ten
  batch: 3
photos:
  size: 2
  colour: gray
  augment: {mirror: 3}
optimizer:
  name: adamw
  learning_rate: -1
""")
    places = [tuple(map(int, re.match(r"config\.yaml:(\d+):(\d+): ", line).groups())) for line in lines]
    assert places == [(1, 1), (3, 3), (4, 3), (6, 3), (7, 3), (8, 13), (11, 3)]


def test_faults_in_the_yaml_come_together_with_wrong_values():
    lines = refused("train:\n  epochs: 1\n  epochs: 2\n  seed: &a 3\n")
    assert [line.split(": ")[0] for line in lines] == ["config.yaml:3:3", "config.yaml:4:9"]


def test_very_many_faults_are_cut_short():
    lines = refused("".join(f"key{number}: 1\n" for number in range(1000)))
    assert lines[-1] == "and 980 more"
    assert len(lines) == 21


def test_odd_and_long_values_are_escaped_and_cut():
    (line,) = refused(f'train: {{epochs: "\\e[31m\\n{"x" * 10000}"}}')
    assert "\\x1b[31m\\x0a" in line
    assert len(line) < 250


# Files that are none


@pytest.mark.parametrize("text", ["", "\n\n", "# only this\n", "---\n", "~\n"])
def test_empty(text):
    assert refused(text) == ["config.yaml: empty: there are no settings in it"]


def test_not_utf8():
    text = b"# a\n# b\ntrain: {epochs: 3} # caf\xe9"
    assert refused(text) == ["config.yaml:3:25: not UTF-8 (byte 0xE9 at position 32): save it as UTF-8"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_other_unicode(encoding):
    assert refused("train: {epochs: 3}".encode(encoding)) == [
        f"config.yaml: written in {encoding.upper()}: save it as UTF-8"
    ]


def test_utf16_without_a_mark():
    assert "UTF-8" in refused("train: {epochs: 3}".encode("utf-16-le"))[0]


@pytest.mark.parametrize("text", [b"#" * 65537, b"a: 1\n" * 100_000])
def test_large(text):
    assert refused(text) == ["config.yaml: larger than 64 KiB, so it is no settings file"]


def test_missing_file_names_what_may_be_meant():
    Path("mine.yaml").write_text("train: {}")
    with pytest.raises(
        UsageError,
        match=r"^min\.yaml: no such file: did you mean mine\.yaml\? .*deep, default, finetune, many, pretrained, seed",
    ):
        load("min.yaml")
    with pytest.raises(UsageError, match="did you mean default"):
        load("defalt")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "folder/under/none.yaml", "config.yaml/x", "\x1b[31m", ""])
def test_impossible_names(name):
    Path(FILE).write_text("train: {}")
    with pytest.raises(UsageError) as caught:
        load(name)
    assert "\x1b" not in str(caught.value)


def test_folder(tmp_path):
    with pytest.raises(UsageError, match="a folder, not a settings file"):
        load(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_pipe_is_not_waited_for():
    os.mkfifo("pipe")
    with pytest.raises(UsageError, match="pipe: not a regular file"):
        load("pipe")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero here")
def test_device():
    with pytest.raises(UsageError, match="not a regular file"):
        load("/dev/zero")


def test_no_permission():
    Path(FILE).write_text("train: {}")
    Path(FILE).chmod(0)
    if os.access(FILE, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(UsageError, match="no permission"):
        load(FILE)


# The command line


def test_overrides():
    found = overridden(
        "train.epochs=3",
        "photos.augment=null",
        "network.0.conv.kernels=8",
        "network[2].conv.size=[3, 5]",
        "optimizer.name=momentum",
    )
    assert found.train.epochs == 3
    assert found.photos.augment is None
    assert found.network[0].kernels == 8
    assert found.network[2].size == (3, 5)
    assert found.optimizer == Momentum()
    assert found.network[3:] == load("default").settings.network[3:]


def test_overrides_of_what_the_file_leaves_out():
    read("train: {epochs: 3}")
    found = overridden(
        "photos.augment.mirror=false", "network.0.conv.kernels=5", "loss.label_smoothing=0.1", config=FILE
    )
    assert found.photos.augment == AugmentSettings(mirror=False)
    assert found.network[0].kernels == 5
    assert found.loss == CrossEntropy(label_smoothing=0.1)


def test_override_of_a_section_and_of_a_layer():
    found = overridden("train={epochs: 4}", "network=[conv: 4, dense: people]", "optimizer={name: momentum}")
    assert found.train == TrainSettings(epochs=4)
    assert found.network == (Conv(kernels=4), Dense(units="people"))
    assert found.optimizer == Momentum()


def test_overrides_inside_a_block():
    Path(FILE).write_text("network: [residual: {layers: [conv: 2, dropout: 0.5]}, dense: people]")
    changed = overridden(
        "network.0.residual.layers.0.conv.size=5", "network[0].residual.layers[1]=batch_norm", config=FILE
    )
    assert changed.network[0] == Residual(layers=(Conv(kernels=2, size=5), BatchNorm()))


def test_override_inside_a_layer_written_in_short():
    read("network: [dropout: 0.2, batch_norm, dense: people]")
    found = overridden("network.0.dropout.rate=0.3", "network.1.batch_norm.momentum=0.2", config=FILE)
    assert found.network[:2] == (Dropout(rate=0.3), BatchNorm(momentum=0.2))


def test_another_optimizer_starts_from_its_own_settings():
    read("optimizer: {name: adamw, beta1: 0.5, learning_rate: 0.1}")
    assert overridden("optimizer.name=momentum", config=FILE).optimizer == Momentum()
    found = overridden("optimizer.learning_rate=0.3", "optimizer.name=momentum", config=FILE)
    assert found.optimizer == Momentum(learning_rate=0.3)
    assert overridden("optimizer.name=adamw", config=FILE).optimizer == AdamW(beta1=0.5, learning_rate=0.1)
    assert override_refused("optimizer.name=momentum", "optimizer.beta1=0.3", config=FILE) == [
        "--set optimizer.beta1=0.3: beta1 belongs to adam, adamw or lion, not momentum"
    ]


def test_the_last_one_wins_and_options_win_over_all():
    assert overridden("train.epochs=3", "train.epochs=4").train.epochs == 4
    found = overridden("train.epochs=3", "train.seed=5", options={"--epochs": ("train.epochs", 9)})
    assert (found.train.epochs, found.train.seed) == (9, 5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=abc", "train.epochs must be a whole number, got the text 'abc'"),
        ("train.epochs=0", "train.epochs must be at least 1 and at most 1000000 (got 0)"),
        ("train.epochs=", "train.epochs has no value"),
        ("train.epochs", "a value is missing"),
        ("nosuch=1", "unknown key nosuch"),
        ("epochs=1", "epochs belongs under train"),
        ("train..epochs=1", "the key has an empty part"),
        ("=1", "the key has an empty part"),
        ("train.epochs.x=1", "train.epochs is 60"),
        ("network.99.conv=3", "network has the places 0 to 15, not 99"),
        ("network.x.conv=3", "network has the places 0 to 15, not x"),
        ("network.0.kernels=3", "network[0] must be a layer"),
        ("train.epochs=[1", "not valid YAML"),
        ("train.epochs=&x 3", "anchor &x"),
        ("train={epochs: 3, epochs: 4}", "epochs is given twice"),
        ("train.epochs=\x1b[31m", "control character U+001B"),
        ("optimizer=adamw", "write optimizer: {name: adamw}"),
        ("version=2", "written for version 2"),
    ],
)
def test_wrong_overrides_name_themselves(override, message):
    (line,) = override_refused(override)
    assert line.startswith("--set " + override.replace("\x1b", "\\x1b").replace("=\\x", "=\\x") + ": ")
    assert message in line


def test_all_wrong_overrides_are_listed():
    lines = override_refused("nosuch=1", "train.epochs", "train.seed=x", options={"--epochs": ("train.epochs", 0)})
    assert [line.split(": ")[0] for line in lines] == [
        "--set nosuch=1",
        "--set train.epochs",
        "--set train.seed=x",
        "--epochs 0",
    ]


def test_overrides_leave_the_loaded_settings_alone():
    loaded = load("default")
    before = to_dict(loaded.settings)
    apply_overrides(loaded, ["network.0.conv.kernels=3", "train.epochs=1"])
    assert to_dict(loaded.settings) == before
    assert apply_overrides(loaded, []).settings == loaded.settings


# Round trips

finite = {"allow_nan": False, "allow_infinity": False}
fraction = st.floats(0, 1, exclude_max=True)
sizes = st.integers(1, 4096)
pairs = sizes | st.tuples(sizes, sizes)
activations = st.sampled_from(get_args(Activation))
positive = st.floats(0, exclude_min=True, **finite)
pools = st.builds(PoolSettings, size=pairs, stride=st.none() | pairs, kind=st.sampled_from(["max", "average"]))
layers = st.one_of(
    st.builds(
        Conv,
        kernels=sizes,
        size=pairs,
        stride=pairs,
        padding=st.sampled_from(["valid", "same"]),
        activation=activations,
        slope=fraction,
        pool=st.none() | sizes | pools,
    ),
    st.builds(Activate, name=activations, slope=fraction),
    st.builds(Pool, size=pairs | st.just("global"), stride=st.none() | pairs),
    st.builds(Neuron, per_kernel=sizes, activation=activations),
    st.builds(Dense, units=st.integers(1, 1_000_000) | st.just("people"), activation=activations),
    st.builds(Dropout, rate=fraction),
    st.builds(BatchNorm, momentum=st.floats(0, 1, exclude_min=True), epsilon=st.floats(0, 1, exclude_min=True)),
    st.just(UnitLength()),
)
layers = st.recursive(
    layers,
    lambda inner: st.builds(
        Residual,
        layers=st.lists(inner, min_size=1, max_size=3).map(tuple),
        shortcut=st.none() | pools,
        activation=activations,
        repeat=st.integers(1, 100),
    ),
    max_leaves=4,
)
every = st.builds(
    Settings,
    photos=st.builds(
        PhotoSettings,
        folder=st.none()
        | st.text(min_size=1)
        | st.sampled_from(["no", "null", "1", "~", "1e3", "0x1", "a: b", " ", "- a", "2026-01-01"]),
        size=st.integers(4, 1024) | st.tuples(st.integers(4, 1024), st.integers(4, 1024)),
        validation=fraction,
        augment=st.none()
        | st.builds(AugmentSettings, mirror=st.booleans(), rotate=st.floats(0, 45) | st.integers(0, 45)),
    ),
    network=st.lists(layers, min_size=1, max_size=6).map(tuple),
    loss=st.just(MeanSquaredError())
    | st.builds(CrossEntropy, label_smoothing=fraction, class_weights=st.sampled_from(["balanced", None])),
    optimizer=st.builds(Momentum, learning_rate=positive, momentum=fraction)
    | st.builds(AdamW, beta2=fraction, epsilon=positive),
    schedule=st.builds(Constant, warmup=fraction)
    | st.builds(Step, drops=st.integers(1, 1000))
    | st.builds(Cosine, floor=fraction),
    train=st.builds(
        TrainSettings,
        epochs=st.integers(1, 1_000_000),
        seed=st.integers(0, 2**32 - 1),
        average_weights=st.none() | st.floats(0.01, 0.99),
    ),
    calibration=st.builds(
        CalibrationSettings, false_accept_rate=st.floats(0.001, 0.499), false_reject_rate=st.floats(0.001, 0.499)
    ),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("round") / FILE


@settings(deadline=None, derandomize=True, max_examples=60)
@given(every, st.booleans())
def test_yaml_round_trip(path, given_settings, comments):
    path.write_text(to_yaml(given_settings, comments=comments), encoding="utf-8")
    assert load(path).settings == given_settings


@settings(deadline=None, derandomize=True, max_examples=100)
@given(every)
def test_dictionary_round_trip(given_settings):
    text = json.dumps(to_dict(given_settings))
    again = from_dict(json.loads(text))
    assert again == given_settings
    assert json.dumps(to_dict(again)) == text


def test_equal_settings_give_equal_text():
    default = from_dict({"photos": {"augment": {"rotate": 8}}})
    same = dataclasses.replace(default, photos=PhotoSettings())
    assert repr(default) == repr(same), "a default is converted as what is given"
    assert json.dumps(to_dict(default)) == json.dumps(to_dict(same))
    assert to_yaml(default) == to_yaml(same)


def test_yaml_writes_a_default_as_it_is_declared():
    settings = apply_overrides(load("default"), ["photos.augment.rotate=8.0"]).settings
    assert "    rotate: 8" in to_yaml(settings, comments=False).splitlines()


def test_every_option_is_written_out_with_what_it_means():
    lines = to_yaml(load("default").settings).splitlines()
    options = {line.split(":")[0].strip(): line for line in reversed(lines)}  # the first of each
    for name in (
        "validation",
        "erase",
        "kernels",
        "per_kernel",
        "label_smoothing",
        "beta2",
        "floor",
        "freeze",
        "version",
    ):
        assert "  # " in options[name]
    assert not any("#" in line for line in to_yaml(load("default").settings, comments=False).splitlines())


@pytest.mark.parametrize(
    "data",
    [
        {"train": {"epochs": "3"}},
        {"train": {"epochs": float("nan")}},
        {"network": [{"conv": {}}]},
        {"network": {"conv": 3}},
        {"version": 2},
        {"photos": {1: 2}},
        {"photos": {"folder": b"x"}},
        {"photos": object()},
        {"photos": json.loads("[" * 500 + "]" * 500)},
        {"nosuch": None},
    ],
)
def test_dictionaries_that_are_no_settings(data):
    with pytest.raises(UsageError) as caught:
        from_dict(data)
    assert not str(caught.value).startswith(":")


# Whatever is thrown at it

words = st.sampled_from([
    "train", "network", "photos", "epochs", "conv", "name", "adamw", "1", "1e5", ".inf", "0x", "-_", "~", "null", "<<",
    ": ", ":", "- ", "\n", "\n  ", "  ", "{", "}", "[", "]", ", ",
    "'", '"', "&a ", "*a", "!!", "|", ">", "? ", "# ", "---",
    "...", "%", "\t", "\\",
])  # fmt: skip


def only_explained(path, content):
    path.write_bytes(content)
    message = ""
    try:
        assert isinstance(load(path).settings, Settings)
    except UsageError as error:
        message = str(error)
    assert all(str(path) in line or line.startswith("and ") for line in message.split("\n") if message)
    assert not [c for c in message if unicodedata.category(c) in ("Cc", "Cs") and c != "\n"]


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.lists(words, max_size=30).map("".join))
def test_any_yaml_like_text(path, text):
    only_explained(path, text.encode())


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes(path, content):
    only_explained(path, content)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.data())
def test_a_config_with_something_put_in(path, data):
    text = shipped()["smoke"].read_text(encoding="utf-8")
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    only_explained(path, (text[:start] + data.draw(words | st.text(max_size=3)) + text[end:]).encode())


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    st.text(max_size=20)
    | st.builds("{}={}".format, st.sampled_from(["train.epochs", "network.0", "photos"]), st.text(max_size=20))
)
def test_any_override(override):
    message = "--set "
    try:
        assert isinstance(apply_overrides(load("smoke"), [override]).settings, Settings)
    except UsageError as error:
        message = str(error)
    assert message.startswith("--set ")


# The schema


@pytest.mark.parametrize(
    "data",
    [
        {"train": {"epochs": 0}},
        {"train": {"epochs": "3"}},
        {"train": {"nosuch": 1}},
        {"nosuch": 1},
        {"network": []},
        {"network": [{"conv": {}}]},
        {"network": [{"conv": {"kernels": 1}, "dense": 3}]},
        {"network": ["conv"]},
        {"network": ["residual"]},
        {"network": [{"residual": {"layers": []}}]},
        {"network": [{"residual": {"layers": [{"conv": {}}]}}]},
        {"network": [{"residual": {"layers": [{"residual": {"layers": ["nosuch"]}}]}}]},
        {"optimizer": {"name": "momentum", "beta1": 0.5}},
        {"optimizer": {"momentum": 0.5}},
        {"photos": {"size": [1, 2, 3]}},
        {"version": 2},
    ],
)
def test_schema_refuses_what_the_reader_refuses(data):
    jsonschema = pytest.importorskip("jsonschema")
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(data)
    with pytest.raises(UsageError):
        from_dict(data)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(every)
def test_schema_accepts_what_is_valid(given_settings):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator(json_schema()).validate(to_dict(given_settings))


def test_schema_accepts_short_forms_in_a_block():
    jsonschema = pytest.importorskip("jsonschema")
    data = {"network": [{"residual": {"layers": ["batch_norm", {"conv": 3}, {"residual": {"layers": ["pool"]}}]}}]}
    jsonschema.Draft202012Validator(json_schema()).validate(data)
    assert isinstance(from_dict(data).network[0], Residual)


def test_schema_is_one():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(json_schema())


# The commands


def test_show_prints_a_file_that_reads_back():
    result = CliRunner().invoke(app, ["show", "-c", "smoke", "--set", "train.epochs=3"])
    assert result.exit_code == 0
    found = read(result.stdout)
    assert found.settings == overridden("train.epochs=3", config="smoke")


def test_show_without_a_config_is_the_default():
    assert read(CliRunner().invoke(app, ["show"]).stdout).settings == load("default").settings


def test_schema_prints_json():
    jsonschema = pytest.importorskip("jsonschema")
    printed = json.loads(CliRunner().invoke(app, ["schema"]).stdout)
    jsonschema.Draft202012Validator.check_schema(printed)
    del printed["properties"]["sweep"]  # which is no setting
    assert printed == json_schema()


def test_check_prints_the_shapes():
    result = CliRunner().invoke(app, ["check", "seed"])
    assert result.exit_code == 0
    assert "110x110, 8 maps" in result.stdout
    assert "96,808" in result.stdout  # of the neurons: 8 * (110 * 110 + 1)
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_check_refuses_layers_that_do_not_fit():
    Path(FILE).write_text("network: [conv: {kernels: 1, size: 99}, dense: people]")
    result = CliRunner().invoke(app, ["check", FILE])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: config.yaml:1:11: network[0] conv: a kernel of 99x99")


def test_the_commands_import_nothing_heavy():
    heavy = {"numpy", "pydantic", "ruamel.yaml", "PIL"}
    code = f"import sys; import facecnn.cli.config; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[1]).returncode == 0
