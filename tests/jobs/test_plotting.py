"""Plots that a further process draws: the same, and nothing is lost if it fails or ends."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from facecnn.config import apply_overrides, load
from facecnn.errors import OutputError
from facecnn.jobs import further_process
from facecnn.jobs.judgement import JudgedPhotos
from facecnn.jobs.plotting import Plot, Plotter
from facecnn.jobs.training import finish
from facecnn.jobs.training import train as training
from facecnn.jobs.training.finish import FEW
from facecnn.jobs.training.options import TrainOptions
from facecnn.kernels import available_threads, open_device
from facecnn.library.console import LogConsole
from facecnn.recognition import Recogniser
from facecnn.reports.plots import draw_confusion, draw_curves

PICTURES = ("curves", "confusion", "kernels", "patches", "watching")


def plots(folder: Path) -> list[Plot]:
    metrics = [{"epoch": epoch, "train_loss": 1 / epoch, "train_accuracy": 0.5} for epoch in range(1, 9)]
    return [
        Plot(draw_curves, folder / "curves.png", metrics, 8),
        Plot(draw_confusion, folder / "confusion.png", np.eye(2), ["ann", "bob"], ["ann", "bob"], "2 photos"),
    ]


@pytest.fixture
def drawn_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that this process draws."""
    names: list[str] = []
    draw = Plot.__call__

    def noted(plot: Plot) -> None:
        names.append(plot.args[0].name)
        draw(plot)

    monkeypatch.setattr(Plot, "__call__", noted)
    return names


@pytest.fixture
def plotter() -> Iterator[Plotter]:
    with Plotter(beside=True) as started:
        yield started


def test_the_further_process_draws_the_same(plotter: Plotter, drawn_here: list[str], tmp_path: Path) -> None:
    beside, here = tmp_path / "beside", tmp_path / "here"
    beside.mkdir()
    here.mkdir()
    assert plotter.can_draw()
    for plot in plots(beside):
        plotter.begin([plot])
    plotter.finish()
    assert drawn_here == []
    alone = Plotter()
    alone.begin(plots(here))
    assert list(here.iterdir()) == []
    alone.finish()
    assert drawn_here == ["curves.png", "confusion.png"]
    for plot in plots(here):
        path = plot.args[0]
        assert path.read_bytes() == (beside / path.name).read_bytes()


def test_what_fails_there_is_drawn_here_and_fails_with_an_error(
    plotter: Plotter, drawn_here: list[str], tmp_path: Path
) -> None:
    (tmp_path / "curves.png").mkdir()
    plotter.begin(plots(tmp_path))
    with pytest.raises(OutputError, match=r"curves\.png"):
        plotter.finish()
    assert drawn_here == ["curves.png"]
    assert (tmp_path / "confusion.png").is_file()


@pytest.mark.parametrize("when", ["loading", "ready", "drawing"])
def test_a_process_that_is_killed_is_done_without(
    plotter: Plotter, drawn_here: list[str], tmp_path: Path, when: str
) -> None:
    process = plotter._process
    assert process is not None
    if when == "loading":
        process.kill()
    assert plotter.can_draw()
    if when == "ready":
        process.kill()
        process.wait()
    plotter.begin(plots(tmp_path) * 3)
    process.kill()
    plotter.finish()
    assert {path.name for path in tmp_path.iterdir()} >= set(drawn_here) == {"curves.png", "confusion.png"}


@pytest.mark.parametrize("says", ["", "ready"])
def test_a_process_that_hangs_is_done_without(
    monkeypatch: pytest.MonkeyPatch, drawn_here: list[str], tmp_path: Path, says: str
) -> None:
    program = f"import sys, threading; print({says!r}, flush=True); threading.Event().wait()"

    def start(module: str, *, stdout: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=stdout)

    monkeypatch.setattr(further_process, "start", start)
    monkeypatch.setattr("facecnn.jobs.plotting.LONGEST", 2.0)
    with Plotter(beside=True) as plotter:
        plotter.begin([Plot(Path.write_bytes, tmp_path / "more than a pipe holds", bytes(1 << 20))])
        plotter.begin(plots(tmp_path))
        plotter.finish()
    assert drawn_here == ["more than a pipe holds", "curves.png", "confusion.png"]
    assert {path.name for path in tmp_path.iterdir()} == set(drawn_here)


def test_where_no_process_can_be_started_plots_are_drawn_here(
    monkeypatch: pytest.MonkeyPatch, drawn_here: list[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("facecnn.jobs.further_process.sys.executable", str(tmp_path / "nosuch"))
    with Plotter(beside=True) as plotter:
        assert plotter.can_draw()
        plotter.begin(plots(tmp_path))
        plotter.finish()
    assert drawn_here == ["curves.png", "confusion.png"]


def test_the_process_ends_with_the_first_and_with_the_training() -> None:
    process = further_process.start("facecnn.jobs.plotting", stdout=subprocess.PIPE)
    assert process.communicate(timeout=60) == (b"ready\n", None)  # which closes its input, as the end of the first does
    assert process.returncode == 0
    with Plotter(beside=True) as plotter:
        own = plotter._process
        assert own is not None
    assert own.returncode is not None


def test_it_makes_no_temporary_files_that_would_stay_if_it_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = tmp_path.stat().st_mtime_ns
    with Plotter(beside=True) as plotter:
        assert plotter.can_draw()
        assert plotter._process is not None
    assert tmp_path.stat().st_mtime_ns == before


@pytest.mark.parametrize(("threads", "documents", "beside"), [(1, True, [False]), (2, True, [True]), (2, False, [])])
def test_a_training_on_one_thread_uses_no_second_processor(
    monkeypatch: pytest.MonkeyPatch, people: Path, tmp_path: Path, threads: int, documents: bool, beside: list[bool]
) -> None:
    asked: list[bool] = []

    def plotter(*, beside: bool) -> Plotter:
        asked.append(beside)
        return Plotter()

    monkeypatch.setattr(training, "Plotter", plotter)
    settings = apply_overrides(load("smoke"), ["train.epochs=1"])
    options = TrainOptions(photos=people, out=tmp_path, name="run", threads=threads, documents=documents)
    training.train(settings, options, LogConsole())
    assert asked == beside


def test_plots_are_got_ready_first_and_that_is_no_reason_for_threads_to_wait_asleep(
    monkeypatch: pytest.MonkeyPatch, people: Path, tmp_path: Path
) -> None:
    order: list[str] = []

    def noted(name: str, result: object = None) -> Callable[..., object]:
        return lambda *arguments, **options: (order.append(name), result)[1]

    monkeypatch.setattr(training, "look_for_free_processors", noted("look"))
    monkeypatch.setattr(training, "Plotter", noted("plotter", Plotter()))
    monkeypatch.setattr(training, "open_for_training", noted("device", open_device("reference")))
    settings = apply_overrides(load("smoke"), ["train.epochs=1"])
    training.train(settings, TrainOptions(photos=people, out=tmp_path, name="run"), LogConsole())
    assert order == ["look", "plotter", "device"]


@pytest.mark.parametrize(("beside", "work", "threads"), [(True, 1, 1), (False, 1, 2), (True, FEW, 2)])
def test_while_few_photos_are_judged_the_plots_have_a_processor(
    monkeypatch: pytest.MonkeyPatch, people: Path, tmp_path: Path, beside: bool, work: int, threads: int
) -> None:
    if available_threads() < 2:
        pytest.skip("needs two processors")
    found: list[int] = []
    judge = finish.judge_photos

    def noted(*arguments: Any) -> JudgedPhotos:
        found.append(numba.get_num_threads())
        return judge(*arguments)

    monkeypatch.setattr(finish, "judge_photos", noted)
    monkeypatch.setattr(Recogniser, "multiply_adds", property(lambda recogniser: work))
    monkeypatch.setattr(training, "Plotter", lambda **options: Plotter(beside=beside))
    settings = apply_overrides(load("smoke"), ["train.epochs=1"])
    training.train(settings, TrainOptions(photos=people, out=tmp_path, name="run", threads=2), LogConsole())
    assert (found, numba.get_num_threads()) == ([threads], 2)


def test_a_trainings_pictures_are_the_same_however_they_are_drawn(
    people: Path, tmp_path: Path, drawn_here: list[str], pictures: None
) -> None:
    settings = apply_overrides(load("smoke"), ["train.epochs=2"])
    found = []
    for threads in (1, 2):
        options = TrainOptions(photos=people, out=tmp_path, name=f"{threads}", threads=threads)
        training.train(settings, options, LogConsole())
        run = tmp_path / f"{threads}"
        found.append({path.name: path.read_bytes() for path in run.iterdir() if path.suffix in (".gif", ".png")})
    assert set(found[0]) == {*(f"{name}.png" for name in PICTURES), "kernels.gif"}
    assert sorted(drawn_here) == ["confusion.png", "curves.png", "watching.png"], "on two threads none was drawn here"
    assert found[0] == found[1]
