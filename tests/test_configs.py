"""The shipped configs: each loads, fits together and survives being written out."""

import json
from dataclasses import replace

import pytest

from facecnn.config import from_dict, json_schema, load, shipped, to_dict, to_yaml
from facecnn.network.layers import Activate, Conv, Dense, Dropout, Neuron
from facecnn.photos.preparation import AugmentSettings

jsonschema = pytest.importorskip("jsonschema")
NAMES = ("deep", "default", "finetune", "many", "pretrained", "seed", "smoke")


def shapes(name):
    return [(stage.name, stage.out_shape) for stage in load(name).plan(outputs=2)]


def test_these_are_shipped():
    assert set(shipped()) == set(NAMES)


@pytest.mark.parametrize("outputs", [2, 3, 11])
@pytest.mark.parametrize("name", NAMES)
def test_network_fits_together_and_ends_with_the_people(name, outputs):
    assert load(name).plan(outputs)[-1].out_shape == (outputs,)


@pytest.mark.parametrize("comments", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_written_out_and_read_back_is_the_same(name, comments, tmp_path):
    settings = load(name).settings
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(settings, comments=comments), encoding="utf-8")
    assert load(path).settings == settings
    assert to_yaml(load(path).settings, comments=comments) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_survives_json(name):
    settings = load(name).settings
    assert from_dict(json.loads(json.dumps(to_dict(settings)))) == settings


@pytest.mark.parametrize("name", NAMES)
def test_schema_accepts_it_as_shipped_and_as_written_out(name):
    from ruamel.yaml import YAML

    validator = jsonschema.Draft202012Validator(json_schema())
    yaml = YAML(typ="safe", pure=True)
    validator.validate(yaml.load(shipped()[name].read_text(encoding="utf-8")))
    validator.validate(yaml.load(to_yaml(load(name).settings)))


@pytest.mark.parametrize("name", NAMES)
def test_every_line_is_explained(name):
    seen = set()
    lines = shipped()[name].read_text(encoding="utf-8").splitlines()
    for number, (line, following) in enumerate(zip(lines, [*lines[1:], ""], strict=True), start=1):
        key = line.split(":")[0]
        heading = not line or line.endswith(":")
        explained = "#" in line or following.lstrip().startswith("#")
        again = key.lstrip().startswith("- ") and key in seen
        assert heading or explained or again, f"{name}.yaml:{number}: {line}"
        seen.add(key)


def test_seed_is_one_convolution_and_one_neuron_for_each_kernel():
    settings = load("seed").settings
    conv, neuron, activation, dense, last = settings.network
    assert isinstance(conv, Conv)
    assert (conv.kernels, conv.size, conv.padding, conv.activation, conv.pool) == (8, 5, "valid", "leaky_relu", 2)
    assert isinstance(neuron, Neuron)
    assert neuron.per_kernel == 1
    assert isinstance(activation, Activate)
    assert activation.name == "leaky_relu"
    assert dense == Dense(units=16, activation="leaky_relu")
    assert last == Dense(units="people")
    assert (settings.photos.size, settings.photos.colour) == (224, "rgb")
    assert settings.optimizer.name == "momentum"
    assert shapes("seed")[0] == ("conv1", (110, 110, 8))
    assert shapes("seed")[1] == ("neuron1", (8,))


def test_deep_has_13824_inputs_to_its_dense_layer():
    settings = load("deep").settings
    found = dict(shapes("deep"))
    assert [found[f"conv{k}"] for k in (1, 2, 3)] == [(110, 110, 8), (53, 53, 16), (24, 24, 24)]
    dense = next(stage for stage in load("deep").plan(outputs=2) if stage.name == "dense1")
    assert dense.parameters["weight"].shape == (96, 13_824)
    assert Dropout(rate=0.2) in settings.network  # keeps 0.8
    assert settings.train.batch_size == 60
    assert settings.train.stop_when_worst_loss_below == 0.1
    optimizer = settings.optimizer
    assert (optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay) == (0.01, 0.9, 0.0005)


def test_default_augments_as_its_classes_do():
    assert load("default").settings.photos.augment == AugmentSettings()
    assert load("default").settings.photos.folder is None


def test_many_is_default_on_larger_pictures_with_a_dense_layer_on_the_maps():
    default, many = load("default").settings, load("many").settings
    assert many.photos.size == 64
    assert (replace(many.photos, size=default.photos.size), many.loss, many.optimizer) == (
        default.photos,
        default.loss,
        default.optimizer,
    )
    found = dict(shapes("many"))
    assert found["conv3"] == (8, 8, 64)
    dense = next(stage for stage in load("many").plan(outputs=10) if stage.name == "dense1")
    assert dense.parameters["weight"].shape == (96, 4096)
    assert many.train.least_steps >= 800
