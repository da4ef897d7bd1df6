"""Ways to call the command line."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from typer import testing
from typer.main import get_command

from facecnn.cli import app


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    exit_code: int
    """After a signal, of a process, as a shell shows it where it says so: 128 + the signal's number."""
    stdout: str
    stderr: str

    def one_block(self) -> None:
        """A refusal as it should be: on stderr only, without a traceback and without an escape byte."""
        assert self.stdout == ""
        assert "Traceback" not in self.stderr
        assert "internal error" not in self.stderr
        assert "\x1b" not in self.stderr
        assert self.stderr.strip()

    def json(self) -> Any:
        """The one document that stdout holds; anything that isn't strict JSON is an error."""
        return json.loads(self.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


Facecnn = Callable[..., Outcome]
COMMAND = [sys.executable, "-c", "from facecnn.__main__ import main; main()"]


_built = cache(get_command)
"""Typer's runner would build all commands anew for each call, which takes longer than some of them run."""


def call(*arguments: str | Path, stdin: bytes | None = None) -> Outcome:
    """Run a command in this process; what isn't an error with a message fails the test."""
    with mock.patch.object(testing, "_get_command", _built):
        result = testing.CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.stderr
    return Outcome(result.exit_code, result.stdout, result.stderr)


def call_process(*arguments: object, **options: Any) -> Outcome:
    """Run a command in a process of its own; ``prog``: the name by which it was called."""
    prog = options.pop("prog", None)
    command = COMMAND if prog is None else [*COMMAND[:2], f"import sys; sys.argv[0] = {prog!r}; {COMMAND[2]}"]
    options = {"capture_output": True, "timeout": 300, "env": os.environ | options.pop("environment", {})} | options
    done = subprocess.run([*command, *map(str, arguments)], **options)
    stdout, stderr = ((stream or b"").decode("utf-8", "surrogateescape") for stream in (done.stdout, done.stderr))
    return Outcome(done.returncode, stdout, stderr)


SLOW_TO_LOAD = {"numba", "ruamel.yaml", "matplotlib", "jinja2"}


def call_and_see_imports(*arguments: object) -> tuple[str, set[str]]:
    """Run a command in a process of its own: its output, and which packages that take long to load were loaded."""
    program = "import sys; from facecnn.cli import app; app(standalone_mode=False); print(*sys.modules)"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    *output, loaded = done.stdout.splitlines()
    return "\n".join(output), SLOW_TO_LOAD & {*loaded.split()}


@contextmanager
def killed_at_the_end(process: subprocess.Popen[Any]) -> Iterator[None]:
    """A process that is still there when the block ends, as where a test fails, is killed."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@contextmanager
def full_disk(after: int = 0) -> Iterator[None]:
    """A disk that is full after ``after`` calls of fsync: one for each file that is written, and one for its folder."""
    fsync, left = os.fsync, after

    def filling(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with mock.patch.object(os, "fsync", filling):
        yield


def all_names(folder: Path) -> set[str]:
    """Of what is in a folder and below, hidden files too."""
    return {path.name for path in folder.rglob("*")}


@dataclass(frozen=True)
class Trained:
    """A finished run."""

    path: Path
    figures: dict[str, Any]
    """The JSON of its training."""
    photos: Path
