"""The stand-in driver keeps the rules that it is there for: what is asked of it here has one right answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cuda_backend.standin_driver.machine import Machine

pytestmark = pytest.mark.ptx

BEGIN = """
import json
from cuda.bindings import driver as d
cuda = d.CUresult
def ask(call, *arguments):
    "The call's result, by its name, and what else it gives."
    result, *rest = getattr(d, call)(*arguments)
    return (result.name.removeprefix("CUDA_"), *rest)
def context_of(number):
    ask("cuInit", 0)
    return ask("cuDevicePrimaryCtxRetain", number)[1]
said = []
def say(call, *arguments):
    said.append(ask(call, *arguments)[0])
"""
END = "\nprint(json.dumps(said))\n"


def said(machine: Machine, program: str, **settings: Any) -> list[Any]:
    ran = machine.program(BEGIN + program + END, **settings)
    assert ran.exit_code == 0, ran.stderr
    return list(json.loads(ran.stdout))


def test_nothing_goes_without_a_current_context_and_each_thread_has_its_own(machine: Machine) -> None:
    program = """
from threading import Thread
context = context_of(0)
say("cuMemAlloc", 8)
say("cuStreamCreate", 0)
say("cuCtxSetCurrent", context)
say("cuMemAlloc", 8)
thread = Thread(target=say, args=("cuMemAlloc", 8))
thread.start()
thread.join()
say("cuCtxPopCurrent")
say("cuCtxPopCurrent")
"""
    none = "ERROR_INVALID_CONTEXT"
    assert said(machine, program) == [none, none, "SUCCESS", "SUCCESS", none, "SUCCESS", none]


def test_a_cards_memory_is_its_own_and_comes_to_an_end(machine: Machine) -> None:
    program = """
one, other = context_of(0), context_of(1)
def free():
    said.append(ask("cuMemGetInfo")[1])
ask("cuCtxSetCurrent", one)
_, address = ask("cuMemAlloc", 700)
free()
say("cuMemAlloc", 301)
ask("cuCtxSetCurrent", other)
free()
ask("cuCtxSetCurrent", one)
say("cuMemFree", address)
say("cuMemFree", address)
say("cuMemAlloc", 301)
free()
"""
    found = said(machine, program, cards=2, memory=1000)
    assert found == [300, "ERROR_OUT_OF_MEMORY", 1000, "SUCCESS", "ERROR_INVALID_VALUE", "SUCCESS", 699]


def test_what_is_copied_to_a_card_is_there_and_nothing_beyond_an_arrays_end(machine: Machine) -> None:
    program = """
import ctypes
ask("cuCtxSetCurrent", context_of(0))
_, address = ask("cuMemAlloc", 8)
back = ctypes.create_string_buffer(8)
say("cuMemcpyDtoH", ctypes.addressof(back), address, 8)
said.append(back.raw.decode())
say("cuMemcpyHtoD", int(address) + 4, b"abcd", 4)
say("cuMemcpyDtoH", ctypes.addressof(back), address, 8)
said.append(back.raw.decode())
say("cuMemcpyHtoD", int(address) + 5, b"abcd", 4)
"""
    good, zeros = "SUCCESS", 8 * "\0"
    assert said(machine, program) == [good, zeros, good, good, zeros[:4] + "abcd", "ERROR_INVALID_VALUE"]


def test_the_allocation_that_is_to_fail_fails_and_all_after_it_pinned_ones_too(machine: Machine) -> None:
    program = """
ask("cuCtxSetCurrent", context_of(0))
for _ in range(2):
    say("cuMemAlloc", 8)
    say("cuMemHostAlloc", 8, 0)
"""
    full = "ERROR_OUT_OF_MEMORY"
    assert said(machine, program, fail_allocation=3) == ["SUCCESS", "SUCCESS", full, full]


CAPTURE = """
mode, flags, deed = {!r}
ask("cuCtxSetCurrent", context_of(0))
_, address = ask("cuMemAlloc", 4)
_, stream = ask("cuStreamCreate", getattr(d.CUstream_flags, flags).value)
_, event = ask("cuEventCreate", 0)
say("cuStreamBeginCapture", stream, getattr(d.CUstreamCaptureMode, "CU_STREAM_CAPTURE_MODE_" + mode))
if deed == "synchronise the stream":
    say("cuStreamSynchronize", stream)
elif deed == "synchronise":
    say("cuCtxSynchronize")
elif deed == "allocate":
    say("cuMemAlloc", 8)
elif deed == "copy":
    say("cuMemcpyHtoD", address, b"abcd", 4)
elif deed == "use the default stream":
    say("cuEventRecord", event, 0)
else:
    say("cuEventRecord", event, stream)
say("cuStreamEndCapture", stream)
"""
BLOCKING, BESIDE = "CU_STREAM_DEFAULT", "CU_STREAM_NON_BLOCKING"


@pytest.mark.parametrize(
    ("mode", "flags", "deed", "error", "violation"),
    [
        ("RELAXED", BESIDE, "use the stream", None, None),
        ("RELAXED", BESIDE, "synchronise the stream", "UNSUPPORTED", "waits"),
        ("RELAXED", BESIDE, "synchronise", "UNSUPPORTED", "waits"),
        ("RELAXED", BESIDE, "allocate", None, "unsafe"),
        ("RELAXED", BESIDE, "copy", None, "unsafe"),
        ("RELAXED", BESIDE, "use the default stream", None, "not_captured"),
        ("RELAXED", BLOCKING, "use the default stream", "IMPLICIT", "not_captured"),
        ("GLOBAL", BESIDE, "allocate", "UNSUPPORTED", "unsafe"),
        ("GLOBAL", BESIDE, "copy", "UNSUPPORTED", "unsafe"),
    ],
)
def test_what_a_capture_forbids(
    mode: str, flags: str, deed: str, error: str | None, violation: str | None, machine: Machine
) -> None:
    ran = machine.program(BEGIN + CAPTURE.format((mode, flags, deed)) + END)
    assert ran.exit_code == 0, ran.stderr
    good = "SUCCESS"
    expected = ["ERROR_STREAM_CAPTURE_" + error, "ERROR_STREAM_CAPTURE_INVALIDATED"] if error else [good, good]
    assert json.loads(ran.stdout) == [good, *expected]
    assert [call.violation for call in ran.calls if call.violation] == ([violation] if violation else [])


@pytest.mark.parametrize("where", ["begin", "end"])
def test_a_capture_fails_where_it_is_to_fail(where: str, machine: Machine) -> None:
    results = said(machine, CAPTURE.format(("RELAXED", BESIDE, "use the stream")), fail_capture=where)
    assert [result == "SUCCESS" for result in results] == (
        [False, True, False] if where == "begin" else [True, True, False]
    )


def test_code_for_another_card_is_not_loaded(machine: Machine) -> None:
    program = """
from facecnn.kernels.cuda import devices, driver
import numpy as np
devices.select(0)
@driver.cuda.jit("void(float32[:])")
def kernel(x):
    x[0] = 1
code = kernel.overloads.popitem()[1]._codelibrary.get_cubin().code
for capability in ("9.0", "8.6"):
    import os
    os.environ["STANDIN_CAPABILITY"] = capability
    say("cuLibraryLoadData", code, [], [], 0, [], [], 0)
"""
    assert said(machine, program) == ["SUCCESS", "ERROR_NO_BINARY_FOR_GPU"]
