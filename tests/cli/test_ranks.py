"""Trainings that mpiexec has started as several processes: what is printed, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from facecnn.errors import UsageError
from facecnn.parallel import mpi
from facecnn.parallel.launcher import Launched

from .running import COMMAND, Outcome, call, call_process, killed_at_the_end
from .sweeping import write_config

MPIEXEC = Path(sys.executable).with_name("mpiexec")
PROGRAM = """
import os, pathlib
rank = int(os.environ["PMI_RANK"])
pathlib.Path(os.environ["PIDS"], str(rank)).write_text(str(os.getpid()))
exec(os.environ["BEFORE"])
from facecnn.cli import main
main()
"""
"""A rank's command: it tells its process, so that a test can end it."""

HANG = """
import pathlib, time
from importlib import import_module
module, *outer, name = PLACE.split("/")
owner = import_module(module)
for part in outer:
    owner = getattr(owner, part)
whole, paused = getattr(owner, name), pathlib.Path(os.environ["PIDS"], "paused")
def hang(*arguments, **named):
    if rank == 1:
        paused.touch()
        while True:
            os.kill(os.getpid(), 19)
    while not paused.exists():
        time.sleep(0.01)
    return whole(*arguments, **named)
setattr(owner, name, hang)
"""
"""Lets rank 1 stop (SIGSTOP), whoever wakes it, in a function in which rank 0 waits for that. ``hanging`` names it."""


def hanging(place: str) -> str:
    return HANG.replace("PLACE", repr(place))


SMOKE = ("-c", "smoke", "--set", "photos.faces=off", "--threads", "1")


@pytest.fixture(scope="module", autouse=True)
def _mpi() -> None:
    if not MPIEXEC.exists():
        pytest.skip("needs the extra mpi")


class Ranks:
    """Two ranks of a command."""

    def __init__(self, folder: Path, *arguments: object, before: str = "", limit: float = 60) -> None:
        self._folder = folder
        environment = {"PIDS": str(folder), "BEFORE": before, "FACECNN_MPI_TIME_LIMIT": str(limit)}
        self.process = subprocess.Popen(
            [MPIEXEC, "-n", "2", sys.executable, "-c", PROGRAM, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )

    def read_until(self, text: str) -> None:
        """Read stderr up to a line that starts so."""
        assert self.process.stderr is not None
        read = []
        for line in self.process.stderr:
            read.append(line)
            if line.startswith(text):
                return
        pytest.fail(f"ended before {text!r}: {''.join(read)}")

    def signal(self, rank: int, number: int) -> None:
        os.kill(int((self._folder / str(rank)).read_text()), number)

    def end(self, seconds: float = 120) -> Outcome:
        stdout, stderr = self.process.communicate(timeout=seconds)
        return Outcome(self.process.returncode, stdout, stderr)


@contextmanager
def ranks(folder: Path, *arguments: object, **options: Any) -> Iterator[Ranks]:
    running = Ranks(folder, *arguments, **options)
    with killed_at_the_end(running.process):
        yield running


def test_two_processes_print_and_write_as_one(people: Path, tmp_path: Path) -> None:
    arguments = ("train", people, *SMOKE, "--epochs", "4", "--out", tmp_path / "runs", "--format", "json")
    with ranks(tmp_path, *arguments, "--name", "two") as running:
        two = running.end()
    assert two.exit_code == 0, two.stderr
    assert "Ranks: 2 processes on this machine" in two.stderr
    assert two.stderr.count("Run: ") == 1
    one = call(*arguments, "--name", "one").json()
    found = two.json()
    assert found["validation"]["loss"] == pytest.approx(one["validation"]["loss"], rel=1e-3)
    assert found["epochs"] == one["epochs"]
    assert sorted(run.name for run in (tmp_path / "runs").iterdir() if run.is_dir()) == ["one", "two"]
    assert {path.name for path in (tmp_path / "runs/one").iterdir()} == {
        path.name for path in (tmp_path / "runs/two").iterdir()
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "optimizer.name=lbfgs"), "2 ranks can't share the steps of a full-batch optimizer"),
        (("--no-such-option",), "No such option"),
    ],
)
def test_what_ranks_cannot_share_is_refused_once(
    people: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    with ranks(tmp_path, "train", people, *SMOKE, *options, "--out", tmp_path / "runs") as running:
        done = running.end()
    assert done.exit_code == 2
    assert done.stderr.count(message) == 1
    assert "rank 1" not in done.stderr


def test_a_rank_that_sees_other_photos_ends_both_with_its_message(people: Path, tmp_path: Path) -> None:
    before = """
if rank == 1:
    import facecnn.jobs.training.ranks as module
    module._digest = lambda data: "of other photos"
"""
    with ranks(tmp_path, "train", people, *SMOKE, "--out", tmp_path / "runs", before=before) as running:
        done = running.end()
    assert done.exit_code == 3
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("rank 1 of 2 (on ") and "than on rank 0: give all ranks" in line]
    assert [line for line in lines if line.startswith("error: rank 1 of 2 (on ") and "has failed" in line]


def train_long(people: Path, tmp_path: Path, **options: Any) -> Any:
    arguments = ("train", people, *SMOKE, "--epochs", "100000", "--verbose")
    return ranks(tmp_path, *arguments, "--out", tmp_path / "runs", "--name", "run", **options)


def assert_resumable(run: Path) -> None:
    """With one process; it is stopped again after some epochs."""
    with subprocess.Popen(
        [*COMMAND, "train", "--resume", str(run), "--verbose"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch"):
                process.send_signal(signal.SIGINT)
                break
        assert "Go on with" in process.stderr.read()
    assert process.returncode == 130


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_if_a_rank_is_killed_the_other_ends_and_the_run_can_be_resumed(people: Path, tmp_path: Path, rank: int) -> None:
    with train_long(people, tmp_path) as running:
        running.read_until("epoch 3/")
        running.signal(rank, signal.SIGKILL)
        assert running.end(30).exit_code != 0
    assert_resumable(tmp_path / "runs" / "run")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_rank_that_hangs_is_named_after_the_time_limit(people: Path, tmp_path: Path, rank: int) -> None:
    with train_long(people, tmp_path, limit=2) as running:
        running.read_until("epoch 3/")
        running.signal(rank, signal.SIGSTOP)
        done = running.end(60)
    assert done.exit_code == 5
    assert f"rank {rank} of 2 (on " in done.stderr
    assert "no answer for 2 seconds" in done.stderr
    if rank == 1:
        assert f"Go on with: facecnn train --resume {tmp_path / 'runs' / 'run'}" in done.stderr
    assert_resumable(tmp_path / "runs" / "run")


@pytest.mark.slow
def test_interrupted_and_resumed_with_as_many_ranks_it_ends_with_the_same_bits(people: Path, tmp_path: Path) -> None:
    def arguments(name: str) -> tuple[object, ...]:
        train = ("train", people, *SMOKE, "--epochs", "400", "--verbose")
        return (*train, "--out", tmp_path / "runs", "--name", name)

    with ranks(tmp_path, *arguments("whole")) as running:
        assert running.end().exit_code == 0
    with ranks(tmp_path, *arguments("parts")) as running:
        running.read_until("epoch 3/")
        running.process.send_signal(signal.SIGINT)
        done = running.end()
    assert done.exit_code == 130
    assert "and saved." in done.stderr
    with ranks(tmp_path, "train", "--resume", tmp_path / "runs" / "parts", "--threads", "1") as running:
        assert running.end().exit_code == 0
    for file in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "runs/parts" / file).read_bytes() == (tmp_path / "runs/whole" / file).read_bytes(), file


# ---------------------------------------------------------------------------------------------------------- predict


@pytest.fixture(scope="module")
def model(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the people."""
    folder = tmp_path_factory.mktemp("runs")
    call("train", people, *SMOKE, "--epochs", "2", "--out", folder, "--name", "run")
    return folder / "run"


def predict(model: Path, people: Path, broken: Path) -> tuple[object, ...]:
    """A command that answers for all photos, and one that can't be read between them."""
    folders = sorted(path for path in people.iterdir() if path.is_dir())
    return ("predict", folders[0], broken, folders[1], "-m", model, "--format", "csv", "--device", "cpu")


def test_photos_that_ranks_share_are_answered_in_order(model: Path, people: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"nothing")
    alone = call(*predict(model, people, broken))
    with ranks(tmp_path, *predict(model, people, broken)) as running:
        shared = running.end()
    assert shared.exit_code == alone.exit_code == 3
    assert shared.stdout == alone.stdout
    assert shared.stderr.count("1 of 21 photos have no answer") == 1


SMALL_PORTIONS = """
import facecnn.jobs.predict as module
from facecnn.parallel.ranks import PortionSize
module.PHOTOS = PortionSize(largest=4)
"""


def test_photos_of_a_rank_that_hangs_are_answered_by_the_other(model: Path, people: Path, tmp_path: Path) -> None:
    before = f"""
{SMALL_PORTIONS}
{hanging("facecnn.jobs.predict/_Answering/answer")}
"""
    folder = people / "ann"
    alone = call("predict", folder, "-m", model, "--format", "json", "--device", "cpu")
    arguments = ("predict", folder, "-m", model, "--format", "json", "--device", "cpu")
    with ranks(tmp_path, *arguments, before=before, limit=2) as running:
        shared = running.end()
    assert shared.exit_code == alone.exit_code == 0, shared.stderr
    assert shared.stdout == alone.stdout
    assert "warning: rank 1 of 2 (on " in shared.stderr
    assert "no answer for 2 seconds: what it was at work on was given to others" in shared.stderr


def test_photos_over_which_ranks_hang_are_named(model: Path, people: Path, tmp_path: Path) -> None:
    before = f"""
{SMALL_PORTIONS}
import facecnn.parallel.sharing as sharing
sharing.MOST_TRIES = 1
{hanging("facecnn.jobs.predict/_Answering/answer")}
"""
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"nothing")
    alone = call(*predict(model, people, broken))
    with ranks(tmp_path, *predict(model, people, broken), before=before, limit=2) as running:
        shared = running.end()
    assert shared.exit_code == 3
    found, wanted = shared.stdout.splitlines(), alone.stdout.splitlines()
    assert [line.partition(",")[0] for line in found] == [line.partition(",")[0] for line in wanted]
    others = [line for line, before in zip(found, wanted, strict=True) if line != before]
    assert len(others) == 4
    assert all("no answer for 2 seconds" in line for line in others)
    assert "5 of 21 photos have no answer" in shared.stderr


# ----------------------------------------------------------------------------------------------- the other commands


@pytest.mark.slow
def test_photos_are_sorted_though_a_rank_hangs(
    model: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facecnn.jobs.models.quickest_for", lambda name, *_: name)
    before = f"""
import facecnn.jobs.models
facecnn.jobs.models.quickest_for = lambda name, *_: name
{SMALL_PORTIONS}
{hanging("facecnn.jobs.predict/_Answering/answer")}
"""
    alone = call("sort", people, tmp_path / "one", "-m", model, "--device", "cpu", "--format", "json").json()
    arguments = ("sort", people, tmp_path / "two", "-m", model, "--device", "cpu", "--format", "json")
    with ranks(tmp_path, *arguments, before=before, limit=2) as running:
        done = running.end()
    assert done.exit_code == 0, done.stderr
    found = done.json()
    assert {key: found[key] for key in ("photos", "folders", "copied")} == {
        key: alone[key] for key in ("photos", "folders", "copied")
    }
    one, two = ((tmp_path / name / "sorted.csv").read_bytes() for name in ("one", "two"))
    assert two == one
    assert "what it was at work on was given to others" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [False, True])
def test_folds_are_those_of_one_process_even_if_a_rank_hangs(people: Path, tmp_path: Path, hangs: bool) -> None:
    before = hanging("facecnn.jobs.cross_validate/_Folds/train") if hangs else ""
    arguments = ("cross-validate", people, *SMOKE, "--epochs", "2", "--folds", "3", "--format", "json")
    alone = call(*arguments).json()
    with ranks(tmp_path, *arguments, before=before, limit=5 if hangs else 60) as running:
        done = running.end()
    assert done.exit_code == 0, done.stderr
    found = done.json()
    for result in (alone, found):
        for fold in result["folds"]:
            del fold["seconds"]
    assert found == alone
    assert ("was given to others" in done.stderr) is hangs


@pytest.mark.slow
def test_a_training_of_a_fold_that_fails_on_a_rank_ends_all_with_its_message(people: Path, tmp_path: Path) -> None:
    before = """
if rank == 1:
    from facecnn.errors import DivergedError
    import facecnn.jobs.cross_validate as module
    def train(*arguments):
        raise DivergedError("the loss is no longer finite")
    module._Folds.train = train
"""
    arguments = ("cross-validate", people, *SMOKE, "--epochs", "2", "--folds", "3", "--format", "json")
    with ranks(tmp_path, *arguments, before=before) as running:
        done = running.end()
    assert done.exit_code == 7
    assert done.stdout == ""
    assert "the loss is no longer finite" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [False, True])
def test_trials_of_a_rank_that_hangs_are_done_by_another(people: Path, tmp_path: Path, hangs: bool) -> None:
    pytest.importorskip("optuna")
    before = hanging("facecnn.jobs.sweep.trial/train_and_judge") if hangs else ""
    config = write_config(tmp_path)
    arguments = ("sweep", config, people, "--set", "photos.faces=off", "--threads", "1", "--trials", "4")
    arguments += ("--folds", "2", "--outer-folds", "0", "--epochs", "1", "--out", tmp_path / "sweeps")
    with ranks(tmp_path, *arguments, "--format", "json", before=before, limit=5 if hangs else 60) as running:
        done = running.end()
    assert done.exit_code == 0, done.stderr
    assert [trial["number"] for trial in done.json()["trials"]] == [1, 2, 3, 4]
    assert {trial["state"] for trial in done.json()["trials"]} <= {"complete", "pruned"}
    assert ("was given to others" in done.stderr) is hangs
    assert hangs or done.stderr.count(" of 4: ") >= 4


# ------------------------------------------------------------------------------------------------- before MPI begins


@pytest.mark.parametrize(("rank", "said"), [("0", True), ("1", False)])
def test_without_mpi4py_rank_0_says_what_to_install(rank: str, said: bool) -> None:
    program = "import sys; sys.modules['mpi4py'] = None; from facecnn.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "train", "photos"],
        capture_output=True,
        text=True,
        env=os.environ | {"PMI_RANK": rank, "PMI_SIZE": "2"},
    )
    assert done.returncode == 2
    assert ("mpiexec has started 2 processes" in done.stderr) is said
    assert ("pip install 'facecnn[mpi]'" in done.stderr) is said


def test_a_command_that_ranks_do_not_share_is_refused_once() -> None:
    launched = {"PMI_SIZE": "2"}
    first, other = (call_process("config", "show", environment=launched | {"PMI_RANK": rank}) for rank in "01")
    assert first.exit_code == other.exit_code == 2
    assert first.stderr.startswith("error: mpiexec has started 2 processes, but config doesn't share its work")
    assert "start it without mpiexec" in first.stderr
    assert other.stderr == other.stdout == first.stdout == ""


def test_without_the_launcher_each_process_runs_any_command() -> None:
    done = call_process("config", "show", environment={"PMI_RANK": "1", "PMI_SIZE": "2", "FACECNN_MPI": "off"})
    assert done.exit_code == 0
    assert "epochs" in done.stdout


def test_a_launcher_of_another_mpi_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    world = SimpleNamespace(size=1)
    library = SimpleNamespace(COMM_WORLD=world, Get_library_version=lambda: "MPICH Version: 5.0.2\nmore")
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=library, rc=SimpleNamespace()))
    with pytest.raises(UsageError, match=r"mpirun has started 4 processes, but mpi4py's MPI \(MPICH Version: 5.0.2\)"):
        mpi.start(Launched(0, 4, "mpirun"), 60)
