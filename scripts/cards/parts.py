"""The parts of first_card.py, each run in a process of its own: PART, the file for its findings, and options in JSON.

A part is a function that asks ``Findings`` for one finding after another. Those of an earlier start are kept.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from cards.speed import estimated, kernel_times, sent
from common.command import exit_on_error
from common.recording import EpochMetrics
from common.worker import last_line
from facecnn.config import Loaded, apply_overrides, load
from facecnn.errors import FacecnnError, PhotoError
from facecnn.jobs.stderr import StderrConsole
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.photos import TrainingPhotos, read_photos
from facecnn.jobs.training.setup import make_trainer
from facecnn.kernels import Device, available_threads, open_device, processor_name
from facecnn.kernels.cards import find_cuda, package_version
from facecnn.learning.loop import Trainer
from facecnn.runs.atomic import write_atomically
from machine.machine_code import why_not

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("numpy", "numba", "numba-cuda", "cuda-core", "cuda-bindings", "torch")
SANITIZER = "compute-sanitizer"
LONGEST_REASON = 200
"""Characters of a failed test's message; the log has all of it."""
SUBJECTS = {"seed": "seed-224", "deep": "deep-224", "default": "default", "many": "many"}
"""Networks, and benchmark.py's names for them at their own size."""
BATCH = 60


class Findings:
    """A part's findings so far, written to its file after each one."""

    def __init__(self, path: Path, small: bool = False, photos: Path | None = None) -> None:
        self._path = path
        self._found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        self.small = small
        self.photos = photos
        self.failures: list[str] = []

    def find(self, name: str, look: Callable[..., Any], *arguments: Any) -> None:
        """Look for a finding, unless there is one of this name. An error goes to ``failures``, and the part goes on."""
        if name in self._found:
            return
        print(f"{name} ...", flush=True)
        try:
            self._found[name] = look(*arguments)
        except Exception as error:
            traceback.print_exc()
            self.failures.append(f"{name}: {str(error) or type(error).__name__}".partition("\n")[0])
        write_atomically(self._path, json.dumps(self._found).encode())


def machine() -> dict[str, Any]:
    """Describe this machine. Where there is no card, ``card`` is None, and ``no_card`` says why."""
    cuda = find_cuda(0)
    card = cuda.cards[0] if cuda.available and not cuda.simulated else None
    query = "driver_version,clocks.max.sm,power.limit"
    smi = shutil.which("nvidia-smi")
    said = (
        [] if smi is None else run([smi, f"--query-gpu={query}", "--format=csv,noheader", "--id=0"]).stdout.split(",")
    )
    driver, clock, power = [field.strip() for field in said] if len(said) == 3 else [None] * 3
    return {
        "card": None if card is None else card.description,
        "no_card": cuda.reason or "CUDA is only simulated",
        "driver": driver,
        "largest_clock": clock,
        "power_limit": power,
        "cuda_of_driver": cuda.driver,
        "toolkit": cuda.toolkit,
        "processor": processor_name(),
        "threads": available_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in PACKAGES},
    }


def run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, and copy its stderr to this part's log."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", errors="replace")
    print(done.stderr, file=sys.stderr, flush=True)
    return done


def answer_of(done: subprocess.CompletedProcess[str]) -> Any:
    """Read the JSON that a program printed, whatever its exit code. Raises FacecnnError if there is none."""
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise FacecnnError(last_line(done.stderr.strip() or done.stdout).removeprefix("error: ")) from None


# ------------------------------------------------------------------------------------------------- is all of it right?


def doctor(findings: Findings) -> None:
    findings.find("report", examined)


def examined() -> Any:
    """Run the doctor. Returns its report."""
    report = answer_of(run([sys.executable, "-m", "facecnn", "doctor", "--device", "cuda", "--format", "json"]))
    if report["device"] is None:
        raise FacecnnError(report["device_reason"])
    return report


def cases(findings: Findings) -> None:
    every = not findings.small
    findings.find("cuda_backend", tested, "cuda_backend", ["-m", "cuda", *([] if every else ["-k", "average_update"])])
    findings.find("contract", tested, "contract", ["-k", "cuda" if every else "cuda and average_update"])


def tested(folder: str, options: Sequence[str]) -> dict[str, Any]:
    """Run the tests of a folder. Returns how many passed and were skipped, and the failed ones with their reasons."""
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary, "report.xml")
        workers = min(8, available_threads() // 2)
        several = ["-n", str(workers)] if workers > 1 and importlib.util.find_spec("xdist") else []
        command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", f"--junitxml={report}", *several]
        # It writes to the log itself, so that the log's last name is that of a test that hangs.
        done = subprocess.run([*command, *options, f"tests/{folder}"], cwd=ROOT)
        if not report.exists():
            raise FacecnnError(f"pytest: exit code {done.returncode}")
        found = ElementTree.parse(report).getroot().iter("testcase")
        counts, failed = {"passed": 0, "skipped": 0}, {}
        for case in found:
            wrong = [element for kind in ("failure", "error") for element in case.findall(kind)]
            if wrong:
                name = f"{case.get('classname', '').removeprefix('tests.')}.{case.get('name')}"
                failed[name] = " ".join(wrong[0].get("message", "").split())[:LONGEST_REASON]
            else:
                counts["skipped" if case.find("skipped") is not None else "passed"] += 1
    return {**counts, "failed": failed}


def settings_of(config: str, steps: int | None) -> Loaded:
    """Load a shipped config; with ``steps``, for at least that many steps, in whole epochs."""
    changes = [] if steps is None else ["train.epochs=1", f"train.least_steps={steps}"]
    return apply_overrides(load(config), [*changes, "train.stop_when_worst_loss_below=null"])


def photos_for(loaded: Loaded, photos: Path | None) -> TrainingPhotos:
    try:
        return read_photos(loaded, TrainOptions(photos=photos), StderrConsole(quiet=True, verbose=False))
    except PhotoError as error:
        raise PhotoError(
            f"{error} Or give photos of your own: --photos FOLDER" if photos is None else str(error)
        ) from None


def trained(loaded: Loaded, data: TrainingPhotos, device: Device) -> tuple[Trainer, EpochMetrics]:
    """Train to the end."""
    trainer = make_trainer(loaded, data.dataset, data.training, device, validation=data.validation)
    metrics = EpochMetrics()
    trainer.run(metrics)
    return trainer, metrics


def repeats(findings: Findings) -> None:
    for config in ["smoke"] if findings.small else ["seed", "default"]:
        findings.find(config, repeated, config, 4 if findings.small else 200, findings.photos, "cuda")


def repeated(config: str, steps: int, photos: Path | None, device_name: str) -> dict[str, Any]:
    """Train twice with equal seeds, and list the saved arrays that aren't equal to the bit."""
    loaded, device = settings_of(config, steps), open_device(device_name)
    data = photos_for(loaded, photos)
    one, other = (trained(loaded, data, device)[0] for _ in range(2))
    first, second = one.arrays(), other.arrays()
    differing = [name for name, array in first.items() if array.tobytes() != second[name].tobytes()]
    return {"steps": one.progress.step, "photos": len(data.train_indices), "arrays": len(first), "differing": differing}


def accuracy(findings: Findings) -> None:
    for config, steps in {"smoke": 4}.items() if findings.small else {"default": None, "seed": 400}.items():
        findings.find(config, compared, config, steps, findings.photos, ("cuda", "cpu"))


def compared(config: str, steps: int | None, photos: Path | None, devices: Sequence[str]) -> dict[str, Any]:
    """Train alike on several devices: losses by epoch, and the accuracy on held-out photos at the end."""
    loaded = settings_of(config, steps)
    data = photos_for(loaded, photos)
    found: dict[str, Any] = {"photos": len(data.train_indices), "held_out": len(data.validation)}
    for name in devices:
        device = open_device(name)
        trainer, metrics = trained(loaded, data, device)
        found[name] = {
            "device": device.description,
            "steps": trainer.progress.step,
            **{key: metrics.of(key) for key in ("train_loss", "train_accuracy", "validation_loss")},
            "accuracy": metrics.of("validation_accuracy")[-1],
            "seconds": sum(metrics.of("seconds")),
        }
    return found


# ----------------------------------------------------------------------------------------------------- how fast is it?


def steps(findings: Findings, network: str) -> None:
    """facecnn is measured in each of the calls, since only processes that take turns can be compared."""
    there = importlib.util.find_spec("torch") is not None
    options = ["--network", "smoke", "--rounds", "1"] if findings.small else ["--network", SUBJECTS[network]]
    for name, word in {"eager": "eager", "compiled": "torch.compile"}.items() if there else {"alone": "none"}.items():
        findings.find(name, benchmarked, [*options, "--quick", "--against", word])


def benchmarked(options: Sequence[str]) -> dict[str, Any]:
    """Run benchmark.py. Returns its rows, and its failure, if there are rows all the same."""
    done = run([sys.executable, ROOT / "scripts" / "benchmark.py", "--device", "cuda", "--json", *options])
    report = answer_of(done)
    failure = None if done.returncode == 0 else last_line(done.stderr).removeprefix("error: ")
    if failure is not None and all(row["median_ms"] is None for row in report["rows"]):
        raise FacecnnError(failure)
    return {"pytorch": report["pytorch"], "gpu": report["machine"]["gpu"], "rows": report["rows"], "failure": failure}


def kernels(findings: Findings) -> None:
    for config in ["smoke"] if findings.small else SUBJECTS:
        findings.find(config, kernel_times, config, *((8, 3) if findings.small else (BATCH, 50)))


def estimates(findings: Findings) -> None:
    if reason := why_not():
        raise FacecnnError(f"nothing can be compiled: {reason}")
    for config in ["smoke"] if findings.small else SUBJECTS:
        findings.find(config, estimated, config, 8 if findings.small else BATCH)


def streaming(findings: Findings) -> None:
    for config in ["smoke"] if findings.small else ["seed", "default"]:
        findings.find(config, sent, config, *((40, 3, 8) if findings.small else (3000, 12, BATCH)))


# ------------------------------------------------------------------------------------------------------- memory checks


def memory_checks(findings: Findings) -> None:
    program = shutil.which(SANITIZER)
    for tool in ("memcheck", "racecheck", "initcheck", "synccheck"):
        findings.find(tool, checked, program, tool)


def checked(program: str | None, tool: str) -> dict[str, Any] | None:
    """Run the self-test, which runs every kernel, under a tool of the sanitizer; None if it isn't installed."""
    if program is None:
        return None
    doctor = [sys.executable, "-m", "facecnn", "doctor", "--device", "cuda"]
    done = run([program, "--tool", tool, "--target-processes", "all", *doctor])
    print(done.stdout, flush=True)
    return summary_of(done.stdout + done.stderr)


def summary_of(said: str) -> dict[str, Any]:
    found = re.findall(r"^=+ (\w+ SUMMARY: (\d+) (?:error|hazard).*)$", said, re.MULTILINE)
    if not found:
        raise FacecnnError(f"{SANITIZER} gave no summary")
    return {"errors": max(int(number) for _, number in found), "summary": found[-1][0]}


PARTS: dict[str, Callable[[Findings], None]] = {
    "doctor": doctor,
    "cases": cases,
    "repeats": repeats,
    "accuracy": accuracy,
    **{f"steps_{name}": partial(steps, network=name) for name in SUBJECTS},
    "kernels": kernels,
    "memory_checks": memory_checks,
    "streaming": streaming,
    "estimates": estimates,
}


@exit_on_error()
def main() -> None:
    part, *arguments = sys.argv[1:]
    if part == "machine":
        print(json.dumps(machine()))
        return
    options = json.loads(arguments[1])
    photos = None if options["photos"] is None else Path(options["photos"])
    findings = Findings(Path(arguments[0]), options["small"], photos)
    PARTS[part](findings)
    if findings.failures:
        sys.exit("; ".join(findings.failures))


if __name__ == "__main__":
    main()
