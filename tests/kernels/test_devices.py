"""What --device and --threads open."""

import subprocess
import sys

import pytest

from facecnn.errors import DeviceError, UsageError
from facecnn.kernels import available_threads, cpu, open_device, reference


def test_auto_takes_the_cpu_and_says_why() -> None:
    device = open_device("auto")
    assert device.kernels is cpu
    assert device.name == "cpu"
    assert f"{available_threads()} thread" in device.description
    assert "CUDA" in device.reason


def test_a_device_can_be_asked_for() -> None:
    assert open_device("cpu", 1).description.endswith("1 thread")
    assert open_device("reference").kernels is reference


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:12"])
def test_cuda_is_refused_with_the_reason_and_the_way_out(name: str) -> None:
    with pytest.raises(DeviceError, match=r"no CUDA kernels.*--device cpu"):
        open_device(name)


@pytest.mark.parametrize(
    ("name", "hint"), [("cdua", "cuda"), ("CPU", "cpu"), ("referense", "reference"), ("auot", "auto")]
)
def test_a_misspelt_device_gets_a_suggestion(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean {hint}"):
        open_device(name)


@pytest.mark.parametrize("name", ["", "tpu:0", "cuda:", "cuda:-1", "cuda:x"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no such device"):
        open_device(name)


def test_threads_must_be_there() -> None:
    for threads in (0, -1, available_threads() + 1):
        with pytest.raises(UsageError, match=f"--threads {threads}: must be 1 to {available_threads()}"):
            open_device("cpu", threads)


def test_no_backend_is_imported_before_it_is_asked_for() -> None:
    code = "import sys, facecnn.kernels; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "facecnn.kernels.protocol" in loaded
    assert not {"numba", "facecnn.kernels.cpu", "facecnn.kernels.reference"} & set(loaded)
