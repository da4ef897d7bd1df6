"""What --device and --threads open, on machines with all sorts of CUDA."""

import ctypes.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import facecnn.kernels
from facecnn.errors import DeviceError, UsageError
from facecnn.kernels import available_threads, cards, cpu, open_device, reference
from facecnn.kernels.cards import Card, find_cuda

GIB = 2**30
CARDS = (Card(0, "NVIDIA H100 80GB HBM3", "9.0"), Card(1, "Tesla T4", "7.5"))
MEMORY = {0: (70 * GIB, 80 * GIB), 1: (15 * GIB, 16 * GIB)}


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*arguments: object) -> None:
        raise error

    return fail


@dataclass
class Machine:
    """A machine, as the parts of ``facecnn.kernels.cards`` that look at one see it."""

    driver_version: Callable[[], int] = lambda: 12040
    package: str | None = "0.30.4"
    """The installed numba-cuda."""
    why_unavailable: Callable[[], str | None] = lambda: None
    toolkit_version: Callable[[], tuple[int, int]] = lambda: (12, 9)
    cards: Callable[[], tuple[Card, ...]] = lambda: CARDS
    memory: Callable[[int], tuple[int, int] | None] = MEMORY.get
    prove: Callable[[], None] = lambda: None
    selected: list[int] = field(default_factory=list)

    def select(self, number: int) -> None:
        self.selected.append(number)


Enter = Callable[[Machine], Any]


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch) -> Enter:
    """Makes facecnn believe that it is on a machine; gives what stands for the CUDA backend there."""
    for variable in ("NUMBA_ENABLE_CUDASIM", "NUMBA_DISABLE_CUDA"):
        monkeypatch.delenv(variable, raising=False)

    def believe(machine: Machine) -> Any:
        backend = SimpleNamespace()
        monkeypatch.setattr(cards, "_driver_version", machine.driver_version)
        monkeypatch.setattr(cards, "package_version", lambda name: machine.package)
        monkeypatch.setattr(cards, "_backend", lambda: machine)
        monkeypatch.setattr(facecnn.kernels, "cuda", backend, raising=False)
        monkeypatch.setitem(sys.modules, "facecnn.kernels.cuda", backend)
        return backend

    return believe


no_driver = failing(FileNotFoundError("libcuda.so.1: cannot open shared object file: No such file or directory"))
NO_CARD = {
    # What is said of a machine: its reason, the way out, and whether something is wrong there.
    "no driver": (Machine(driver_version=no_driver), "no NVIDIA driver is installed", "install its driver", False),
    "a driver that can't be loaded": (
        Machine(driver_version=failing(OSError("/usr/lib/libcuda.so.1: invalid ELF header"))),
        "driver can't be loaded.*invalid ELF header", "install the NVIDIA driver again", True,
    ),
    "a driver without numba-cuda": (
        Machine(package=None), "numba-cuda isn't installed", r"pip install 'facecnn\[cuda12\]'", True,
    ),
    "no card": (
        Machine(why_unavailable=lambda: "Call to cuInit results in CUDA_ERROR_NO_DEVICE"),
        "CUDA_ERROR_NO_DEVICE: no card is visible", "nvidia-smi.*CUDA_VISIBLE_DEVICES.*--gpus all", False,
    ),
    "an updated driver": (
        Machine(why_unavailable=lambda: "Call to cuInit results in CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)"),
        "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH.*was updated", "restart the machine", True,
    ),
    "a compatibility package": (
        Machine(why_unavailable=lambda: "Call to cuInit results in CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE"),
        "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", "LD_LIBRARY_PATH", True,
    ),
    "an unknown error": (
        Machine(why_unavailable=lambda: "Call to cuInit results in CUDA_ERROR_UNKNOWN"),
        "CUDA_ERROR_UNKNOWN", "NVIDIA driver", True,
    ),
    "an error that has no name": (
        Machine(why_unavailable=failing(ValueError("12345 is not a valid CUresult"))),
        "ValueError: 12345 is not", "NVIDIA driver", True,
    ),
    "toolkit libraries missing": (
        Machine(toolkit_version=failing(RuntimeError('Failure finding "libnvrtc.so"'))),
        "toolkit's libraries.*libnvrtc", r"pip install 'facecnn\[cuda12\]'", True,
    ),
    "an old driver": (
        Machine(driver_version=lambda: 11040), r"for CUDA 11\.4, too old for the toolkit 12\.9", "newer NVIDIA", True,
    ),
    "a driver too old for the toolkit 13": (
        Machine(toolkit_version=lambda: (13, 1)), r"for CUDA 12\.4, too old for the toolkit 13\.1",
        r"newer NVIDIA driver, or the older toolkit: pip install 'facecnn\[cuda12\]'", True,
    ),
    "cards that can't be listed": (
        Machine(cards=failing(RuntimeError("function cuDeviceGet is not found"))), "cuDeviceGet", "NVIDIA driver", True,
    ),
    "a kernel that can't be compiled": (
        Machine(prove=failing(AttributeError("module 'numpy' has no attribute 'row_stack'"))),
        "a first kernel failed: AttributeError.*row_stack", r"pip install 'facecnn\[cuda12\]'", True,
    ),
    "a card that is full": (
        Machine(prove=failing(RuntimeError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY"))),
        "the card's memory is full", "nvidia-smi", True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_CARD)
def test_a_machine_whose_card_cannot_be_used(name: str, enter: Enter) -> None:
    machine, reason, mend, fault = NO_CARD[name]
    enter(machine)
    with pytest.raises(DeviceError, match=f"(?s)--device cuda: .*{reason}.*{mend}.*--device cpu"):
        open_device("cuda")
    device = open_device("auto")
    assert (device.backend, device.name, device.free_memory()) == (cpu, "cpu", None)
    assert f"{available_threads()} thread" in device.description
    found = find_cuda()
    assert found.reason in device.reason
    assert (found.available, found.fault) == (False, fault)
    assert "\n" not in device.reason


def test_without_a_driver_or_numba_cuda_nothing_is_imported(enter: Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    for machine in (Machine(driver_version=no_driver), Machine(package=None)):
        enter(machine)
        monkeypatch.setattr(cards, "_backend", failing(AssertionError("imported")))
        assert open_device("auto").backend is cpu


def test_auto_takes_a_card_that_works(enter: Enter) -> None:
    machine = Machine()
    backend = enter(machine)
    device = open_device("auto")
    assert (device.backend, device.name, device.reason) == (backend, "cuda:0", "the best device here")
    assert device.description == "NVIDIA H100 80GB HBM3, 80 GB, compute capability 9.0"
    assert device.free_memory() == 70 * GIB
    assert machine.selected == [0]


def test_a_card_is_chosen_by_its_number(enter: Enter) -> None:
    machine = Machine()
    enter(machine)
    device = open_device("cuda:1")
    assert (device.name, device.description) == ("cuda:1", "Tesla T4, 16 GB, compute capability 7.5")
    assert device.free_memory() == 15 * GIB
    assert machine.selected == [1]


def test_a_number_that_is_not_there_is_refused_with_those_that_are(enter: Enter) -> None:
    enter(Machine())
    with pytest.raises(DeviceError, match=r"no card 2; there is cuda:0 \(NVIDIA H100 80GB HBM3\), cuda:1 \(Tesla T4\)"):
        open_device("cuda:2")


def test_the_memory_of_other_cards_is_asked_for_only_to_be_thorough(enter: Enter) -> None:
    enter(Machine())
    assert [card.free for card in find_cuda(1).cards] == [None, 15 * GIB]
    found = find_cuda(1, thorough=True)
    assert [(card.free, card.memory) for card in found.cards] == [MEMORY[0], MEMORY[1]]
    assert (found.driver, found.toolkit, found.reason, found.mend) == ("12.4", "12.9", None, None)


def test_the_toolkit_is_named_without_a_driver_too(enter: Enter) -> None:
    enter(Machine(driver_version=no_driver))
    assert find_cuda().toolkit is None
    assert find_cuda(thorough=True).toolkit == "12.9"


def test_a_long_text_is_kept_whole_beside_its_first_sentence(enter: Enter) -> None:
    text = "Possible CUDA driver libraries are found but error occurred during load:\n/lib/libcuda.so: bad. More."
    enter(Machine(why_unavailable=lambda: text))
    found = find_cuda()
    assert (found.reason or "").endswith("error occurred during load: /lib/libcuda.so: bad")
    assert found.details == text
    enter(Machine(why_unavailable=lambda: "word " * 1000))
    assert len(find_cuda().reason or "") < 300


def test_the_user_can_switch_cuda_off(enter: Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(Machine())
    monkeypatch.setenv("NUMBA_DISABLE_CUDA", "1")
    assert "NUMBA_DISABLE_CUDA is set" in open_device("auto").reason
    with pytest.raises(DeviceError, match="unset NUMBA_DISABLE_CUDA"):
        open_device("cuda")
    monkeypatch.setenv("NUMBA_DISABLE_CUDA", "0")
    assert open_device("auto").name == "cuda:0"


def test_the_simulator_is_taken_only_if_asked_for(enter: Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = Card(0, "simulator", "5.2")
    machine = Machine(driver_version=no_driver, package=None, cards=lambda: (simulator,), memory=lambda number: None)
    backend = enter(machine)
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    assert find_cuda().cards == (simulator,)
    device = open_device("cuda")
    assert (device.backend, device.free_memory()) == (backend, None)
    assert "simulator" in device.description
    device = open_device("auto")
    assert device.backend is cpu
    assert "only simulated" in device.reason
    with pytest.raises(DeviceError, match=r"there is cuda:0 \(simulator\)"):
        open_device("cuda:1")


def test_a_driver_library_that_is_missing_or_none_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.setattr(cards, "_DRIVER_LIBRARY", str(tmp_path / "libcuda.so.1"))
    assert "no NVIDIA driver is installed" in (find_cuda().reason or "")
    (tmp_path / "libcuda.so.1").write_text("this is no library")
    found = find_cuda()
    assert "driver can't be loaded" in (found.reason or "")
    assert found.fault
    other = ctypes.util.find_library("m")  # a library, but no driver
    if other is not None:
        monkeypatch.setattr(cards, "_DRIVER_LIBRARY", other)
        assert "cuDriverGetVersion" in (find_cuda().reason or "")


def test_a_driver_that_lacks_another_library_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    lacking = "libnvidia-tls.so.1: cannot open shared object file: No such file or directory"
    monkeypatch.setattr("ctypes.CDLL", failing(OSError(lacking)))
    found = find_cuda()
    assert found.reason == f"the NVIDIA driver can't be loaded ({lacking})"
    assert found.fault


@pytest.mark.cuda
def test_a_kernel_really_runs() -> None:
    found = find_cuda(thorough=True)
    if not found.available and not found.simulated:
        pytest.skip(f"no card to run it on: {found.reason}")
    assert found.available, found.reason
    assert found.cards[0].name == "simulator" or found.cards[0].free
    assert open_device("cuda").backend.__name__ == "facecnn.kernels.cuda"


def test_a_device_can_be_asked_for() -> None:
    assert open_device("cpu", 1).description.endswith("1 thread")
    assert open_device("cpu").reason == "asked for"
    assert open_device("reference").backend is reference


@pytest.mark.parametrize(
    ("name", "hint"), [("cdua", "cuda"), ("CPU", "cpu"), ("referense", "reference"), ("auot", "auto")]
)
def test_a_misspelt_device_gets_a_suggestion(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean {hint}"):
        open_device(name)


@pytest.mark.parametrize("name", ["", "tpu:0", "cuda:", "cuda:-1", "cuda:x", "cuda:1 ", "cuda:" + "1" * 5000])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no such device"):
        open_device(name)


def test_threads_must_be_there() -> None:
    for threads in (0, -1, available_threads() + 1):
        with pytest.raises(UsageError, match=f"--threads {threads}: must be 1 to {available_threads()}"):
            open_device("cpu", threads)


def test_no_compiled_backend_is_imported_before_it_is_opened() -> None:
    code = "import sys, facecnn.kernels; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "facecnn.kernels.protocol" in loaded
    assert not {"numba", "numba.cuda", "facecnn.kernels.cpu", "facecnn.kernels.cuda"} & set(loaded)
