"""``facecnn.load`` and what a model tells."""

import copy
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

import facecnn
from cli.running import call
from facecnn.library.model import without_run


def test_without_a_name_the_model_is_that_of_the_command_line(
    runs: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    assert facecnn.load().path == tmp_path / "runs" / "two" / "best.safetensors"
    shutil.copytree(runs / "two", tmp_path / "runs" / "newer")
    (tmp_path / "runs" / "newer" / "best.safetensors").touch()
    assert facecnn.load().run == tmp_path / "runs" / "newer"
    assert call("runs", "pin", "two").exit_code == 0
    assert facecnn.load().run == tmp_path / "runs" / "two"
    assert facecnn.load(out=runs).run == runs / "two"


def test_a_model_tells_about_itself(model: facecnn.Model, runs: Path) -> None:
    assert model.people == model.classes == ("ann", "bob")
    assert model.finished
    assert model.settings["photos"]["size"] == 24
    assert model.run == runs / "two"
    assert "two" in repr(model)
    assert "ann, bob" in repr(model)


def test_a_file_may_stand_alone(model: facecnn.Model, people: Path, tmp_path: Path) -> None:
    shutil.copy(model.path, tmp_path / "model.safetensors")
    alone = facecnn.load(tmp_path / "model.safetensors")
    assert alone.run is None
    assert alone.figures is None
    assert alone.predict(people / "ann" / "00.png") == model.predict(people / "ann" / "00.png")
    with pytest.raises(facecnn.CheckpointError, match="give PHOTOS"):
        alone.evaluate()


def test_a_model_without_a_file_is_in_no_run(model: facecnn.Model, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs / "two")
    assert facecnn.load(".").run == runs / "two"
    alone = without_run(model, "cpu")
    assert alone.run is None
    assert alone.figures is not None
    assert "run" not in alone.figures


def test_damage_and_missing_models_are_told_of(model: facecnn.Model, tmp_path: Path) -> None:
    with pytest.raises(facecnn.CheckpointError, match="no such file or folder"):
        facecnn.load(tmp_path / "nosuch")
    with pytest.raises(facecnn.CheckpointError, match="train first"):
        facecnn.load(out=tmp_path)
    (tmp_path / "half.safetensors").write_bytes(model.path.read_bytes()[:-9])
    with pytest.raises(facecnn.CheckpointError, match="cut short"):
        facecnn.load(tmp_path / "half.safetensors")
    with pytest.raises(facecnn.UsageError, match="'' is no path"):
        facecnn.load("")
    with pytest.raises(facecnn.UsageError, match="no such device"):
        facecnn.load(model.path, device="gpu").predict(np.zeros((20, 20), np.uint8))


def test_an_environment_that_numba_cannot_work_in_is_told_of(
    model: facecnn.Model, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_NUM_THREADS", "many")
    with pytest.raises(facecnn.UsageError, match="NUMBA_NUM_THREADS is 'many'"):
        model.predict(people / "ann" / "00.png")


def test_a_model_can_be_pickled_and_copied(model: facecnn.Model, people: Path) -> None:
    photo = people / "ann" / "00.png"
    expected = model.predict(photo)
    data = pickle.dumps(model)
    for other in (pickle.loads(data), copy.deepcopy(model)):
        assert other.predict(photo) == expected
        assert other.figures == model.figures
        assert other.path == model.path
    with pytest.raises(facecnn.CheckpointError, match="checksum differs"):
        pickle.loads(data.replace(model.path.read_bytes()[-40:], bytes(40)))


def test_an_evaluation_is_that_of_the_command_line(model: facecnn.Model, people: Path) -> None:
    own = model.evaluate()
    assert own.figures == call("eval", "-m", model.path, "--format", "json").json()
    assert own.photos == 4
    assert own.accuracy == own.figures["accuracy"]
    assert own.closed_set_accuracy == own.figures["closed_set_accuracy"]
    assert own.interval == tuple(own.figures["interval"])
    assert len(own.predictions) == 4
    everything = model.evaluate(people, split="all")
    assert everything.figures == call("eval", people, "-m", model.path, "--split", "all", "--format", "json").json()
    assert everything.photos == 20


def test_an_evaluation_without_known_people_has_no_accuracy(model: facecnn.Model, write_people) -> None:  # type: ignore[no-untyped-def]
    strangers = model.evaluate(write_people({"unknown": 3}))
    assert strangers.accuracy is strangers.closed_set_accuracy is strangers.interval is None


def test_embeddings_need_a_body(model: facecnn.Model, people: Path) -> None:
    with pytest.raises(facecnn.UsageError, match="no embeddings: train one with the config pretrained"):
        model.embed(people / "ann" / "00.png")


def test_a_model_outlives_its_run(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = people / "ann" / "00.png"
    one = facecnn.train(people, "smoke", out=tmp_path, epochs=1, name="run")
    copied = pickle.dumps(facecnn.load(tmp_path / "run"))
    expected = one.predict(photo)
    shutil.rmtree(tmp_path / "run")
    other = pickle.loads(copied)
    assert one.predict(photo) == other.predict(photo) == expected
    assert one.run is other.run is None
    assert other.figures is not None
    assert other.figures["epochs"] == 1
    with pytest.raises(facecnn.CheckpointError):
        other.evaluate()


def test_figures_are_those_of_the_training(model: facecnn.Model, people: Path, tmp_path: Path) -> None:
    fresh = facecnn.train(people, "smoke", out=tmp_path, epochs=1, name="run")
    assert fresh.figures is not None
    told = dict(fresh.figures)
    assert told.pop("seconds") > 0
    assert told["epochs"] == 1
    assert facecnn.load(tmp_path / "run").figures == told
