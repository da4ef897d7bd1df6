"""What a training asks of a card, call by call, on a driver without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cuda_backend.standin_driver.machine import Call, Machine, Ran

pytestmark = pytest.mark.ptx

BEGIN = """
import os, sys
import numpy as np
from facecnn.kernels import cuda
from facecnn.kernels.cuda import devices
devices.select(0)
def note(text):
    "A line of its own in the driver's log."
    with open(os.environ["STANDIN_LOG"], "a") as log:
        log.write(text + " result=0 device=0\\n")
"""
TRAINING = """
from facecnn.cli import app
from facecnn.jobs.training.run import RunRecorder
def step(recorder, report):
    note("step")
RunRecorder.every_step, RunRecorder.step = True, step
arguments = {!r}
app(["train", *arguments, "-c", "smoke", "--set", "train.batch_size=4", "--epochs", "5", "--device", "cuda"])
"""
"""Five epochs of four steps, after each of which the log has a line."""
STEPS, EPOCHS = 4, 5


def program(machine: Machine, text: str, **settings: Any) -> Ran:
    ran = machine.program(BEGIN + text, **settings)
    assert ran.exit_code == 0, ran.stderr
    assert not [call for call in ran.calls if call.result]
    return ran


def parted(calls: list[Call], mark: str) -> list[list[Call]]:
    """The calls before each mark, and those after the last one."""
    parts: list[list[Call]] = [[]]
    for call in calls:
        if call.name == mark:
            parts.append([])
        else:
            parts[-1].append(call)
    return parts


def test_a_step_that_comes_for_the_third_time_is_one_launch(machine: Machine, people: Path, tmp_path: Path) -> None:
    """Of a recording in which all is recorded, on one stream, and during which nothing else is done."""
    ran = program(machine, TRAINING.format([str(people), "--out", str(tmp_path)]))
    assert not [call for call in ran.calls if call.violation]
    captures = [
        [i for i, call in enumerate(ran.calls) if call.name == name]
        for name in ("cuStreamBeginCapture", "cuStreamEndCapture")
    ]
    assert captures[0]
    for begin, end in zip(*captures, strict=True):
        recorded = ran.calls[begin + 1 : end]
        assert recorded
        assert {call.name for call in recorded} == {"cuLaunchKernelEx"}
        assert {call.figures["stream"] for call in recorded} == {ran.calls[begin].figures["stream"]}
        assert ran.calls[end].figures["kernels"] == str(len(recorded))
    steps = [[call.name for call in step] for step in parted(ran.calls, "step")]
    assert len(steps) == STEPS * EPOCHS + 1
    # All but the last step of an epoch, which is looked at, and the first, before which the epoch's order is sent.
    inner = [names for number, names in enumerate(steps) if number >= 2 * STEPS and number % STEPS in (1, 2)]
    assert len(inner) == 6
    # Every ten steps the loss is read.
    assert sorted(inner) == 5 * [["cuGraphLaunch"]] + [["cuGraphLaunch", "cuMemcpyDtoH"]]


@pytest.mark.parametrize("where", ["begin", "end"])
def test_a_recording_that_fails_is_told_of_once_and_done_without(
    where: str, machine: Machine, people: Path, tmp_path: Path
) -> None:
    options = ("-c", "smoke", "--epochs", "2", "--device", "cuda", "--out", tmp_path, "--quiet")
    ran = machine.run("train", people, *options, fail_capture=where)
    assert ran.exit_code == 0, ran.stderr
    assert ran.stderr.count("warning: the kernels of a step can't be recorded as a CUDA graph (CUDAError") == 1
    assert ran.stderr.count("CUDA_ERROR_STREAM_CAPTURE") == 1
    assert not ran.named("cuGraphLaunch")
    launches = [call for call in ran.named("cuLaunchKernelEx") if call.figures["captured"] == "0"]
    assert sum(call.is_launch_of("take_batch") for call in launches) == 4


def test_numba_warns_of_no_launch_for_having_few_blocks(machine: Machine) -> None:
    text = """
import warnings
warnings.simplefilter("error")
a = cuda.to_device(np.ones(3, np.float32))
cuda.accumulate(a, a, False, cuda.Workspace())
"""
    assert program(machine, text).named("cuLaunchKernelEx")


def test_what_is_compiled_for_a_card_is_told(machine: Machine, tmp_path: Path) -> None:
    """And what is found on the disk isn't."""
    (tmp_path / "kernels_of_a_test.py").write_text(
        "from facecnn.kernels.cuda.driver import kernel\n@kernel\ndef set_to_one(x):\n    x[0] = 1\n"
    )
    text = f"""
sys.path.insert(0, {str(tmp_path)!r})
from facecnn.jobs import stderr
from facecnn.kernels.cuda import driver
stderr.WORTH_A_LINE = 0
driver.cache_folder = lambda: {str(tmp_path / "kept")!r}
from kernels_of_a_test import set_to_one
with stderr.StderrConsole(quiet=False, verbose=False) as told:
    told.show_compilation()
    for dtype in (np.float32, np.float32, np.int32):
        driver.launch(set_to_one, 1, 1, cuda.Workspace(), cuda.to_device(np.zeros(1, dtype)))
"""
    ran = program(machine, text)
    assert len(ran.named("cuLaunchKernelEx")) == 3
    assert ran.stderr.startswith("Compiling for this machine, once, which can take a minute\nCompiled 2 functions in ")
    assert program(machine, text).stderr == ""


def test_a_profiled_kernel_never_waits_for_python(machine: Machine, people: Path, tmp_path: Path) -> None:
    """Whatever is timed is launched behind something that keeps the card busy, and nothing waits in between."""
    ran = program(machine, TRAINING.format([str(people), "--out", str(tmp_path), "--profile"]))
    _, *steps, _ = parted(ran.calls, "step")
    calls = [call for step in steps for call in step]
    busy, seen = False, 0
    for number, call in enumerate(calls[:-1]):
        before, behind = calls[number - 1].name, calls[number + 1].name
        grows = before == "cuMemAlloc"  # the scratch memory, in the middle of what is timed, the first time only
        if call.name.endswith("Synchronize") or (call.name in ("cuMemcpyDtoH", "cuMemcpyHtoD") and not grows):
            busy = False
        elif call.is_launch_of("spin"):
            busy = True
        elif call.name == "cuLaunchKernelEx":
            assert busy
            seen += before == behind == "cuEventRecord"
    assert seen > 100


def test_photos_are_sent_in_a_thread_without_a_device_and_without_another_copy(machine: Machine) -> None:
    text = """
import threading, tracemalloc
pixels, rows, sizes = np.zeros((50, 64, 64, 3), np.uint8), np.arange(40), []
def send():
    stream = cuda.PhotoStream(pixels.shape[1:], 40)
    stream.send(0, pixels, rows)
    tracemalloc.start()
    stream.send(1, pixels, rows)
    print(tracemalloc.get_traced_memory()[1])
thread = threading.Thread(target=send)
thread.start()
thread.join()
"""
    peak = int(program(machine, text).stdout)
    assert peak < 64 * 64 * 3 * 40 / 2


TESTS = Path(__file__).parents[1]
OLDEST_AND_NEWEST = ("7.5", "12.0")
"""All other tests are made with 9.0, and ``test_ptx`` assembles for those between."""


@pytest.mark.parametrize("capability", OLDEST_AND_NEWEST)
def test_a_training_can_be_compiled_for_every_card(capability: str, machine: Machine) -> None:
    text = f"""
sys.path.insert(0, {str(TESTS)!r})
from facecnn.learning.optimizers import Sgd
from facecnn.network.layers import Conv, Dense
from learning.trainings import Recorder, make_trainer, photos_of
make_trainer(
    (Conv(kernels=2, size=3, pool=2), Dense(units=2)), backend=cuda, train={{"epochs": 1}}, augment=None,
    optimizer=Sgd(learning_rate=0.1), validation=photos_of([]), normalise="none",
).run(Recorder())
"""
    ran = program(machine, text, capability=capability)
    loaded = ran.named("cuLibraryLoadData")
    assert len(loaded) > 10
    major = capability.split(".")[0]
    assert {call.figures["capability"][: len(major)] for call in loaded} == {major}
    assert len(ran.named("cuLaunchKernelEx")) > 20


def test_every_fold_finds_the_memory_that_the_first_one_found(machine: Machine, people: Path) -> None:
    """Free when its trainer is made, for which it decides about parts and photos, and used at most."""
    options = [str(people), "-c", "smoke", "--epochs", "2", "--folds", "2", "--device", "cuda"]
    text = f"""
from facecnn.cli import app
from facecnn.jobs import cross_validate
make = cross_validate.make_any_trainer
def make_and_note(*arguments, **more):
    note("fold")
    return make(*arguments, **more)
cross_validate.make_any_trainer = make_and_note
app(["cross-validate", *{options!r}])
"""
    _, *folds = parted(program(machine, text).calls, "fold")
    free = [[call.figures["free"] for call in fold if call.name == "cuMemGetInfo"] for fold in folds]
    assert len(free[0]) > 1
    assert free[1] == free[0]
