"""Signals, kills, full and read-only disks, odd environments, odd Pythons, closed streams."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from cli.running import Outcome, call, killed_at_the_end
from facecnn.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

from .conftest import COMMAND, QUICK, WITHOUT_ROOT, Run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="made for Linux")

ENDLESS = (*QUICK, "--epochs", "100000", "--set", "schedule={name: constant}", "--verbose")
"""Options of a training that has to be stopped, and tells of each epoch."""

REPOSITORY = Path(__file__).parents[2]


def predict(people: Path, model: Path, *options: str | Path) -> Outcome:
    photo = people / "person_0000" / "0000.jpg"
    return call("predict", photo, "-m", model, "--device", "reference", "--format", "json", *options)


def train(people: Path, out: Path, *options: str | Path) -> Outcome:
    return call("train", people, *QUICK, "--out", out, *options)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of trainings in this process stay empty, as they are most of a short training's time."""
    monkeypatch.setattr("matplotlib.backends.backend_agg.FigureCanvasAgg.print_figure", lambda *_, **__: None)


def assert_same_model(run: Path, other: Path) -> None:
    for name in ("best.safetensors", "last.safetensors"):
        assert (run / name).read_bytes() == (other / name).read_bytes(), name


def assert_whole(run: Path) -> None:
    """Whatever there is of a run can be read."""
    for checkpoint in run.glob("*.safetensors"):
        load_checkpoint(checkpoint)


# Signals and kills


class Running:
    """A command in a process of its own."""

    def __init__(self, *arguments: str | Path, **options: Any) -> None:
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
            **options,
        )

    def wait_for_line(self, start: str) -> None:
        assert self.process.stderr is not None
        seen = []
        for line in self.process.stderr:
            seen.append(line)
            if line.startswith(start):
                return
        pytest.fail(f"ended before {start!r}: {''.join(seen)}")

    def end(self, *signals: int, between: float = 0.0) -> Outcome:
        """Send signals and wait for the end; ``between``: seconds from one to the next."""
        for number in signals:
            self.process.send_signal(number)
            if number != signals[-1]:
                time.sleep(between)
        stdout, stderr = self.process.communicate(timeout=60)
        code = self.process.returncode
        return Outcome(code if code >= 0 else 128 - code, stdout, stderr)


@contextlib.contextmanager
def running(*arguments: str | Path, **options: Any) -> Iterator[Running]:
    command = Running(*arguments, **options)
    with killed_at_the_end(command.process):
        yield command


def assert_stopped(done: Outcome, exit_code: int, run: Path, people: Path) -> None:
    assert (done.exit_code, done.stdout) == (exit_code, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert f"Go on with: facecnn train --resume {run}" in done.stderr
    assert_whole(run)
    assert predict(people, run).exit_code == 0
    assert not [*run.glob(".*.facecnn-tmp")]


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.fault("R01")),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.fault("R04")),
    ],
)
def test_a_training_that_is_stopped(number: int, exit_code: int, made_people: Path, tmp_path: Path) -> None:
    with running("train", made_people, *ENDLESS, "--out", tmp_path, "--name", "run") as command:
        command.wait_for_line("epoch 2/")
        done = command.end(number)
    assert_stopped(done, exit_code, tmp_path / "run", made_people)
    assert re.search(r"Stopped in epoch \d+ of 100000, after step \d+, and saved\.", done.stderr)


@pytest.mark.fault("R04")
def test_answers_that_are_stopped(made_people: Path, model: Path, tmp_path: Path) -> None:
    photos = many_photos(made_people, tmp_path / "photos", 400)
    with running("predict", photos, "-m", model, "--device", "reference", "--format", "jsonl") as command:
        assert command.process.stdout is not None
        assert json.loads(command.process.stdout.readline())  # the rest is more than the pipe holds
        done = command.end(signal.SIGTERM)
    assert done.exit_code == 143
    assert "Traceback" not in done.stderr


@pytest.mark.fault("R02")
def test_a_training_that_is_stopped_twice(made_people: Path, tmp_path: Path) -> None:
    with running("train", made_people, *ENDLESS, "--out", tmp_path, "--name", "run") as command:
        command.wait_for_line("epoch 2/")
        done = command.end(signal.SIGINT, signal.SIGINT)
    assert_stopped(done, 130, tmp_path / "run", made_people)


@pytest.mark.long
@pytest.mark.fault("R02")
@pytest.mark.parametrize("between", [0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1])
def test_the_second_stop_at_any_time_of_the_save(between: float, made_people: Path, tmp_path: Path) -> None:
    with running("train", made_people, *ENDLESS, "--out", tmp_path, "--name", "run") as command:
        command.wait_for_line("epoch 20/")
        done = command.end(signal.SIGINT, signal.SIGINT, between=between)
    assert_stopped(done, 130, tmp_path / "run", made_people)


def interrupt_at_random(count: int, seed: int, people: Path, out: Path) -> None:
    chance = random.Random(seed)
    for number in range(count):
        with running("train", people, *ENDLESS, "--out", out, "--name", f"run{number}") as command:
            time.sleep(chance.uniform(0, 3))
            done = command.end(signal.SIGINT)
        if done.exit_code == 1 and "KeyboardInterrupt" in done.stderr and "/facecnn/" not in done.stderr:
            continue  # it met Python's own start, before the first line of facecnn
        assert (done.exit_code, done.stdout) == (130, ""), done.stderr
        if "Traceback" in done.stderr:  # Python's own start may show one, before the first line of facecnn
            assert "/facecnn/" not in done.stderr
        assert_whole(out / f"run{number}")


@pytest.mark.fault("R03")
def test_a_training_that_is_stopped_at_any_moment(made_people: Path, tmp_path: Path) -> None:
    interrupt_at_random(3, 0, made_people, tmp_path)


@pytest.mark.long
@pytest.mark.fault("R03")
def test_a_training_that_is_stopped_at_fifty_moments(made_people: Path, tmp_path: Path) -> None:
    interrupt_at_random(50, 1, made_people, tmp_path)


@pytest.mark.fault("R05")
def test_other_signals(made_people: Path, tmp_path: Path) -> None:
    # In a process group of its own, as of a shell's job: an orphaned one isn't stopped from a terminal.
    with running("train", made_people, *ENDLESS, "--out", tmp_path, "--name", "run", process_group=0) as command:
        command.wait_for_line("epoch 2/")
        for _ in range(100):
            command.process.send_signal(signal.SIGWINCH)
        command.wait_for_line("epoch ")
        command.process.send_signal(signal.SIGTSTP)
        os.waitpid(command.process.pid, os.WUNTRACED)
        command.process.send_signal(signal.SIGCONT)
        for _ in range(1000):  # more than the pipe holds of what was said before
            command.wait_for_line("epoch ")
        done = command.end(signal.SIGHUP)
    assert_stopped(done, 129, tmp_path / "run", made_people)


@pytest.mark.long
@pytest.mark.fault("R54")
def test_a_training_that_sleeps_for_a_minute(made_people: Path, tmp_path: Path) -> None:
    options = [*ENDLESS, "--epochs", "2000", "--out", tmp_path, "--name", "run"]
    with running("train", made_people, *options) as command:
        command.wait_for_line("epoch 2/")
        command.process.send_signal(signal.SIGSTOP)
        os.waitpid(command.process.pid, os.WUNTRACED)
        time.sleep(60)
        done = command.end(signal.SIGCONT)
    assert done.exit_code == 0, done.stderr
    speeds = [json.loads(line)["photos_per_second"] for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert all(speed is None or 0 < speed < 1e7 for speed in speeds)
    seconds, speed = re.match(r"Trained 2000 epochs in (\d+) s \((\d+) photos/s\)", done.stdout).groups()  # type: ignore[union-attr]
    assert 60 <= int(seconds) < 1000
    assert int(speed) > 28 * 2000 / int(seconds)  # the median, which the minute doesn't count in


def kill_at_random(count: int, seed: int, people: Path, out: Path) -> None:
    chance = random.Random(seed)
    for number in range(count):
        run = out / f"run{number}"
        options = [*ENDLESS, "--epochs", "1000", "--out", out, "--name", run.name]
        with running("train", people, *options, "--quiet") as command:
            if number % 4:  # mostly in the training, not in Python's start
                while not (run / "metrics.jsonl").exists():
                    time.sleep(0.002)
            time.sleep(chance.uniform(0, 1))
            assert command.end(signal.SIGKILL).exit_code == 137
        if not (run / "last.safetensors").exists() and not (run / "previous.safetensors").exists():
            continue  # the training hadn't begun
        assert_whole(run)
        assert predict(people, run).exit_code == 0
        saved = load_checkpoint(run, which="last").state["progress"]
        written = (run / "metrics.jsonl").read_bytes().count(b"\n") if (run / "metrics.jsonl").exists() else 0
        # A save every 1000 steps, which are 250 epochs of four here, and two that may wait for the disk meanwhile.
        assert written - saved["epoch"] <= 3 * 250
        resumed = call("train", "--resume", run, "--device", "cpu", "--quiet", "--format", "json")
        assert resumed.exit_code == 0, resumed.stderr
        assert resumed.json()["epochs"] == 1000


@pytest.mark.fault("R06")
def test_a_killed_training_goes_on(made_people: Path, tmp_path: Path, undrawn: None) -> None:
    kill_at_random(2, 0, made_people, tmp_path)


@pytest.mark.long
@pytest.mark.fault("R06")
def test_a_hundred_killed_trainings_go_on(made_people: Path, tmp_path: Path, undrawn: None) -> None:
    kill_at_random(100, 1, made_people, tmp_path)


SAVING = """
import sys
from pathlib import Path
import numpy as np
from facecnn.runs.checkpoint import Checkpoint
from facecnn.runs.folder import RunFolder
run = RunFolder.create(Path(sys.argv[1]), "run", "large")
for number in range(10**6):
    weights = np.full(400_000, number, np.float32)
    run.save_last(Checkpoint({}, ["a", "b"], {"weights": weights}, {"number": number}))
    print(number, flush=True)
"""


@pytest.mark.fault("R07")
def test_a_kill_in_each_step_of_a_save(tmp_path: Path) -> None:
    """Each system call of a save, in turn, is the last one of the process."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    for number, (syscall, when) in enumerate(
        [(syscall, when) for syscall in ("rename", "fsync", "write") for when in (5, 6)]
    ):
        out = tmp_path / f"{number}"
        inject = ["-e", f"trace={syscall}", "-e", f"inject={syscall}:signal=SIGKILL:when={when}"]
        command = ["strace", "-qq", "-o", "/dev/null", *inject, sys.executable, "-c", SAVING, str(out)]
        done = subprocess.run(command, capture_output=True, timeout=60)
        if b"PTRACE" in done.stderr:
            pytest.skip("strace isn't allowed here")
        assert done.returncode in (-signal.SIGKILL, 137), done.stderr
        assert_last_is_whole(out / "run", done.stdout)


def assert_last_is_whole(run: Path, told: bytes) -> None:
    """The last save that was told of, or the one after it."""
    assert_whole(run)
    saved = [int(number) for number in told.split()]
    if saved:
        found = load_checkpoint(run, which="last")
        assert found.state["number"] in (saved[-1], saved[-1] + 1)
        assert (found.arrays["weights"] == found.state["number"]).all()


@pytest.mark.long
@pytest.mark.fault("R07")
def test_a_hundred_kills_in_a_save(tmp_path: Path) -> None:
    chance = random.Random(0)
    for number in range(100):
        command = [sys.executable, "-c", SAVING, str(tmp_path / f"{number}")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            told = process.stdout.readline()
            time.sleep(chance.uniform(0, 0.05))
            process.kill()
            told += process.stdout.read()
        assert_last_is_whole(tmp_path / f"{number}" / "run", told)


@pytest.mark.fault("R39")
def test_a_run_folder_that_is_deleted_meanwhile(made_people: Path, tmp_path: Path) -> None:
    with running("train", made_people, *ENDLESS, "--out", tmp_path, "--name", "run") as command:
        command.wait_for_line("epoch 1/")
        command.process.send_signal(signal.SIGSTOP)  # so that nothing is written while files are deleted
        os.waitpid(command.process.pid, os.WUNTRACED)
        shutil.rmtree(tmp_path / "run")
        done = command.end(signal.SIGCONT)
    assert (done.exit_code, done.stdout) == (6, "")
    assert "its folder does not exist: was it deleted or moved?" in done.stderr
    assert str(tmp_path / "run") in done.stderr
    assert [*tmp_path.iterdir()] == []


@pytest.mark.fault("R53")
def test_a_worker_process_that_is_killed() -> None:
    pytest.skip("photos are read by threads: there are no worker processes")


# Where to write


def assert_no_space(done: Outcome, run: Path) -> None:
    assert (done.exit_code, done.stdout) == (6, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert f"error: {run}" in done.stderr
    assert "no space left on the device" in done.stderr
    assert not [*run.glob(".*.facecnn-tmp")]
    assert_whole(run)


@pytest.mark.fault("R08")
def test_a_full_disk(made_people: Path, small_disk: Callable[[str], Path], run: Run) -> None:
    disk = small_disk("1m")
    (disk / "fill").write_bytes(bytes((1 << 20) - 60_000))
    done = run("train", made_people, *QUICK, "--out", disk, "--name", "run")
    assert_no_space(done, disk / "run")
    assert "needs about 0.1 MB: free some or choose another place" in done.stderr
    assert f"Go on with: facecnn train --resume {disk / 'run'}" in done.stderr
    assert predict(made_people, disk / "run").exit_code == 0


@pytest.mark.fault("R08")
def test_a_limit_for_the_size_of_files(made_people: Path, tmp_path: Path, run: Run) -> None:
    done = run("train", made_people, *QUICK, "--out", tmp_path, "--name", "run", before="ulimit -f 10")
    assert (done.exit_code, done.stdout) == (6, ""), done.stderr
    assert "larger than files may be here: raise the limit (ulimit -f)" in done.stderr
    assert not [*(tmp_path / "run").glob(".*.facecnn-tmp")]
    assert_whole(tmp_path / "run")


@pytest.mark.fault("R09")
def test_a_disk_that_was_full_and_is_no_more(
    made_people: Path, model: Path, small_disk: Callable[[str], Path], undrawn: None
) -> None:
    disk = small_disk("1m")
    (disk / "fill").write_bytes(bytes((1 << 20) - 50_000))
    done = train(made_people, disk, "--name", "run")
    assert_no_space(done, disk / "run")
    (disk / "fill").unlink()
    done = call("train", "--resume", disk / "run", "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    assert_same_model(disk / "run", model)


@pytest.mark.fault("R10")
def test_no_more_files_on_a_disk(made_people: Path, small_disk: Callable[[str], Path], undrawn: None) -> None:
    disk = small_disk("nr_inodes=20")
    for number in range(15):
        (disk / f"{number}").touch()
    assert_no_space(train(made_people, disk, "--name", "run"), disk / "run")


def read_only(folder: Path) -> list[str]:
    """Words before a command that sees the folder on a file system that can't be written to."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root")
    mount = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} {folder}"
    return ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"]


@pytest.mark.fault("R11")
def test_a_read_only_disk(made_people: Path, tmp_path: Path, run: Run) -> None:
    arguments = ["train", made_people, *QUICK, "--out", tmp_path, "--name", "run"]
    done = run(*arguments, prefix=read_only(tmp_path))
    assert (done.exit_code, done.stdout) == (6, ""), done.stderr
    assert f"error: {tmp_path}" in done.stderr
    assert "read-only file system" in done.stderr
    assert "epoch 1/" not in done.stderr


@pytest.mark.fault("R12")
def test_a_folder_that_may_not_be_written_to(made_people: Path, tmp_path: Path, run: Run) -> None:
    tmp_path.chmod(0o555)
    arguments = ["train", made_people, *QUICK, "--out", tmp_path, "--name", "run"]
    done = run(*arguments, prefix=WITHOUT_ROOT if os.geteuid() == 0 else ())
    tmp_path.chmod(0o755)
    assert (done.exit_code, done.stdout) == (6, ""), done.stderr
    assert f"error: {tmp_path}" in done.stderr
    assert "no permission to write" in done.stderr
    assert "epoch 1/" not in done.stderr


@pytest.mark.fault("R13")
def test_places_to_write_to_that_are_none(made_people: Path, tmp_path: Path, undrawn: None) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").write_text("keep")
    for out, said in (
        (tmp_path / "file", "file: a file, or a link to nothing, and no folder: choose another --out"),
        (tmp_path / "link", "link: a file, or a link to nothing, and no folder: choose another --out"),
        (tmp_path / "file" / "under", "under: a part of the path is a file, not a folder: choose another place"),
        (tmp_path / (300 * "x"), "xxx: the name is too long: choose a shorter one"),
    ):
        done = train(made_people, out, "--name", "run")
        assert (done.exit_code, done.stdout) == (6, "")
        assert said in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]
    done = train(made_people, tmp_path / "a" / "b" / "c" / "d", "--name", "run")  # these are made
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "a" / "b" / "c" / "d" / "run" / "best.safetensors").exists()


@pytest.mark.fault("R16")
@pytest.mark.parametrize("command", ["predict", "config"])
def test_a_full_disk_behind_stdout(command: str, made_people: Path, model: Path, run: Run) -> None:
    arguments = {"predict": ["predict", made_people, "-m", model, "-q"], "config": ["config", "show"]}[command]
    with Path("/dev/full").open("wb") as full:
        done = run(*arguments, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.exit_code == 6
    assert "standard output: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.fault("R50")
@pytest.mark.parametrize("mask", [0o077, 0o000])
def test_files_get_the_modes_that_the_umask_gives(mask: int, made_people: Path, tmp_path: Path, undrawn: None) -> None:
    group = os.getegid() if os.geteuid() else 65534
    os.chown(tmp_path, -1, group)
    tmp_path.chmod(0o2777)
    before = os.umask(mask)
    try:
        done = train(made_people, tmp_path, "--name", "run")
    finally:
        os.umask(before)
    assert done.exit_code == 0, done.stderr
    for path in [tmp_path / "run", *(tmp_path / "run").iterdir()]:
        status = path.stat()
        assert status.st_gid == group
        if path.name != ".facecnn.lock":
            wanted = 0o2777 if path.is_dir() else 0o666
            assert stat.S_IMODE(status.st_mode) == wanted & ~mask, path


@pytest.mark.fault("R36")
@pytest.mark.long
def test_runs_that_are_started_in_the_same_second(made_people: Path, tmp_path: Path) -> None:
    for number in range(20):
        commands = [Running("train", made_people, *QUICK, "--out", tmp_path / f"{number}") for _ in range(2)]
        ends = [command.end() for command in commands]
        assert [done.exit_code for done in ends] == [0, 0], ends
        runs = sorted((tmp_path / f"{number}").iterdir())
        assert len(runs) == 2
        assert_same_model(*runs)


@pytest.mark.fault("R37")
def test_a_current_folder_that_is_gone(made_people: Path, model: Path, tmp_path: Path, run: Run) -> None:
    gone = f"mkdir {tmp_path}/g; cd {tmp_path}/g; rmdir {tmp_path}/g"
    done = run("train", made_people, *QUICK, "--name", "run", before=gone)
    assert (done.exit_code, done.stdout) == (6, ""), done.stderr
    assert "runs: the current folder no longer exists: go to another one, or give a whole path" in done.stderr
    assert "Traceback" not in done.stderr
    for arguments in (["predict", made_people / "person_0000" / "0000.jpg", "-m", model, "-q"], ["--help"]):
        done = run(*arguments, before=gone)
        assert (done.exit_code, done.stderr) == (0, "")


@pytest.mark.fault("R38")
def test_a_current_folder_with_modules_of_the_same_names(made_people: Path, model: Path, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("facecnn")
    if not program.exists():
        pytest.skip("needs the installed program, which doesn't look for modules in the current folder")
    (tmp_path / "PIL").mkdir()
    for name in ("numpy", "yaml", "ruamel", "typing", "PIL/__init__", "facecnn"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')\nraise SystemExit('shadowed')\n")
    arguments = ["predict", made_people, "-m", model, "-q"]
    done = subprocess.run([program, *arguments], cwd=tmp_path, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert not (tmp_path / "ran").exists()


# Memory, files, threads


@pytest.mark.fault("R14")
def test_what_little_memory_is_enough_for(
    images: Path, made_people: Path, model: Path, tmp_path: Path, run: Run
) -> None:
    from PIL import Image

    done = call("train", made_people, "--set", "train.batch_size=100000")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "train.batch_size must be at least 1 and at most 65536 (got 100000)" in done.stderr
    Image.effect_noise((7000, 7000), 50).save(tmp_path / "large.jpg", quality=30)
    done = run("predict", tmp_path / "large.jpg", "-m", model, "-q", before="ulimit -v 600000")
    assert "Traceback" not in done.stderr
    assert done.exit_code == 0 or (done.exit_code in (1, 3) and "memory" in done.stdout + done.stderr), done
    done = run("train", made_people, *QUICK, "--dry-run", before="ulimit -v 1500000")
    assert done.exit_code == 0, done.stderr


def many_photos(people: Path, folder: Path, count: int) -> Path:
    """So many photos of the people's: theirs, each with other bytes at its end."""
    photos = sorted(people.glob("*/*.jpg"))
    for number in range(count):
        photo = photos[number % len(photos)]
        copy = folder / photo.parent.name / f"{number:05}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(photo.read_bytes() + b"%d" % number)
    return folder


def assert_few_open_files(count: int, people: Path, out: Path, run: Run) -> None:
    photos = many_photos(people, out / "photos", count)
    options = [*QUICK, "--epochs", "1", "--set", "train.batch_size=500", "--quiet"]
    done = run("train", photos, *options, "--out", out, "--name", "run", before="ulimit -n 32", timeout=300)
    assert done.exit_code == 0, done.stderr
    options = ["--device", "reference", "--format", "jsonl", "--quiet"]
    done = run("predict", photos, "-m", out / "run", *options, before="ulimit -n 32", timeout=300)
    assert (done.exit_code, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == count


@pytest.mark.fault("R51")
def test_a_limit_for_open_files(made_people: Path, tmp_path: Path, run: Run) -> None:
    assert_few_open_files(100, made_people, tmp_path, run)


@pytest.mark.long
@pytest.mark.fault("R51")
def test_a_limit_for_open_files_and_a_thousand_photos(made_people: Path, tmp_path: Path, run: Run) -> None:
    assert_few_open_files(1000, made_people, tmp_path, run)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that everybody may use, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.fault("R52")
def test_no_more_processes(made_people: Path, model: Path, public_folder: Path, run: Run) -> None:
    """For root there is no limit, so it is somebody else, with the right to read root's Python."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    photos = shutil.copytree(made_people, public_folder / "photos")
    known = shutil.copytree(model, public_folder / "model")
    rights = "+dac_read_search,+dac_override"
    somebody = ["setpriv", "--reuid", "65534", "--clear-groups", "--inh-caps", rights, "--ambient-caps", rights]
    limited = [*somebody, "bash", "-c", 'ulimit -u 1; exec "$@"', "bash"]
    options = {"prefix": limited, "environment": {"HOME": "/nonexistent"}}
    done = run("predict", photos / "person_0000" / "0000.jpg", "-m", known, **options)
    assert done.exit_code == 0, done.stderr
    done = run("predict", photos, "-m", known, "--device", "cpu", **options)
    assert "Traceback" not in done.stderr
    assert done.exit_code == 0 or (done.exit_code == 1 and "thread" in done.stderr.lower()), done
    arguments = ["train", photos, *QUICK, "--threads", "1", "--out", public_folder, "--name", "run"]
    done = run(*arguments, **options)
    assert done.exit_code == 0, done.stderr
    assert_same_model(public_folder / "run", model)


@pytest.mark.fault("R52")
def test_no_shared_memory(made_people: Path, model: Path, run: Run) -> None:
    prefix = ["unshare", "-m", "sh", "-c", 'umount /dev/shm && exec "$@"', "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("unmounting needs root")
    done = run("predict", made_people, "-m", model, "--device", "cpu", "-q", prefix=prefix)
    assert (done.exit_code, done.stderr) == (0, "")


@pytest.mark.fault("R30")
def test_numbers_of_threads(made_people: Path, model: Path, tmp_path: Path, run: Run, undrawn: None) -> None:
    for threads in ("0", "-1", "1000"):
        done = train(made_people, tmp_path, "--threads", threads)
        assert (done.exit_code, done.stdout) == (2, "")
        assert f"--threads {threads}: must be 1 to " in done.stderr
    done = train(made_people, tmp_path, "--threads", "1", "--name", "one")
    assert done.exit_code == 0, done.stderr
    assert_same_model(tmp_path / "one", model)


@pytest.mark.fault("R30")
@pytest.mark.parametrize(
    "value", [pytest.param(value, marks=[pytest.mark.long] if value != "abc" else []) for value in ("abc", "0", "9999")]
)
def test_numbers_of_threads_for_other_libraries(
    value: str, made_people: Path, model: Path, tmp_path: Path, run: Run
) -> None:
    environment = {f"{library}_NUM_THREADS": value for library in ("OMP", "MKL", "OPENBLAS")}
    done = run("train", made_people, *QUICK, "--out", tmp_path, "--name", "run", environment=environment)
    assert done.exit_code == 0, done.stderr
    assert_same_model(tmp_path / "run", model)


@pytest.mark.fault("R31")
def test_one_core_of_several(made_people: Path, run: Run) -> None:
    if shutil.which("taskset") is None or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs taskset and two cores")
    core = str(min(os.sched_getaffinity(0)))
    done = run("train", made_people, *QUICK, "--dry-run", prefix=["taskset", "-c", core])
    assert done.exit_code == 0, done.stderr
    assert re.search(r"Device: cpu \(.*, 1 thread\)", done.stderr)


# Streams and terminals


def piped_to_head(*arguments: str | Path) -> tuple[int, bytes, bytes]:
    """Exit code, first line and stderr of a command whose reader leaves after a line."""
    with subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        process.stdout.close()
        stderr = process.stderr.read()
    return process.returncode, line, stderr


@pytest.mark.fault("R15")
def test_a_reader_that_leaves(made_people: Path, model: Path, tmp_path: Path) -> None:
    photos = many_photos(made_people, tmp_path / "photos", 400)
    options = ["-m", model, "--device", "reference", "--quiet"]
    for form in ("text", "jsonl"):
        code, line, stderr = piped_to_head("predict", photos, *options, "--format", form)
        assert code in (0, 141)
        assert line
        assert stderr == b""


@pytest.mark.fault("R15")
def test_a_training_whose_reader_leaves(made_people: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, "train", made_people, *QUICK, "--out", tmp_path, "--name", "run"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=120)
    os.close(writing)
    assert done.returncode in (0, 141)
    assert b"Traceback" not in done.stderr
    assert b"BrokenPipe" not in done.stderr
    assert_whole(tmp_path / "run")


@pytest.mark.fault("R17")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams(closed: str, made_people: Path, model: Path, run: Run) -> None:
    before = {path: path.read_bytes() for path in model.iterdir() if path.is_file()}
    arguments = ["predict", made_people / "person_0000" / "0000.jpg", "-m", model]
    done = run(*arguments, prefix=["sh", "-c", f'exec "$@" {closed}', "sh"])
    assert done.exit_code == 0
    assert "Traceback" not in done.stderr
    assert before == {path: path.read_bytes() for path in model.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def log(made_people: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a training with no options about devices and output writes to a file, ``train … > log 2>&1 < /dev/null``."""
    out = tmp_path_factory.mktemp("logged")
    arguments = ["train", made_people, *QUICK[:-2], "--out", out, "--name", "run"]
    with (out / "log").open("wb") as log:
        done = run(*arguments, capture_output=False, stdout=log, stderr=subprocess.STDOUT)
    assert done.exit_code == 0
    return (out / "log").read_text(encoding="utf-8")


@pytest.mark.fault("R18")
def test_a_log_has_no_control_codes(log: str) -> None:
    assert "Trained 2 epochs" in log
    assert log.isprintable() is False  # its line ends, and those only
    assert all(line.isprintable() for line in log.splitlines())
    assert "\r" not in log
    assert "%|" not in log  # no bar either


@pytest.mark.fault("R26")
def test_the_device_that_was_taken_is_said_once(log: str) -> None:
    assert len(re.findall(r"^Device: (cpu|cuda:0) \(.+\): ", log, re.MULTILINE)) == 1
    assert log.count("Device:") == 1


TERMINALS: Sequence[Mapping[str, str | None]] = (
    {"TERM": "dumb"},
    {"TERM": None},
    {"TERM": "nosuch"},
    {"TERM": "xterm", "NO_COLOR": "1"},
    {"TERM": "xterm", "FORCE_COLOR": "1"},
)


def in_terminal(command: Sequence[str | Path], environment: Mapping[str, str | None], before: str = "") -> str:
    if shutil.which("script") is None:
        pytest.skip("needs script, of util-linux")
    words = " ".join(f"'{word}'" for word in command)
    kept = {key: value for key, value in (os.environ | dict(environment)).items() if value is not None}
    done = subprocess.run(
        ["script", "-qec", f"{before}{words}", "/dev/null"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=kept,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.decode()


@pytest.mark.fault("R19")
def test_kinds_of_terminals(made_people: Path, model: Path) -> None:
    shown = [in_terminal([*COMMAND, "--help"], environment) for environment in TERMINALS]
    for environment, text in zip(TERMINALS, shown, strict=True):
        assert "Train a small convolutional network" in text
        if "FORCE_COLOR" not in environment:
            assert "\x1b" not in text
    command = [*COMMAND, "predict", made_people, "-m", model, "--device", "cpu"]
    assert "\x1b" not in in_terminal(command, {"TERM": "dumb"})


@pytest.mark.fault("R21")
def test_widths_of_terminals(made_people: Path, model: Path, run: Run) -> None:
    for columns in ("20", "1", "0", "-5", "abc", "100000"):
        done = run("--help", environment={"COLUMNS": columns}, timeout=20)
        assert done.exit_code == 0
        assert "cross-validate" in done.stdout
    photo = made_people / "person_0000" / "0000.jpg"
    done = run("predict", photo, "-m", model, "--format", "json", environment={"COLUMNS": "1"}, timeout=20)
    assert json.loads(done.stdout)[0]["path"] == str(photo)
    assert "train" in in_terminal([*COMMAND, "--help"], {}, before="stty cols 10; ")


@pytest.mark.fault("R20")
def test_a_locale_without_the_letters(data: Path, tmp_path: Path, run: Run, undrawn: None) -> None:
    (data / "person_0001").rename(data / "Дарья")
    (data / "person_0002").rename(data / "😀")
    done = train(data, tmp_path / "runs", "--name", "run")
    assert done.exit_code == 0, done.stderr
    for locale in (
        {"LANG": "C", "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii"},
    ):
        options = ["-m", tmp_path / "runs" / "run", "--device", "reference"]
        done = run("predict", data / "Дарья" / "0000.jpg", *options, "--format", "json", environment=locale)
        assert done.exit_code == 0, done.stderr
        assert set(json.loads(done.stdout)[0]["probabilities"]) == {"person_0000", "Дарья", "😀"}
        done = run("predict", data, *options, environment=locale)
        assert done.exit_code == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert re.search(r"Дарья|\\u0414|\\xd0", done.stdout)


@pytest.mark.fault("R40")
def test_lists_on_stdin(made_people: Path, model: Path, tmp_path: Path) -> None:
    options = ["-m", model, "--device", "reference", "--format", "json"]
    photos = sorted(made_people.glob("*/*.jpg"))
    odd = tmp_path / "two\nlines.jpg"
    shutil.copy(photos[0], odd)
    found = b"\0".join(os.fsencode(path) for path in [*photos, odd])
    done = call("predict", "-0", "-", *options, stdin=found)
    assert done.exit_code == 0, done.stderr
    assert [Path(answer["path"]) for answer in done.json()] == [*photos, odd]
    done = call("predict", "-", *options, stdin=b"\n\n" + os.fsencode(photos[0]) + b"\n\n")
    assert [answer["path"] for answer in done.json()] == [str(photos[0])]
    for flags in ([], ["-0"]):
        done = call("predict", "-", *flags, *options, stdin=b"")
        assert (done.exit_code, done.stdout) == (2, "")
        assert "no photos given" in done.stderr
    done = call("predict", "-0", "-", *options, stdin=found + b"\0/no/such.jpg\0")
    assert done.exit_code == 3
    assert done.json()[-1]["label"] is None
    assert "no such file" in done.json()[-1]["error"]
    garbage = random.Random(0).randbytes(3000)
    assert call("predict", "-0", "-", *options, stdin=garbage).exit_code == 3
    done = call("predict", "-0", "-", *options, stdin=b"".join(b"/no/such/%d\0" % n for n in range(5000)))
    assert done.exit_code == 3
    assert len(done.json()) == 5000


@pytest.mark.long
@pytest.mark.fault("R40")
def test_a_hundred_thousand_names_on_stdin(model: Path, run: Run) -> None:
    names = b"".join(b"/no/such/%d\0" % n for n in range(100_000))
    done = run("predict", "-0", "-", "-m", model, "--format", "jsonl", stdin=None, input=names, timeout=300)
    assert done.exit_code == 3
    assert len(done.stdout.splitlines()) == 100_000


@pytest.mark.fault("R41")
def test_a_photo_on_stdin(made_people: Path, model: Path, run: Run) -> None:
    with (made_people / "person_0000" / "0000.jpg").open("rb") as photo:
        done = run("predict", "-", "-m", model, stdin=photo, timeout=20)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "-: no list of paths, one a line, on stdin" in done.stderr
    assert "a photo is given by its name" in done.stderr


@pytest.mark.fault("R46")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Usage:"),
        (["trian"], "Did you mean 'train'?"),
        (["train", "--nosuch"], "No such option: --nosuch"),
        (["train", "--epochs"], "Option '--epochs' requires an argument"),
        (["train", "--epochs", "x"], "Invalid value for '--epochs'"),
        (["train", "photo"], "photo: a file, a folder with one folder per person is expected"),
        (["inspect", "one", "two"], "Got unexpected extra argument"),
    ],
)
def test_usage_errors(
    arguments: list[str], said: str, made_people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(made_people / "person_0000" / "0000.jpg", "photo")
    done = call(*arguments)
    assert done.stdout == ""
    assert done.exit_code == (3 if arguments[-1:] == ["photo"] else 2)
    assert said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["photo"]


@pytest.mark.fault("R48")
def test_answers_and_errors_together(images: Path, made_people: Path, model: Path) -> None:
    bad = images / "made" / "empty.jpg"
    for options in ([], ["--quiet"], ["--verbose"]):
        done = predict(made_people, model, bad, *options)
        assert done.exit_code == 3
        good, refused = done.json()
        assert (good["label"] is not None, good["error"]) == (True, None)
        assert (refused["label"], refused["path"]) == (None, str(bad))
        assert "empty file (0 bytes)" in refused["error"]
        assert "1 of 2 photos have no answer" in done.stderr
        assert ("Model:" in done.stderr) is (options != ["--quiet"])


# Devices


@pytest.mark.fault("R24")
@pytest.mark.parametrize("visible", [None, "", "-1"])
def test_a_card_that_is_not_there(visible: str | None, made_people: Path, run: Run) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    if visible is None:
        cards = json.loads(run("doctor", "--device", "reference", "--format", "json").stdout)["cuda"]["available"]
        if cards:
            pytest.skip("there is a card here")
    done = run("train", made_people, *QUICK[:-1], "cuda", "--dry-run", environment=environment)
    assert (done.exit_code, done.stdout) == (5, "")
    assert "--device cuda: " in done.stderr
    assert "--device cpu" in done.stderr
    assert "Device: cpu" not in done.stderr


@pytest.mark.fault("R27")
def test_a_number_of_no_card(made_people: Path) -> None:
    done = train(made_people, Path("runs"), "--device", "cuda:7", "--dry-run")
    assert (done.exit_code, done.stdout) == (5, "")
    assert "--device cuda:7: " in done.stderr


@pytest.mark.fault("R27")
def test_a_full_card() -> None:
    pytest.skip("needs a card whose memory another process holds")


@pytest.mark.fault("R25")
@pytest.mark.parametrize("content", [b"text\n", b"", b"\x7fELF\x02\x01\x01" + bytes(57)], ids=["text", "empty", "elf"])
def test_a_broken_driver(content: bytes, made_people: Path, model: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "libcuda.so.1").write_bytes(content)
    arguments = ["predict", made_people / "person_0000" / "0000.jpg", "-m", model]
    environment = {"LD_LIBRARY_PATH": str(tmp_path)}
    done = run(*arguments, "--device", "cuda", environment=environment)
    assert (done.exit_code, done.stdout) == (5, "")
    assert re.search(rf"can't be loaded \({tmp_path}/libcuda\.so\.1: [^)]+\)", done.stderr)
    assert "--device cpu" in done.stderr
    if content == b"":  # the others are no different
        for device in ("cpu", "auto"):
            assert run(*arguments, "--device", device, environment=environment).exit_code == 0


@pytest.mark.fault("R25")
def test_a_driver_that_numba_is_told_of(made_people: Path, model: Path, run: Run) -> None:
    arguments = ["predict", made_people / "person_0000" / "0000.jpg", "-m", model, "-q"]
    environment = {"NUMBA_CUDA_DRIVER": "/etc/passwd"}
    assert run(*arguments, "--device", "auto", environment=environment).exit_code == 0
    done = run(*arguments, "--device", "cuda", environment=environment)
    assert (done.exit_code, done.stdout) == (5, "")


# Learning that goes wrong


@pytest.mark.fault("R32")
def test_divergence(made_people: Path, tmp_path: Path) -> None:
    done = train(made_people, tmp_path, "--name", "run", "--set", "optimizer={name: sgd, learning_rate: 100000}")
    assert (done.exit_code, done.stdout) == (7, "")
    assert re.search(r"epoch \d+", done.stderr)
    assert "learning_rate" in done.stderr
    assert "Warning" not in done.stderr
    run = tmp_path / "run"
    for checkpoint in run.glob("*.safetensors"):
        with safe_open(checkpoint, framework="np") as opened:
            for name in opened.keys():  # noqa: SIM118
                assert np.isfinite(opened.get_tensor(name)).all(), name
    assert predict(made_people, run).exit_code == 0


@pytest.mark.fault("R33")
def test_kernels_that_can_not_learn_are_named(made_people: Path, model: Path, tmp_path: Path, undrawn: None) -> None:
    """Weights of zero give every kernel the same error: none."""
    whole = load_checkpoint(model / "best.safetensors")
    zeros = {name: np.zeros_like(array) if name.startswith("model.") else array for name, array in whole.arrays.items()}
    save_checkpoint(tmp_path / "zero.safetensors", Checkpoint(whole.settings, whole.classes, zeros, whole.state))
    options = ["--init-from", tmp_path / "zero.safetensors", "--set", "optimizer={name: sgd}", "--format", "json"]
    done = train(made_people, tmp_path, "--name", "run", *options, "--epochs", "12")
    assert done.exit_code == 0, done.stderr
    assert done.json()["train"]["loss"] == pytest.approx(math.log(3), abs=0.05)
    assert (
        "kernels that don't learn (dead: no error reaches them): all 4 of conv1 (never active); all 8 of" in done.stderr
    )
    assert "RuntimeWarning" not in done.stderr


# Clocks


@pytest.mark.fault("R34")
@pytest.mark.parametrize("clock", ["falling", "zero", "far"])
def test_odd_clocks(
    clock: str, made_people: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> None:
    falling = iter(range(2_000_000_000, 0, -3600))
    times = {"falling": lambda: float(next(falling)), "zero": lambda: 0.0, "far": lambda: 1e12}
    monkeypatch.setattr(time, "time", times[clock])
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * times[clock]()))
    done = call("train", made_people, *QUICK, "--out", tmp_path, "--format", "json")
    monkeypatch.undo()
    assert done.exit_code == 0, done.stderr
    assert 0 < done.json()["seconds"] < 600
    assert 0 < done.json()["photos_per_second"] < 1e7
    (run,) = tmp_path.iterdir()
    assert_same_model(run, model)


@pytest.mark.fault("R35")
@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "nosuch", "UTC-25"])
def test_odd_time_zones(zone: str, made_people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from facecnn.runs.folder import RunFolder

    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        names = []
        for _ in range(3):
            with RunFolder.create(tmp_path, None, "smoke") as run:
                names.append(run.path.name)
    time.tzset()
    assert all(re.fullmatch(r"\d{8}-\d{6}-smoke(-\d)?", name) for name in names)
    assert names == sorted(names)


@pytest.mark.fault("R56")
def test_the_same_command_gives_the_same_bytes(made_people: Path, model: Path, tmp_path: Path, undrawn: None) -> None:
    done = train(made_people, tmp_path, "--name", "run")
    assert done.exit_code == 0, done.stderr
    assert_same_model(tmp_path / "run", model)
    for name in ("split.json", "config.yaml"):
        assert (tmp_path / "run" / name).read_bytes() == (model / name).read_bytes()

    def figures(run: Path) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="ascii").splitlines()]
        return [{key: row[key] for key in row if "second" not in key} for row in rows]

    assert figures(tmp_path / "run") == figures(model)


# Python and its installation

PYTHONS = [["-O"], ["-OO"], ["-I"], ["-E"], ["-s"], ["-W", "error"], ["-X", "dev"], ["-B"]]


def python(flags: Sequence[str], *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *flags, "-m", "facecnn", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, **options)


@pytest.mark.fault("R42")
@pytest.mark.parametrize("flags", [["-OO", "-I"], ["-W", "error", "-X", "dev"]], ids=" ".join)
def test_options_of_python(flags: list[str], made_people: Path, model: Path) -> None:
    photo = made_people / "person_0000" / "0000.jpg"
    done = python(flags, "predict", photo, "-m", model, "--device", "reference", "--format", "json", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == predict(made_people, model).stdout
    done = python(flags, "train", made_people, "--set", "train.epochs=-1")
    assert done.returncode == 2
    assert "train.epochs must be at least 1" in done.stderr


@pytest.mark.long
@pytest.mark.fault("R42")
@pytest.mark.parametrize("flags", PYTHONS, ids=" ".join)
def test_trainings_with_options_of_python(flags: list[str], made_people: Path, model: Path, tmp_path: Path) -> None:
    done = python(flags, "train", made_people, *QUICK, "--out", tmp_path, "--name", "run", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert_same_model(tmp_path / "run", model)


@pytest.mark.fault("R43")
def test_an_installation_that_can_not_be_written_to(made_people: Path, model: Path, tmp_path: Path, run: Run) -> None:
    package = tmp_path / "site" / "facecnn"
    shutil.copytree(REPOSITORY / "facecnn", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "configs", package / "configs")
    for path in [tmp_path / "site", *(tmp_path / "site").rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    prefix = WITHOUT_ROOT if os.geteuid() == 0 else ()
    options = {"environment": {"PYTHONPATH": str(tmp_path / "site")}, "prefix": prefix, "cwd": "/"}
    for arguments in (
        ["predict", made_people, "-m", model, "--device", "reference"],
        ["train", made_people, *QUICK, "--dry-run"],
    ):
        done = run(*arguments, **options)
        assert done.exit_code == 0, done.stderr
    for path in [tmp_path / "site", *(tmp_path / "site").rglob("*")]:
        assert path.name != "__pycache__"
        if path.is_dir():
            path.chmod(0o755)


@pytest.mark.fault("R43")
def test_a_zipped_installation(made_people: Path, model: Path, tmp_path: Path, run: Run) -> None:
    with zipfile.ZipFile(tmp_path / "facecnn.zip", "w") as archive:
        for path in sorted((REPOSITORY / "facecnn").rglob("*.py")):
            archive.write(path, path.relative_to(REPOSITORY))
        for path in sorted((REPOSITORY / "configs").glob("*.yaml")):
            archive.write(path, Path("facecnn") / path.relative_to(REPOSITORY))
    options = {"environment": {"PYTHONPATH": str(tmp_path / "facecnn.zip")}, "cwd": "/"}
    done = run("predict", made_people / "person_0000" / "0000.jpg", "-m", model, **options)
    assert done.exit_code == 0, done.stderr
    done = run("train", made_people, *QUICK, "--dry-run", **options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert (
        "facecnn.zip/facecnn: facecnn can't be used from here without its configs/: unpack or install it" in done.stderr
    )


@pytest.mark.fault("R47")
def test_help_is_quick_and_leaves_no_trace(tmp_path: Path) -> None:
    environment = os.environ | {
        "HOME": str(tmp_path),
        "FACECNN_CACHE_DIR": "/proc/none",
        "XDG_CACHE_HOME": "/proc/none",
    }
    for option in ("--help", "--version"):
        done = python(["-B", "-X", "importtime"], option, env=environment, cwd=tmp_path)
        assert done.returncode == 0
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "facecnn.cli" in imported
        assert not imported & {"numba", "numpy", "PIL", "matplotlib", "pydantic", "safetensors", "ruamel.yaml"}
    assert [*tmp_path.iterdir()] == []


@pytest.mark.fault("R49")
def test_a_mistake_of_facecnn(made_people: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "from facecnn.network import layers\n"
        "def fail(*_, **__):\n"
        "    raise RuntimeError('made up for a test')\n"
        "layers.Conv.forward = layers.Conv.output_shape = fail\n"
    )
    environment = {"PYTHONPATH": str(tmp_path)}
    done = run("train", made_people, *QUICK, "--dry-run", environment=environment)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "internal error: RuntimeError: made up for a test" in done.stderr
    assert "--traceback shows where" in done.stderr
    assert "Traceback" not in done.stderr
    done = run("train", made_people, *QUICK, "--dry-run", "--traceback", environment=environment)
    assert done.exit_code == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "sitecustomize.py" in done.stderr
