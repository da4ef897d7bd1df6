"""Finds usable NVIDIA cards, or the reason why there is none.

Cheap checks come first, so that a machine without a card pays next to nothing: Numba's CUDA and the CUDA backend are
imported only where a driver and the package numba-cuda are installed.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

EXTRA = "pip install 'facecnn[cuda12]'"
"""Brings numba-cuda and the toolkit's libraries. With pip, an installed facecnn is enough, a checkout's as well."""

_NEWEST_DRIVER = "install the newest NVIDIA driver, or restart"
_DRIVER_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_LONGEST_REASON = 200


@dataclass(frozen=True)
class Card:
    """A card, by CUDA's number."""

    number: int
    name: str
    compute_capability: str
    """``9.0``."""
    memory: int | None = None
    """Bytes in total; None if unknown."""
    free: int | None = None
    """Free bytes."""

    @property
    def description(self) -> str:
        """``NVIDIA H100 80GB HBM3, 80 GB, compute capability 9.0`` (GB of 2^30 bytes, as cards are sold)."""
        memory = "" if self.memory is None else f", {self.memory / 2**30:.0f} GB"
        return f"{self.name}{memory}, compute capability {self.compute_capability}"


@dataclass(frozen=True)
class Cuda:
    """The result of ``find_cuda``."""

    available: bool
    """Whether a kernel has really run on the requested card."""
    reason: str | None = None
    """Why it isn't available, as a phrase."""
    details: str | None = None
    """The whole message of the driver or Numba, where the reason is only a part of it."""
    mend: str | None = None
    """What to do about it."""
    fault: bool = False
    """Whether something is broken, rather than no card being there or wanted."""
    simulated: bool = False
    """Whether this is Numba's simulator instead of a card."""
    driver: str | None = None
    """The newest CUDA version that the driver supports: ``12.2``."""
    toolkit: str | None = None
    """The version of the toolkit's libraries."""
    cards: tuple[Card, ...] = ()


class _Unusable(Exception):
    """Why no kernel can run: the texts of ``Cuda``."""

    def __init__(self, reason: str, mend: str, *, fault: bool, details: str | None = None) -> None:
        super().__init__(reason)
        self.texts: dict[str, Any] = {"reason": reason, "mend": mend, "fault": fault, "details": details}


# Errors of the driver: the reason, what to do, and whether something is broken.
_MEANINGS = {
    "CUDA_ERROR_NO_DEVICE": (
        "no card is visible",
        "with a card in this machine: nvidia-smi must list it, CUDA_VISIBLE_DEVICES must not hide it, and a container "
        "must be started with it (docker run --gpus all)",
        False,
    ),
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": (
        "the driver was updated, and the old one is still running",
        "restart the machine",
        True,
    ),
    "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE": (
        "a compatibility package stands before the driver, and this card doesn't support it",
        "take CUDA's folder compat out of LD_LIBRARY_PATH, or install a newer NVIDIA driver",
        True,
    ),
    "CUDA_ERROR_STUB_LIBRARY": (
        "the toolkit's stand-in for the driver was found in its place",
        "take CUDA's folder lib64/stubs out of LD_LIBRARY_PATH",
        True,
    ),
    "CUDA_ERROR_OUT_OF_MEMORY": (
        "the card's memory is full",
        "see in nvidia-smi what takes it, or take another card with --device cuda:N",
        True,
    ),
    "CUDA_ERROR_NO_BINARY_FOR_GPU": (
        "the card is too old for the toolkit that is installed",
        f"take the toolkit that knows most cards: {EXTRA}",
        True,
    ),
}


def card_number(device: str) -> int | None:
    """N of ``cuda:N``, 0 for ``cuda``; None for any other name."""
    match = re.fullmatch(r"cuda(?::([0-9]{1,4}))?", device)
    return int(match.group(1) or 0) if match else None


def find_cuda(number: int = 0, *, thorough: bool = False) -> Cuda:
    """Whether card ``number`` can be used: the driver, the toolkit, the cards, and a kernel that really runs on it.

    If all is well, the card is selected for this thread. ``thorough`` looks at more than it takes to know: at the
    memory of every card, which occupies a part of it, and at the toolkit where there is no driver.
    """
    found = Cuda(available=False)
    try:
        if is_simulated():
            found = replace(found, simulated=True)
        else:
            found = replace(found, driver=_version_text(_driver()))
            _demand_package()
        devices = _backend()
        if not found.simulated:
            found = replace(found, toolkit=_toolkit(devices))
            _demand_new_enough_driver(found)
            _demand_driver(devices)
        found = replace(found, cards=_cards(devices))
        _demand_number(number, found.cards)
        _prove(devices, number)
    except _Unusable as why:
        if thorough and found.toolkit is None and not found.simulated:
            found = replace(found, toolkit=_toolkit_without_driver())
        return replace(found, **why.texts)
    measured = [_with_memory(devices, card) if thorough or card.number == number else card for card in found.cards]
    return replace(found, available=True, cards=tuple(measured))


def is_simulated() -> bool:
    """Whether Numba's simulator, which isn't a card, takes the place of all cards."""
    return _is_set("NUMBA_ENABLE_CUDASIM")


def free_memory(number: int) -> int | None:
    """Bytes that are free on a card that is in use; None where that isn't known."""
    memory = _backend().memory(number)
    return None if memory is None else memory[0]


# ------------------------------------------------------------------------------------- what there is, step by step


def _driver() -> tuple[int, int] | None:
    """The driver's version, None if it doesn't say; needs nothing but the library."""
    if _is_set("NUMBA_DISABLE_CUDA"):
        raise _Unusable("NUMBA_DISABLE_CUDA is set", "unset NUMBA_DISABLE_CUDA", fault=False)
    try:
        number = _driver_version()
    except FileNotFoundError:
        rest = "" if package_version("numba-cuda") else f" and the CUDA packages: {EXTRA}"
        raise _Unusable(
            f"no NVIDIA driver is installed ({_DRIVER_LIBRARY} wasn't found)",
            f"with an NVIDIA card in this machine, install its driver{rest}",
            fault=False,
        ) from None
    except OSError as error:
        raise _Unusable(
            f"the NVIDIA driver can't be loaded ({first_sentence(str(error))})",
            "install the NVIDIA driver again",
            fault=True,
        ) from None
    return (number // 1000, number % 1000 // 10) if number else None


def _driver_version() -> int:
    """12020 for 12.2, or 0. Raises FileNotFoundError without a driver, OSError if it isn't a library."""
    try:
        library = ctypes.CDLL(_DRIVER_LIBRARY)
    except OSError as error:
        # Only Windows has a separate error for this, and the missing file may be a library that the driver needs.
        if "no such file" in str(error).lower() and _DRIVER_LIBRARY in str(error).split(":")[0]:
            raise FileNotFoundError(str(error)) from None
        raise
    number = ctypes.c_int(0)
    try:
        code = library.cuDriverGetVersion(ctypes.byref(number))
    except AttributeError as error:
        raise OSError(str(error)) from None
    return number.value if code == 0 else 0


def _demand_package() -> None:
    if package_version("numba-cuda") is None:
        raise _Unusable(
            "there is an NVIDIA driver, but the package numba-cuda isn't installed", f"install it: {EXTRA}", fault=True
        )


def package_version(name: str) -> str | None:
    """The version of an installed package, None if it isn't."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _backend() -> Any:
    """``facecnn.kernels.cuda.devices``, which imports Numba's CUDA."""
    try:
        from numba import cuda  # noqa: F401 (what is wrong in facecnn itself must not look like a missing package)
    except ImportError as error:
        raise _Unusable(
            f"Numba's CUDA can't be imported ({first_sentence(str(error))})",
            f"install what it takes: {EXTRA}",
            fault=True,
            details=str(error),
        ) from None
    from facecnn.kernels.cuda import devices

    return devices


def _demand_driver(devices: Any) -> None:
    what = "the NVIDIA driver can't be used"
    with _explaining(what, _NEWEST_DRIVER):  # a code that cuda-bindings doesn't know is a ValueError
        text = devices.why_unavailable()
    if text is not None:
        raise _explained(what, text, _NEWEST_DRIVER)


def _cards(devices: Any) -> tuple[Card, ...]:
    with _explaining("the cards can't be listed", _NEWEST_DRIVER):
        cards = tuple(devices.cards())
    return cards


def _toolkit(devices: Any) -> str | None:
    with _explaining("the CUDA toolkit's libraries are not all there", f"install them: {EXTRA}"):
        version = devices.toolkit_version()
    return _version_text(version)


def _toolkit_without_driver() -> str | None:
    if package_version("numba-cuda") is None:
        return None
    try:
        return _toolkit(_backend())
    except _Unusable:
        return None


def _demand_new_enough_driver(found: Cuda) -> None:
    """Numba doesn't compare them. Within a major version any driver will do ("minor version compatibility")."""
    if found.driver is None or found.toolkit is None:
        return
    driver, toolkit = (int(version.split(".")[0]) for version in (found.driver, found.toolkit))
    if driver < toolkit:
        older = f", or the older toolkit: {EXTRA}" if driver >= 12 else ""
        raise _Unusable(
            f"the NVIDIA driver is for CUDA {found.driver}, too old for the toolkit {found.toolkit}",
            f"install a newer NVIDIA driver{older}",
            fault=True,
        )


def _demand_number(number: int, cards: Iterable[Card]) -> None:
    if number not in [card.number for card in cards]:
        those = ", ".join(f"cuda:{card.number} ({card.name})" for card in cards)
        raise _Unusable(f"there is no card {number}", f"there is {those}" if those else "there is none", fault=False)


def _prove(devices: Any, number: int) -> None:
    """The only real proof: if this fails, nothing else would run either."""
    with _explaining("a first kernel failed", f"update the NVIDIA driver, and install what it takes: {EXTRA}"):
        devices.select(number)
        devices.prove()


def _with_memory(devices: Any, card: Card) -> Card:
    memory = devices.memory(card.number)
    return card if memory is None else replace(card, free=memory[0], memory=memory[1])


# --------------------------------------------------------------------------------------------------------- wording


def _explained(what: str, text: str, mend: str) -> _Unusable:
    """``what`` is wrong, in the driver's own words, with what these mean where that is known."""
    text = re.sub(r" \(<CUresult\.\w+: \d+>\)", "", text).strip()  # Numba says each code twice
    said = first_sentence(text)
    details = None if said == text.rstrip(".") else text
    for name, (meaning, way_out, fault) in _MEANINGS.items():
        if name in text:
            return _Unusable(f"{what}: {said}: {meaning}", way_out, fault=fault, details=details)
    return _Unusable(f"{what}: {said}", mend, fault=True, details=details)


@contextmanager
def _explaining(what: str, mend: str) -> Iterator[None]:
    """Whatever is raised within the context means that ``what`` is wrong."""
    try:
        yield
    except Exception as error:
        raise _explained(what, f"{type(error).__name__}: {error}", mend) from None


def first_sentence(text: str) -> str:
    """The beginning of a long text, on one line and without a full stop."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    first = lines[0] if lines else "no reason given"
    if first.endswith(":") and len(lines) > 1:
        first = f"{first} {lines[1]}"
    first = first.split(". ")[0].rstrip(".")
    return first if len(first) <= _LONGEST_REASON else f"{first[:_LONGEST_REASON]}..."


def _version_text(version: tuple[int, int] | None) -> str | None:
    return None if version is None else f"{version[0]}.{version[1]}"


def _is_set(variable: str) -> bool:
    """Whether one of Numba's switches is on: a number other than 0."""
    value = os.environ.get(variable, "").strip()
    return value.isdecimal() and int(value) != 0
