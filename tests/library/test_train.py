"""``facecnn.train``."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import facecnn
from cli.running import all_names, call


def test_the_model_is_that_of_the_command_line(people: Path, tmp_path: Path) -> None:
    options = ["--set", "photos.size=20", "--set", "optimizer={name: momentum, learning_rate: 0.05}", "--seed", "3"]
    done = call("train", people, "-c", "smoke", "--out", tmp_path, "--name", "one", "--epochs", "2", *options)
    assert done.exit_code == 0
    model = facecnn.train(
        people,
        "smoke",
        out=tmp_path,
        name="other",
        epochs=2,
        seed=3,
        photos={"size": 20},
        optimizer={"learning_rate": np.float64(0.05), "name": "momentum"},
    )
    assert model.run == tmp_path / "other"
    assert model.path.read_bytes() == (tmp_path / "one" / "best.safetensors").read_bytes()
    assert all_names(tmp_path / "one") == all_names(tmp_path / "other")


def test_a_setting_may_be_dotted_nested_or_a_list(people: Path, tmp_path: Path) -> None:
    network = ({"conv": {"kernels": 2, "size": 3, "pool": 2}}, {"dense": {"units": "people"}})
    model = facecnn.train(
        people, "smoke", out=tmp_path, network=network, train={"epochs": 2}, **{"photos.augment.mirror": False}
    )
    assert [*model.settings["network"][0]] == ["conv"]
    assert len(model.settings["network"]) == 2
    assert model.settings["train"]["epochs"] == 2
    assert model.settings["train"]["batch_size"] == 8  # as in the config
    assert model.settings["photos"]["augment"]["mirror"] is False
    assert model.settings["photos"]["augment"]["shift"] == 0.05


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"train": {"epoch": 3}}, r"^train.epoch = 3: unknown key epoch: did you mean epochs\?"),
        ({"epochs": 0}, "^epochs = 0: train.epochs must be at least 1"),
        ({"seed": "x"}, "^seed = x: train.seed must be a whole number"),
        ({"train.epochs": object()}, "^train.epochs: object is no setting"),
        ({"network": [{"conv": {"size": {3}}}]}, r"^network.0.size|^network.0.conv.size: set is no setting"),
        ({"train": {3: 4}}, "^train.3: a setting's key is text"),
        ({"photos": "people"}, "photos: a second folder of photos"),
        ({"trian": {"epochs": 3}}, "unknown key trian: did you mean train"),
        ({"config": "nosuch"}, "^nosuch: no such file"),
        ({"device": "gpu"}, "no such device"),
        ({"threads": 0}, "must be 1 to"),
        ({"name": "a/b"}, "a/b"),
    ],
)
def test_bad_arguments_leave_nothing_behind(people: Path, tmp_path: Path, settings: dict[Any, Any], said: str) -> None:
    with pytest.raises(facecnn.UsageError, match=said):
        facecnn.train(people, **{"config": "smoke", "out": tmp_path / "runs", **settings})
    assert [*tmp_path.iterdir()] == []


def test_the_folder_may_be_called_photos_but_not_given_twice(people: Path, tmp_path: Path) -> None:
    model = facecnn.train(photos=people, config="smoke", out=tmp_path, name="run", epochs=1)
    assert model.settings["photos"]["folder"] is None, "no checkpoint names a folder"
    assert model.people == facecnn.train(people, "smoke", out=tmp_path, epochs=1).people
    with pytest.raises(facecnn.UsageError, match="photos: a second folder"):
        facecnn.train(people, "smoke", out=tmp_path, photos=str(people))


def test_epochs_are_as_many_as_asked_for(people: Path, tmp_path: Path) -> None:
    model = facecnn.train(people, "smoke", out=tmp_path, epochs=2, train={"least_steps": 500})
    assert model.figures is not None
    assert model.figures["epochs"] == 2


def test_bad_photos_are_told_of(people: Path, tmp_path: Path) -> None:
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / "ann").symlink_to(people / "ann")
    with pytest.raises(facecnn.PhotoError, match="only one person"):
        facecnn.train(tmp_path / "people", "smoke", out=tmp_path)
    with pytest.raises(facecnn.PhotoError, match="nosuch"):
        facecnn.train(tmp_path / "nosuch", "smoke", out=tmp_path)
    with pytest.raises(facecnn.UsageError, match="the folder of photos: 3 is no path"):
        facecnn.train(3, "smoke", out=tmp_path)  # type: ignore[arg-type]


def test_a_run_is_only_replaced_if_asked_for(people: Path, tmp_path: Path) -> None:
    facecnn.train(people, "smoke", out=tmp_path, name="run", epochs=1)
    with pytest.raises(facecnn.UsageError, match="this run exists already"):
        facecnn.train(people, "smoke", out=tmp_path, name="run", epochs=1)
    again = facecnn.train(people, "smoke", out=tmp_path, name="run", epochs=2, overwrite=True)
    assert again.figures is not None
    assert again.figures["epochs"] == 2


def test_messages_go_to_the_logger(people: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "facecnn"):
        facecnn.train(people, "smoke", out=tmp_path, epochs=1, photos={"validation": 0})
    levels = {record.levelname: record.getMessage() for record in caplog.records if record.name == "facecnn"}
    assert set(levels) == {"INFO", "WARNING"}
    assert any("photos.validation is 0" in record.getMessage() for record in caplog.records)


def test_progress_is_shown_on_stderr(people: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    facecnn.train(people, "smoke", out=tmp_path, epochs=1, progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "epoch 1/1" in shown.err


@contextlib.contextmanager
def nothing_changed() -> Iterator[None]:
    """Check that the state of the process is the same before and after."""

    def state() -> dict[str, Any]:
        numba: Any = sys.modules["numba"]
        return {
            "folder": Path.cwd(),
            "environment": dict(os.environ),
            "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
            "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook),
            "levels": [logging.getLogger(name).level for name in ("", "facecnn", "PIL")],
            "root handlers": list(logging.getLogger().handlers),
            "blas": [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()],
            "numba": numba.get_num_threads(),
            "floating point": np.geterr(),
            "random": np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002
        }

    before = state()
    yield
    assert state() == before


def test_nothing_is_printed_and_nothing_of_the_process_is_changed(
    people: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    facecnn.train(people, "smoke", out=tmp_path, epochs=1)  # loads all libraries, and starts Numba's threads
    with threadpool_limits(2, user_api="blas"), nothing_changed():
        model = facecnn.train(people, "smoke", out=tmp_path, epochs=1, threads=1)
    with threadpool_limits(2, user_api="blas"), nothing_changed():
        model.predict(people / "ann" / "00.png")  # by NumPy
    with nothing_changed():
        facecnn.load(model.path, device="cpu", threads=1).predict([people / "ann" / "00.png"])
        model.evaluate()
    with nothing_changed(), pytest.raises(facecnn.PhotoError):
        model.predict(people)
    assert capfd.readouterr() == ("", "")


def test_without_a_handler_warnings_are_not_printed_either(people: Path, tmp_path: Path) -> None:
    """Python prints those of loggers that have none; pytest has some, so this takes a process of its own."""
    code = (
        f"import facecnn; facecnn.train({str(people)!r}, 'smoke', out={str(tmp_path)!r}, epochs=1, "
        "photos={'validation': 0})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.usefixtures("interrupts")
def test_signals_are_left_to_the_program(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler of the program runs while a training goes on, and an interrupt leaves a run that can be resumed."""
    caught: list[int] = []
    monkeypatch.setattr("facecnn.learning.loop.MOST_STEPS_BETWEEN_SAVES", 1)

    def display(self: object, epochs: int, steps: int, label: str = "", lines: int = 0) -> Any:
        class Display:
            def step(self, report: Any) -> None:
                signal.raise_signal(signal.SIGTERM)
                if report.step == 2:
                    signal.raise_signal(signal.SIGINT)

            def trial_step(self, start: int, report: Any) -> None: ...

            def epoch(self, metrics: Any, epochs: int) -> None: ...

        return contextlib.nullcontext(Display())

    monkeypatch.setattr("facecnn.library.console.LogConsole.training", display)
    before = signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
    try:
        with pytest.raises(KeyboardInterrupt):
            facecnn.train(people, "smoke", out=tmp_path, name="run")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught == [signal.SIGTERM] * 2
    assert call("train", "--resume", tmp_path / "run").exit_code == 0


def test_threads_may_train_and_predict_at_the_same_time(people: Path, runs: Path, tmp_path: Path) -> None:
    model = facecnn.load(runs / "two")
    compiled = facecnn.load(runs / "two", device="cpu", threads=1)
    photos = sorted(people.rglob("*.png"))
    expected, by_kernels = model.predict(photos), compiled.predict(photos)
    alone = facecnn.train(people, "smoke", out=tmp_path, name="alone", epochs=2)

    def work(number: int) -> bool:
        if number % 4 == 0:
            trained = facecnn.train(people, "smoke", out=tmp_path, name=str(number), epochs=2)
            return trained.path.read_bytes() == alone.path.read_bytes()
        if number % 4 == 1:
            return compiled.predict(photos) == by_kernels
        return model.predict(photos) == expected

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(12)))
