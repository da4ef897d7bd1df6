"""Builds the stand-in driver, and runs facecnn's commands on a machine that has it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from cli.running import Outcome

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Call:
    """A line of the driver's log."""

    name: str
    result: int
    device: int
    figures: dict[str, str]

    @property
    def violation(self) -> str | None:
        """Why it has no place in a capture, during which it was called."""
        return self.figures.get("violation")

    def is_launch_of(self, kernel: str) -> bool:
        """Of one whose mangled name has this in it."""
        return self.name == "cuLaunchKernelEx" and kernel in self.figures["kernel"]


@dataclass(frozen=True)
class Ran(Outcome):
    """What a command did, and what it asked the driver for."""

    calls: list[Call] = field(default_factory=list)

    def named(self, *names: str) -> list[Call]:
        return [call for call in self.calls if call.name in names]


def _read(log: Path) -> list[Call]:
    calls = []
    for line in log.read_text().splitlines() if log.exists() else []:
        name, *pairs = line.split(" ")
        figures = dict(pair.split("=", 1) for pair in pairs)
        calls.append(Call(name, int(figures.pop("result")), int(figures.pop("device")), figures))
    return calls


class Machine:
    """Runs commands; ``settings`` are the driver's, in lower case and without STANDIN_: ``cards=2``."""

    def __init__(self, folder: Path, server: subprocess.Popen[str]) -> None:
        self._folder = folder
        self._server = server

    def run(self, *arguments: str | Path, environment: dict[str, str] | None = None, **settings: Any) -> Ran:
        """A command of facecnn's."""
        log, output, errors = (self._folder / name for name in ("log", "output", "errors"))
        log.unlink(missing_ok=True)
        own = {f"STANDIN_{name.upper()}": str(value) for name, value in settings.items()}
        asked = {
            "arguments": [str(argument) for argument in arguments],
            "environment": {"STANDIN_LOG": str(log), **own, **(environment or {})},
            "output": str(output),
            "errors": str(errors),
        }
        stdin, stdout = self._pipes()
        stdin.write(json.dumps(asked) + "\n")
        stdin.flush()
        answer = stdout.readline()
        assert answer, "the process that runs commands has ended"
        return Ran(int(answer), output.read_text(), errors.read_text(), _read(log))

    def program(self, text: str, **settings: Any) -> Ran:
        """A Python program."""
        return self.run("-c", text, **settings)

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        return self._server.stdin, self._server.stdout


def _headers() -> Path:
    """The folder of cuda.h, which comes with the extra cuda12."""
    from cuda.pathfinder import find_nvidia_header_directory

    folder = find_nvidia_header_directory("cudart")
    if folder is None:
        pytest.skip("cuda.h, of the extra cuda12, isn't here")
    return Path(folder)


def build(folder: Path) -> None:
    """Compile the driver into a folder; skips, and says why, where that can't be."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the stand-in driver is for Linux")
    if importlib.util.find_spec("numba_cuda") is None:
        pytest.skip("needs the extra cuda12")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler (cc)")
    command = [compiler, "-O1", "-shared", "-fPIC", f"-I{_headers()}"]
    done = subprocess.run(
        [*command, "-o", folder / "libcuda.so.1", HERE / "driver.c", "-pthread"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def started(folder: Path) -> Iterator[Machine]:
    """A machine with the driver that was built into ``folder``."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("STANDIN_", "NUMBA_"))}
    tests = HERE.parents[1]
    for name, paths in {"LD_LIBRARY_PATH": [folder], "PYTHONPATH": [HERE / "site", tests]}.items():
        environment[name] = os.pathsep.join(filter(None, [*map(str, paths), os.environ.get(name)]))
    server = subprocess.Popen(
        [sys.executable, HERE / "commands.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    try:
        yield Machine(folder, server)
    finally:
        assert server.stdin is not None
        server.stdin.close()
        server.wait()
